"""The gate, without a clock and without a socket: slots, rate, pause, outage, probe and return."""

from __future__ import annotations

import itertools
import math

import pytest

from distribute_async import Limits
from distribute_async._policy.faults import Evidence
from distribute_async._policy.throttle import RESUME_SECONDS, Gate


def half(span: float) -> float:
    return span / 2


def new_gate(**limits: float) -> Gate:
    return Gate(Limits(**limits), half)  # type: ignore[arg-type]


def exchange(gate: Gate, key: str, evidence: Evidence, now: float, *, is_crowd: bool = True) -> None:
    gate.leave(key, evidence, now, was_probe=gate.enter(now), is_crowd=is_crowd)


def break_down(gate: Gate, now: float) -> None:
    for n in range(5):
        exchange(gate, f"task {n % 2}", Evidence.DOWN, now)
    assert gate.down_since == now


def test_slots_are_bounded() -> None:
    """With `max_in_flight` exchanges under way, only the end of one lets the next start."""
    gate = new_gate(max_in_flight=2)
    gate.enter(0.0)
    was_probe = gate.enter(0.0)
    assert gate.opens_at(0.0) == math.inf
    gate.leave("a", Evidence.UP, 1.0, was_probe=was_probe, is_crowd=False)
    assert gate.opens_at(1.0) == 1.0


def test_the_rate_is_a_reservation_of_slots() -> None:
    """With a rate, exchanges leave at even distances, and it is known ahead when the next one may."""
    gate = new_gate(max_requests_per_second=4)
    now, left = 10.0, []
    for _ in range(5):
        now = gate.opens_at(now)
        left.append(now)
        exchange(gate, "a", Evidence.UP, now)
    assert left == [10.0, 10.25, 10.5, 10.75, 11.0]


def test_a_pause_holds_everything_and_returns_one_by_one() -> None:
    """During a pause nothing starts; after it the allowance is 1 and grows by 1 with each good answer."""
    gate = new_gate()
    gate.pause(5.0)
    assert gate.opens_at(1.0) == 5.0
    now = 5.0
    for allowed in (1, 2, 3):
        for _ in range(allowed):
            now = gate.opens_at(now)
            assert now < 6.0
            gate.enter(now)
        assert gate.opens_at(now) == math.inf
        for n in range(allowed):
            gate.leave("a", Evidence.UP if n == 0 else Evidence.CUT, now, was_probe=False, is_crowd=True)


def test_the_return_from_a_pause_is_rationed() -> None:
    """After a pause at most 10 requests leave in the first second, and at most twice as many in each further one."""
    gate = new_gate()
    gate.pause(5.0)
    now, seconds = 0.0, [0] * 8
    while (now := gate.opens_at(now)) < 5.0 + 8:
        seconds[int(now - 5.0)] += 1
        exchange(gate, "a", Evidence.UP, now)
    assert 5 <= seconds[0] <= 10
    assert all(later <= 2 * earlier for earlier, later in itertools.pairwise(seconds))
    assert sum(seconds) > 2000


def test_good_answers_within_a_pause_raise_no_allowance() -> None:
    """What was under way as a pause began and ends well within it is no reason to come back all at once."""
    gate = new_gate()
    for _ in range(50):
        gate.enter(0.0)
    gate.leave("a", Evidence.UP, 0.5, was_probe=False, is_crowd=True)
    gate.pause(5.0)
    for _ in range(48):
        gate.leave("a", Evidence.UP, 1.0, was_probe=False, is_crowd=True)
    assert gate.opens_at(5.0) == math.inf  # the last one is still under way
    gate.leave("a", Evidence.UP, 5.0, was_probe=False, is_crowd=True)
    for _ in range(2):
        assert gate.opens_at(20.0) == 20.0
        gate.enter(20.0)
    assert gate.opens_at(20.0) == math.inf


def test_a_shorter_pause_does_not_cut_a_longer_one() -> None:
    """Of two pauses the later end counts."""
    gate = new_gate()
    gate.pause(9.0)
    gate.pause(4.0)
    assert gate.opens_at(0.0) == 9.0


def test_five_failures_in_a_row_close_the_gate() -> None:
    """The fifth failure in a row is the outage; a good answer among them starts the count afresh."""
    gate = new_gate()
    for evidence in [*[Evidence.DOWN] * 4, Evidence.UP, *[Evidence.DOWN] * 4]:
        exchange(gate, "a", evidence, 0.0, is_crowd=False)
    assert gate.down_since is None
    exchange(gate, "a", Evidence.DOWN, 3.0, is_crowd=False)
    assert gate.down_since == 0.0


def test_one_poisonous_id_closes_nothing() -> None:
    """Where two tasks are followed, failures of one alone are that one's affair."""
    gate = new_gate()
    for _ in range(50):
        exchange(gate, "poison", Evidence.DOWN, 0.0, is_crowd=True)
    assert gate.down_since is None
    exchange(gate, "other", Evidence.DOWN, 0.0, is_crowd=True)
    assert gate.down_since is not None


def test_one_probe_at_a_time() -> None:
    """During an outage one exchange is under way at most, backed off from 0.5 s to at most 5 s."""
    gate = new_gate()
    break_down(gate, 0.0)
    now, times = 0.0, []
    while now < 60:
        now = gate.opens_at(now)
        times.append(now)
        was_probe = gate.enter(now)
        assert was_probe
        assert gate.opens_at(now) == math.inf
        gate.leave("a", Evidence.DOWN, now, was_probe=was_probe, is_crowd=True)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[:3] == [0.75, 1.5, 3.0]
    assert max(gaps) <= 5.0
    assert len(times) <= 30


def test_a_cut_probe_is_no_evidence() -> None:
    """A probe cut by its wait's deadline leaves the outage as it was, and doesn't let the next one out earlier."""
    gate = new_gate()
    break_down(gate, 0.0)
    at = gate.opens_at(0.0)
    was_probe = gate.enter(at)
    gate.leave("a", Evidence.CUT, at + 0.01, was_probe=was_probe, is_crowd=True)
    assert gate.down_since == 0.0
    assert gate.opens_at(at + 0.01) == at + 0.375


def test_stragglers_do_not_count_as_probes() -> None:
    """Exchanges from before the outage that fail in it don't lengthen the probe's backoff."""
    gate = new_gate()
    stragglers = [gate.enter(0.0) for _ in range(20)]
    break_down(gate, 0.0)
    for was_probe in stragglers:
        gate.leave("a", Evidence.DOWN, 0.1, was_probe=was_probe, is_crowd=True)
    assert gate.opens_at(0.1) == pytest.approx(0.375)


def test_the_return_is_rationed() -> None:
    """After an outage at most 10 requests leave in the first second, and at most twice as many in each further one."""
    gate = new_gate()
    break_down(gate, 0.0)
    start = now = gate.opens_at(0.0)
    exchange(gate, "a", Evidence.UP, now)
    assert gate.down_since is None
    seconds = [0] * 8
    while (now := gate.opens_at(now)) < start + 8:
        seconds[int(now - start)] += 1
        exchange(gate, "a", Evidence.UP, now)
    assert seconds[0] <= 10
    assert all(later <= 2 * earlier for earlier, later in itertools.pairwise(seconds))
    assert sum(seconds) > 2000


def test_the_return_starts_with_one_at_a_time() -> None:
    """After the probe the allowance grows by one with each good answer."""
    gate = new_gate()
    break_down(gate, 0.0)
    now = gate.opens_at(0.0)
    exchange(gate, "a", Evidence.UP, now)
    later = now + 5
    gate.enter(later)
    gate.enter(later)
    assert gate.opens_at(later) == math.inf


def start_of_return(**limits: float) -> tuple[Gate, float]:
    """A gate just after the probe that ended an outage, and the time."""
    gate = new_gate(**limits)
    break_down(gate, 0.0)
    now = gate.opens_at(0.0)
    exchange(gate, "a", Evidence.UP, now)
    return gate, now


def test_the_probe_waits_exactly_as_promised() -> None:
    """The probe's waits are 0.5 s, doubling up to 5 s, half of each random; a failed probe counts from its end."""
    gate = new_gate()
    break_down(gate, 10.0)
    now, waits = 10.0, []
    for _ in range(7):
        waits.append(gate.opens_at(now) - now)
        now = gate.opens_at(now)
        was_probe = gate.enter(now)
        now += 100.0  # a probe that takes long
        gate.leave("a", Evidence.DOWN, now, was_probe=was_probe, is_crowd=True)
    assert waits == [0.375, 0.75, 1.5, 3.0, 3.75, 3.75, 3.75]


def test_a_probe_that_tells_little_is_a_failed_one() -> None:
    """A probe with an unclear answer keeps the gate closed and lengthens the wait like a failed one."""
    gate = new_gate()
    break_down(gate, 0.0)
    was_probe = gate.enter(1.0)
    gate.leave("a", Evidence.UNCLEAR, 2.0, was_probe=was_probe, is_crowd=True)
    assert gate.down_since == 0.0
    assert gate.opens_at(2.0) == 2.75


def test_a_cut_probe_lets_the_next_one_out_after_its_own_wait() -> None:
    """The wait after a probe counts from its start where the probe was cut; the next one is as long."""
    gate = new_gate()
    break_down(gate, 0.0)
    for start in (1.0, 5.0):
        was_probe = gate.enter(start)
        gate.leave("a", Evidence.CUT, start + 0.1, was_probe=was_probe, is_crowd=True)
        assert gate.opens_at(start + 0.1) == start + 0.375


def test_the_end_of_another_exchange_does_not_free_the_probe() -> None:
    """While the probe is under way, a straggler that fails or is cut lets nobody out."""
    gate = new_gate()
    stragglers = [gate.enter(0.0) for _ in range(2)]
    break_down(gate, 0.0)
    for was_probe, evidence in zip(stragglers, [Evidence.DOWN, Evidence.CUT], strict=True):
        assert gate.running > 0
        gate.leave("a", evidence, 0.1, was_probe=was_probe, is_crowd=True)
    assert gate.enter(1.0)
    assert gate.opens_at(100.0) == math.inf


def test_a_straggler_with_a_good_answer_ends_the_outage() -> None:
    """A good answer is good evidence, whoever asked; what fails afterwards counts anew, up to the next outage's first wait."""  # noqa: E501
    gate = new_gate()
    straggler = gate.enter(0.0)
    break_down(gate, 0.0)
    for now in (1.0, 10.0, 20.0):
        exchange(gate, "a", Evidence.DOWN, now)
    gate.leave("a", Evidence.UP, 30.0, was_probe=straggler, is_crowd=True)
    for n in range(4):
        assert gate.opens_at(50.0) == 50.0
        exchange(gate, f"task {n % 2}", Evidence.DOWN, 40.0 + n)
    exchange(gate, "a", Evidence.DOWN, 44.0)
    assert gate.down_since == 40.0
    assert gate.opens_at(44.0) == 44.375


def test_only_failures_since_the_last_good_answer_are_held_together() -> None:
    """Another id that failed before a good answer makes no crowd with the one that fails after it."""
    gate = new_gate()
    exchange(gate, "healthy", Evidence.DOWN, 0.0)
    exchange(gate, "healthy", Evidence.UP, 0.0)
    for _ in range(50):
        exchange(gate, "poison", Evidence.DOWN, 0.0)
    assert gate.down_since is None


@pytest.mark.parametrize("evidence", [Evidence.UNCLEAR, Evidence.CUT])
def test_unclear_evidence_changes_nothing(evidence: Evidence) -> None:
    """What tells nothing of the service neither counts towards an outage nor starts its count afresh."""
    gate = new_gate()
    for n in range(4):
        exchange(gate, f"task {n % 2}", Evidence.DOWN, float(n))
        exchange(gate, "task 0", evidence, float(n))
    assert gate.down_since is None
    exchange(gate, "task 0", Evidence.DOWN, 4.0)
    assert gate.down_since == 0.0


def test_the_return_is_rationed_to_the_request() -> None:
    """Request n after the probe leaves no earlier than 10 · (2^t - 1) = n, for exactly 10 s."""
    gate, start = start_of_return()
    for n in range(1, 31):
        assert gate.opens_at(start) == pytest.approx(start + math.log2(1 + (n - 1) / 10))
        exchange(gate, "a", Evidence.UP, start)
    for _ in range(20_000):
        exchange(gate, "a", Evidence.UP, start)
    assert gate.opens_at(start + 9.99) == pytest.approx(start + 10.0, abs=1e-3)
    assert gate.opens_at(start + 10.001) == start + 10.001


def test_a_slow_return_saves_nothing_up() -> None:
    """What wasn't sent in one second of the return is not made up for in the next."""
    gate, start = start_of_return()
    sent, now = 0, start + 1.0
    while (now := gate.opens_at(now)) < start + 2.0:
        exchange(gate, "a", Evidence.UP, now)
        sent += 1
    assert sent <= 20


def test_the_ration_ends_to_the_second() -> None:
    """A request exactly 10 s after the probe is free: another may follow at once."""
    gate, start = start_of_return()
    assert gate.opens_at(start + 10.0) == start + 10.0
    exchange(gate, "a", Evidence.UP, start + 10.0)
    assert gate.opens_at(start + 10.0) == start + 10.0


def test_a_gate_that_was_never_closed_rations_nothing() -> None:
    """Without an outage any number of requests may leave in the first seconds, whatever the loop's time is."""
    gate = new_gate()
    for now in (-5.0, 0.0, 1.0):
        for _ in range(1_000):
            assert gate.opens_at(now) == now
            exchange(gate, "a", Evidence.UP, now)


def test_the_allowance_grows_up_to_the_limit() -> None:
    """After a pause the allowance grows by one with each good answer, up to `max_in_flight` and not beyond."""
    gate = new_gate(max_in_flight=3)
    gate.pause(1.0)
    now = 1.0 + RESUME_SECONDS  # nothing is rationed any more
    for allowed in (1, 2, 3, 3, 3):
        for n in range(allowed):
            assert gate.running == n
            assert gate.opens_at(now) == now
            gate.enter(now)
        assert gate.opens_at(now) == math.inf
        for n in range(allowed):
            evidence = Evidence.UP if n == 0 else Evidence.CUT
            gate.leave("a", evidence, now, was_probe=False, is_crowd=True)


def test_an_outage_allows_one_at_a_time() -> None:
    """From the fifth failure on one exchange is allowed; those that are under way already hold the probe back."""
    gate = new_gate(max_in_flight=50)
    straggler = gate.enter(0.0)
    break_down(gate, 0.0)
    assert gate.opens_at(9.0) == math.inf
    gate.leave("a", Evidence.CUT, 9.0, was_probe=straggler, is_crowd=True)
    assert gate.opens_at(9.0) == 9.0


def test_idle_time_is_not_saved_up() -> None:
    """After a long silence the rate allows no burst: the next requests are as far apart as ever."""
    gate = new_gate(max_requests_per_second=4)
    exchange(gate, "a", Evidence.UP, 0.0)
    exchange(gate, "a", Evidence.UP, 100.0)
    assert gate.opens_at(100.0) == 100.25


def test_what_holds_back_longest_counts() -> None:
    """Pause, rate and probe hold together: the latest of them is the time."""
    gate = new_gate(max_requests_per_second=0.1)
    gate.pause(4.0)
    assert gate.opens_at(0.0) == 4.0
    exchange(gate, "a", Evidence.UP, 4.0)
    assert gate.opens_at(4.0) == 14.0
    gate.pause(20.0)
    assert gate.opens_at(14.0) == 20.0
    down = new_gate()
    break_down(down, 0.0)
    down.pause(7.0)
    assert down.opens_at(0.0) == 7.0


def test_the_rest_of_a_pause_is_known() -> None:
    """`paused_for` is what is left of the longest pause, and 0 where there is none (any more)."""
    gate = new_gate()
    assert gate.paused_for(3.0) == 0.0
    gate.pause(9.0)
    gate.pause(4.0)
    assert gate.paused_for(3.0) == 6.0
    assert gate.paused_for(9.0) == 0.0
    assert gate.paused_for(10.0) == 0.0


def test_an_exchange_may_repeat_its_request_while_all_is_well() -> None:
    """A request may go out again at once where nothing holds requests back; its own place doesn't count against it."""
    for count in (1, 2):
        gate = new_gate(max_in_flight=count)
        for _ in range(count):
            gate.enter(0.0)
        assert gate.repeat(0.0) is True
        assert gate.running == count


def test_a_repeated_request_counts_like_any_other() -> None:
    """What is sent again takes its slot of the rate and its part of the ration."""
    gate = new_gate(max_requests_per_second=4)
    gate.enter(0.0)
    assert gate.repeat(0.0) is False
    assert gate.opens_at(0.0) == 0.25
    assert gate.repeat(0.25) is True
    assert gate.opens_at(0.25) == 0.5
    back, start = start_of_return()
    back.enter(start)
    assert back.repeat(start) is False
    later = back.opens_at(start)
    assert back.repeat(later) is True
    assert back.opens_at(later) == pytest.approx(start + math.log2(1.2))


def test_nothing_is_repeated_in_bad_health_or_a_pause() -> None:
    """After a failure, in an outage and in a pause a request waits like all others."""
    gate = new_gate()
    gate.enter(0.0)
    exchange(gate, "a", Evidence.DOWN, 0.0)
    assert gate.repeat(0.0) is False
    exchange(gate, "a", Evidence.UP, 0.0)
    assert gate.repeat(0.0) is True
    gate.pause(5.0)
    assert gate.repeat(1.0) is False
    assert gate.repeat(5.0) is True
    down = new_gate()
    break_down(down, 0.0)
    probe = down.opens_at(0.0)
    down.enter(probe)
    assert down.repeat(probe) is False
