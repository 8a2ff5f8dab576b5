"""The gate, without a clock and without a socket: slots, rate, pause, outage, probe and return."""

from __future__ import annotations

import itertools
import math

import pytest

from distribute_async import Limits
from distribute_async._faults import Evidence
from distribute_async._gate import Gate


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
    gate = new_gate(max_polls_per_second=4)
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
    for allowed in (1, 2, 3):
        for _ in range(allowed):
            assert gate.opens_at(5.0) == 5.0
            gate.enter(5.0)
        assert gate.opens_at(5.0) == math.inf
        for n in range(allowed):
            gate.leave("a", Evidence.UP if n == 0 else Evidence.CUT, 5.0, was_probe=False, is_crowd=True)


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
