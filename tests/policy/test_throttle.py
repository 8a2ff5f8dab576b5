"""The throttle, without a clock and without a socket: slots, rate, pause, outage, probe and return."""

from __future__ import annotations

import itertools
import math

import pytest

from distribute_async import Limits
from distribute_async._policy.faults import HealthSignal
from distribute_async._policy.throttle import RESUME_SECONDS, Throttle


def half(span: float) -> float:
    return span / 2


def new_gate(**limits: float) -> Throttle:
    return Throttle(Limits(**limits), half)  # type: ignore[arg-type]


def exchange(throttle: Throttle, key: str, evidence: HealthSignal, now: float, *, is_crowd: bool = True) -> None:
    throttle.leave(key, evidence, now, was_probe=throttle.enter(now), is_crowd=is_crowd)


def break_down(throttle: Throttle, now: float) -> None:
    for n in range(5):
        exchange(throttle, f"task {n % 2}", HealthSignal.DOWN, now)
    assert throttle.down_since == now


def test_slots_are_bounded() -> None:
    """With `max_in_flight` exchanges under way, only the end of one lets the next start."""
    throttle = new_gate(max_in_flight=2)
    throttle.enter(0.0)
    was_probe = throttle.enter(0.0)
    assert throttle.opens_at(0.0) == math.inf
    throttle.leave("a", HealthSignal.UP, 1.0, was_probe=was_probe, is_crowd=False)
    assert throttle.opens_at(1.0) == 1.0


def test_the_rate_is_a_reservation_of_slots() -> None:
    """With a rate, exchanges leave at even distances, and it is known ahead when the next one may."""
    throttle = new_gate(max_requests_per_second=4)
    now, left = 10.0, []
    for _ in range(5):
        now = throttle.opens_at(now)
        left.append(now)
        exchange(throttle, "a", HealthSignal.UP, now)
    assert left == [10.0, 10.25, 10.5, 10.75, 11.0]


def test_a_pause_holds_everything_and_returns_one_by_one() -> None:
    """During a pause nothing starts; after it the allowance is 1 and grows by 1 with each good answer."""
    throttle = new_gate()
    throttle.pause(5.0)
    assert throttle.opens_at(1.0) == 5.0
    now = 5.0
    for allowed in (1, 2, 3):
        for _ in range(allowed):
            now = throttle.opens_at(now)
            assert now < 6.0
            throttle.enter(now)
        assert throttle.opens_at(now) == math.inf
        for n in range(allowed):
            throttle.leave("a", HealthSignal.UP if n == 0 else HealthSignal.CUT, now, was_probe=False, is_crowd=True)


def test_the_return_from_a_pause_is_rationed() -> None:
    """After a pause at most 10 requests leave in the first second, and at most twice as many in each further one."""
    throttle = new_gate()
    throttle.pause(5.0)
    now, seconds = 0.0, [0] * 8
    while (now := throttle.opens_at(now)) < 5.0 + 8:
        seconds[int(now - 5.0)] += 1
        exchange(throttle, "a", HealthSignal.UP, now)
    assert 5 <= seconds[0] <= 10
    assert all(later <= 2 * earlier for earlier, later in itertools.pairwise(seconds))
    assert sum(seconds) > 2000


def test_good_answers_within_a_pause_raise_no_allowance() -> None:
    """What was under way as a pause began and ends well within it is no reason to come back all at once."""
    throttle = new_gate()
    for _ in range(50):
        throttle.enter(0.0)
    throttle.leave("a", HealthSignal.UP, 0.5, was_probe=False, is_crowd=True)
    throttle.pause(5.0)
    for _ in range(48):
        throttle.leave("a", HealthSignal.UP, 1.0, was_probe=False, is_crowd=True)
    assert throttle.opens_at(5.0) == math.inf  # the last one is still under way
    throttle.leave("a", HealthSignal.UP, 5.0, was_probe=False, is_crowd=True)
    for _ in range(2):
        assert throttle.opens_at(20.0) == 20.0
        throttle.enter(20.0)
    assert throttle.opens_at(20.0) == math.inf


def test_a_shorter_pause_does_not_cut_a_longer_one() -> None:
    """Of two pauses the later end counts."""
    throttle = new_gate()
    throttle.pause(9.0)
    throttle.pause(4.0)
    assert throttle.opens_at(0.0) == 9.0


def test_five_failures_in_a_row_close_the_gate() -> None:
    """The fifth failure in a row is the outage; a good answer among them starts the count afresh."""
    throttle = new_gate()
    for evidence in [*[HealthSignal.DOWN] * 4, HealthSignal.UP, *[HealthSignal.DOWN] * 4]:
        exchange(throttle, "a", evidence, 0.0, is_crowd=False)
    assert throttle.down_since is None
    exchange(throttle, "a", HealthSignal.DOWN, 3.0, is_crowd=False)
    assert throttle.down_since == 0.0


def test_one_poisonous_id_closes_nothing() -> None:
    """Where two tasks are followed, failures of one alone are that one's affair."""
    throttle = new_gate()
    for _ in range(50):
        exchange(throttle, "poison", HealthSignal.DOWN, 0.0, is_crowd=True)
    assert throttle.down_since is None
    exchange(throttle, "other", HealthSignal.DOWN, 0.0, is_crowd=True)
    assert throttle.down_since is not None


def test_one_probe_at_a_time() -> None:
    """During an outage one exchange is under way at most, backed off from 0.5 s to at most 5 s."""
    throttle = new_gate()
    break_down(throttle, 0.0)
    now, times = 0.0, []
    while now < 60:
        now = throttle.opens_at(now)
        times.append(now)
        was_probe = throttle.enter(now)
        assert was_probe
        assert throttle.opens_at(now) == math.inf
        throttle.leave("a", HealthSignal.DOWN, now, was_probe=was_probe, is_crowd=True)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[:3] == [0.75, 1.5, 3.0]
    assert max(gaps) <= 5.0
    assert len(times) <= 30


def test_a_cut_probe_is_no_evidence() -> None:
    """A probe cut by its wait's deadline leaves the outage as it was, and doesn't let the next one out earlier."""
    throttle = new_gate()
    break_down(throttle, 0.0)
    at = throttle.opens_at(0.0)
    was_probe = throttle.enter(at)
    throttle.leave("a", HealthSignal.CUT, at + 0.01, was_probe=was_probe, is_crowd=True)
    assert throttle.down_since == 0.0
    assert throttle.opens_at(at + 0.01) == at + 0.375


def test_stragglers_do_not_count_as_probes() -> None:
    """Exchanges from before the outage that fail in it don't lengthen the probe's backoff."""
    throttle = new_gate()
    stragglers = [throttle.enter(0.0) for _ in range(20)]
    break_down(throttle, 0.0)
    for was_probe in stragglers:
        throttle.leave("a", HealthSignal.DOWN, 0.1, was_probe=was_probe, is_crowd=True)
    assert throttle.opens_at(0.1) == pytest.approx(0.375)


def test_the_return_is_rationed() -> None:
    """After an outage at most 10 requests leave in the first second, and at most twice as many in each further one."""
    throttle = new_gate()
    break_down(throttle, 0.0)
    start = now = throttle.opens_at(0.0)
    exchange(throttle, "a", HealthSignal.UP, now)
    assert throttle.down_since is None
    seconds = [0] * 8
    while (now := throttle.opens_at(now)) < start + 8:
        seconds[int(now - start)] += 1
        exchange(throttle, "a", HealthSignal.UP, now)
    assert seconds[0] <= 10
    assert all(later <= 2 * earlier for earlier, later in itertools.pairwise(seconds))
    assert sum(seconds) > 2000


def test_the_return_starts_with_one_at_a_time() -> None:
    """After the probe the allowance grows by one with each good answer."""
    throttle = new_gate()
    break_down(throttle, 0.0)
    now = throttle.opens_at(0.0)
    exchange(throttle, "a", HealthSignal.UP, now)
    later = now + 5
    throttle.enter(later)
    throttle.enter(later)
    assert throttle.opens_at(later) == math.inf


def start_of_return(**limits: float) -> tuple[Throttle, float]:
    """A throttle just after the probe that ended an outage, and the time."""
    throttle = new_gate(**limits)
    break_down(throttle, 0.0)
    now = throttle.opens_at(0.0)
    exchange(throttle, "a", HealthSignal.UP, now)
    return throttle, now


def test_the_probe_waits_exactly_as_promised() -> None:
    """The probe's waits are 0.5 s, doubling up to 5 s, half of each random; a failed probe counts from its end."""
    throttle = new_gate()
    break_down(throttle, 10.0)
    now, waits = 10.0, []
    for _ in range(7):
        waits.append(throttle.opens_at(now) - now)
        now = throttle.opens_at(now)
        was_probe = throttle.enter(now)
        now += 100.0  # a probe that takes long
        throttle.leave("a", HealthSignal.DOWN, now, was_probe=was_probe, is_crowd=True)
    assert waits == [0.375, 0.75, 1.5, 3.0, 3.75, 3.75, 3.75]


def test_a_probe_that_tells_little_is_a_failed_one() -> None:
    """A probe with an unclear answer keeps the throttle closed and lengthens the wait like a failed one."""
    throttle = new_gate()
    break_down(throttle, 0.0)
    was_probe = throttle.enter(1.0)
    throttle.leave("a", HealthSignal.UNCLEAR, 2.0, was_probe=was_probe, is_crowd=True)
    assert throttle.down_since == 0.0
    assert throttle.opens_at(2.0) == 2.75


def test_a_cut_probe_lets_the_next_one_out_after_its_own_wait() -> None:
    """The wait after a probe counts from its start where the probe was cut; the next one is as long."""
    throttle = new_gate()
    break_down(throttle, 0.0)
    for start in (1.0, 5.0):
        was_probe = throttle.enter(start)
        throttle.leave("a", HealthSignal.CUT, start + 0.1, was_probe=was_probe, is_crowd=True)
        assert throttle.opens_at(start + 0.1) == start + 0.375


def test_the_end_of_another_exchange_does_not_free_the_probe() -> None:
    """While the probe is under way, a straggler that fails or is cut lets nobody out."""
    throttle = new_gate()
    stragglers = [throttle.enter(0.0) for _ in range(2)]
    break_down(throttle, 0.0)
    for was_probe, evidence in zip(stragglers, [HealthSignal.DOWN, HealthSignal.CUT], strict=True):
        assert throttle.running > 0
        throttle.leave("a", evidence, 0.1, was_probe=was_probe, is_crowd=True)
    assert throttle.enter(1.0)
    assert throttle.opens_at(100.0) == math.inf


def test_a_straggler_with_a_good_answer_ends_the_outage() -> None:
    """A good answer is good evidence, whoever asked; what fails afterwards counts anew, up to the next outage's first wait."""  # noqa: E501
    throttle = new_gate()
    straggler = throttle.enter(0.0)
    break_down(throttle, 0.0)
    for now in (1.0, 10.0, 20.0):
        exchange(throttle, "a", HealthSignal.DOWN, now)
    throttle.leave("a", HealthSignal.UP, 30.0, was_probe=straggler, is_crowd=True)
    for n in range(4):
        assert throttle.opens_at(50.0) == 50.0
        exchange(throttle, f"task {n % 2}", HealthSignal.DOWN, 40.0 + n)
    exchange(throttle, "a", HealthSignal.DOWN, 44.0)
    assert throttle.down_since == 40.0
    assert throttle.opens_at(44.0) == 44.375


def test_only_failures_since_the_last_good_answer_are_held_together() -> None:
    """Another id that failed before a good answer makes no crowd with the one that fails after it."""
    throttle = new_gate()
    exchange(throttle, "healthy", HealthSignal.DOWN, 0.0)
    exchange(throttle, "healthy", HealthSignal.UP, 0.0)
    for _ in range(50):
        exchange(throttle, "poison", HealthSignal.DOWN, 0.0)
    assert throttle.down_since is None


@pytest.mark.parametrize("evidence", [HealthSignal.UNCLEAR, HealthSignal.CUT])
def test_unclear_evidence_changes_nothing(evidence: HealthSignal) -> None:
    """What tells nothing of the service neither counts towards an outage nor starts its count afresh."""
    throttle = new_gate()
    for n in range(4):
        exchange(throttle, f"task {n % 2}", HealthSignal.DOWN, float(n))
        exchange(throttle, "task 0", evidence, float(n))
    assert throttle.down_since is None
    exchange(throttle, "task 0", HealthSignal.DOWN, 4.0)
    assert throttle.down_since == 0.0


def test_the_return_is_rationed_to_the_request() -> None:
    """Request n after the probe leaves no earlier than 10 · (2^t - 1) = n, for exactly 10 s."""
    throttle, start = start_of_return()
    for n in range(1, 31):
        assert throttle.opens_at(start) == pytest.approx(start + math.log2(1 + (n - 1) / 10))
        exchange(throttle, "a", HealthSignal.UP, start)
    for _ in range(20_000):
        exchange(throttle, "a", HealthSignal.UP, start)
    assert throttle.opens_at(start + 9.99) == pytest.approx(start + 10.0, abs=1e-3)
    assert throttle.opens_at(start + 10.001) == start + 10.001


def test_a_slow_return_saves_nothing_up() -> None:
    """What wasn't sent in one second of the return is not made up for in the next."""
    throttle, start = start_of_return()
    sent, now = 0, start + 1.0
    while (now := throttle.opens_at(now)) < start + 2.0:
        exchange(throttle, "a", HealthSignal.UP, now)
        sent += 1
    assert sent <= 20


def test_the_ration_ends_to_the_second() -> None:
    """A request exactly 10 s after the probe is free: another may follow at once."""
    throttle, start = start_of_return()
    assert throttle.opens_at(start + 10.0) == start + 10.0
    exchange(throttle, "a", HealthSignal.UP, start + 10.0)
    assert throttle.opens_at(start + 10.0) == start + 10.0


def test_a_gate_that_was_never_closed_rations_nothing() -> None:
    """Without an outage any number of requests may leave in the first seconds, whatever the loop's time is."""
    throttle = new_gate()
    for now in (-5.0, 0.0, 1.0):
        for _ in range(1_000):
            assert throttle.opens_at(now) == now
            exchange(throttle, "a", HealthSignal.UP, now)


def test_the_allowance_grows_up_to_the_limit() -> None:
    """After a pause the allowance grows by one with each good answer, up to `max_in_flight` and not beyond."""
    throttle = new_gate(max_in_flight=3)
    throttle.pause(1.0)
    now = 1.0 + RESUME_SECONDS  # nothing is rationed any more
    for allowed in (1, 2, 3, 3, 3):
        for n in range(allowed):
            assert throttle.running == n
            assert throttle.opens_at(now) == now
            throttle.enter(now)
        assert throttle.opens_at(now) == math.inf
        for n in range(allowed):
            evidence = HealthSignal.UP if n == 0 else HealthSignal.CUT
            throttle.leave("a", evidence, now, was_probe=False, is_crowd=True)


def test_an_outage_allows_one_at_a_time() -> None:
    """From the fifth failure on one exchange is allowed; those that are under way already hold the probe back."""
    throttle = new_gate(max_in_flight=50)
    straggler = throttle.enter(0.0)
    break_down(throttle, 0.0)
    assert throttle.opens_at(9.0) == math.inf
    throttle.leave("a", HealthSignal.CUT, 9.0, was_probe=straggler, is_crowd=True)
    assert throttle.opens_at(9.0) == 9.0


def test_idle_time_is_not_saved_up() -> None:
    """After a long silence the rate allows no burst: the next requests are as far apart as ever."""
    throttle = new_gate(max_requests_per_second=4)
    exchange(throttle, "a", HealthSignal.UP, 0.0)
    exchange(throttle, "a", HealthSignal.UP, 100.0)
    assert throttle.opens_at(100.0) == 100.25


def test_what_holds_back_longest_counts() -> None:
    """Pause, rate and probe hold together: the latest of them is the time."""
    throttle = new_gate(max_requests_per_second=0.1)
    throttle.pause(4.0)
    assert throttle.opens_at(0.0) == 4.0
    exchange(throttle, "a", HealthSignal.UP, 4.0)
    assert throttle.opens_at(4.0) == 14.0
    throttle.pause(20.0)
    assert throttle.opens_at(14.0) == 20.0
    down = new_gate()
    break_down(down, 0.0)
    down.pause(7.0)
    assert down.opens_at(0.0) == 7.0


def test_the_rest_of_a_pause_is_known() -> None:
    """`paused_for` is what is left of the longest pause, and 0 where there is none (any more)."""
    throttle = new_gate()
    assert throttle.paused_for(3.0) == 0.0
    throttle.pause(9.0)
    throttle.pause(4.0)
    assert throttle.paused_for(3.0) == 6.0
    assert throttle.paused_for(9.0) == 0.0
    assert throttle.paused_for(10.0) == 0.0


def test_an_exchange_may_repeat_its_request_while_all_is_well() -> None:
    """A request may go out again at once where nothing holds requests back; its own place doesn't count against it."""
    for count in (1, 2):
        throttle = new_gate(max_in_flight=count)
        for _ in range(count):
            throttle.enter(0.0)
        assert throttle.repeat(0.0) is True
        assert throttle.running == count


def test_a_repeated_request_counts_like_any_other() -> None:
    """What is sent again takes its slot of the rate and its part of the ration."""
    throttle = new_gate(max_requests_per_second=4)
    throttle.enter(0.0)
    assert throttle.repeat(0.0) is False
    assert throttle.opens_at(0.0) == 0.25
    assert throttle.repeat(0.25) is True
    assert throttle.opens_at(0.25) == 0.5
    back, start = start_of_return()
    back.enter(start)
    assert back.repeat(start) is False
    later = back.opens_at(start)
    assert back.repeat(later) is True
    assert back.opens_at(later) == pytest.approx(start + math.log2(1.2))


def test_nothing_is_repeated_in_bad_health_or_a_pause() -> None:
    """After a failure, in an outage and in a pause a request waits like all others."""
    throttle = new_gate()
    throttle.enter(0.0)
    exchange(throttle, "a", HealthSignal.DOWN, 0.0)
    assert throttle.repeat(0.0) is False
    exchange(throttle, "a", HealthSignal.UP, 0.0)
    assert throttle.repeat(0.0) is True
    throttle.pause(5.0)
    assert throttle.repeat(1.0) is False
    assert throttle.repeat(5.0) is True
    down = new_gate()
    break_down(down, 0.0)
    probe = down.opens_at(0.0)
    down.enter(probe)
    assert down.repeat(probe) is False
