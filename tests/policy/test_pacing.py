"""The waits between polls, and after faults: exactly, with the random part taken away."""

from __future__ import annotations

import itertools
from typing import Any

import backoff
import pytest

from distribute_async import ConfigurationError, Pacing, Retry
from distribute_async._policy.pacing import MAX_STEPS, Steps, retry_steps


def none(span: float) -> float:
    return 0.0


def all_of_it(span: float) -> float:
    return span


def test_spans_grow_by_their_factor_up_to_their_cap() -> None:
    """The n-th span is `initial` · `factor`ⁿ, the last one is the cap, and it stands for all after it."""
    steps = Steps.exponential(0.5, 2.0, 5.0)
    assert steps.spans == (0.5, 1.0, 2.0, 4.0, 5.0)
    assert [steps.wait(n, all_of_it) for n in range(7)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert [steps.wait(n, none) for n in range(7)] == [0.25, 0.5, 1.0, 2.0, 2.5, 2.5, 2.5]


@pytest.mark.parametrize(
    ("initial", "factor", "cap", "spans"),
    [
        (1.0, 2.0, 4.0, (1.0, 2.0, 4.0)),
        (3.0, 1.0, 9.0, (3.0,)),
        (9.0, 1.0, 3.0, (3.0,)),
        (9.0, 2.0, 3.0, (3.0,)),
        (3.0, 2.0, 3.0, (3.0,)),
        (0.001, 1000.0, 1e300, None),
    ],
)
def test_spans_at_their_edges(initial: float, factor: float, cap: float, spans: tuple[float, ...] | None) -> None:
    """A cap that a step meets stands once; without growth, or with a first span over the cap, there is one span."""
    found = Steps.exponential(initial, factor, cap).spans
    assert found == spans if spans is not None else found[-1] == cap


def test_a_slow_growth_ends_at_its_cap_all_the_same() -> None:
    """A growth that would take forever is cut after 10,000 steps, and goes to its cap then."""
    spans = Steps.exponential(1.0, 1.0000001, 100.0).spans
    assert len(spans) == MAX_STEPS + 1 == 10_001
    assert spans[-2] < 1.1
    assert spans[-1] == 100.0


def test_half_of_a_wait_is_random() -> None:
    """The jitter is asked for exactly half of the span."""
    asked = []

    def jitter(span: float) -> float:
        asked.append(span)
        return 0.125

    assert Steps((3.0, 8.0)).wait(1, jitter) == 4.125
    assert Pacing(initial=2.0, jitter=jitter).interval(0) == 1.125
    assert asked == [4.0, 1.0]


def test_the_defaults_are_as_documented() -> None:
    """0.5 s growing by 1.3 to 10 s between polls, at least 0.1 s; 0.5 s doubling to 30 s after faults; half of it random."""  # noqa: E501
    pacing = Pacing()
    assert (pacing.initial, pacing.factor, pacing.max, pacing.floor) == (0.5, 1.3, 10.0, 0.1)
    assert pacing.jitter is backoff.full_jitter
    assert all(0.25 <= pacing.interval(0) <= 0.5 for _ in range(100))
    assert len({pacing.interval(0) for _ in range(100)}) > 90
    exact = Pacing(jitter=all_of_it)
    intervals = [exact.interval(n) for n in range(20)]
    assert intervals[:3] == pytest.approx([0.5, 0.65, 0.845])
    assert intervals[-1] == 10.0
    assert all(later <= 1.3 * earlier + 1e-9 for earlier, later in itertools.pairwise(intervals))
    assert retry_steps(Retry()).spans == (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
    assert retry_steps(Retry(initial=1.0, factor=3.0, max=10.0)).spans == (1.0, 3.0, 9.0, 10.0)


def test_no_interval_is_below_the_floor() -> None:
    """The floor holds where the random part is small, and is exact."""
    pacing = Pacing(initial=0.2, factor=2.0, max=1.0, floor=0.3, jitter=none)
    assert [pacing.interval(n) for n in range(4)] == [0.3, 0.3, 0.4, 0.5]


def test_pacings_are_values() -> None:
    """Two pacings with the same numbers are equal; what is computed from them, and the jitter, stay out of the repr."""
    assert Pacing(initial=1.0) == Pacing(initial=1.0)
    assert Pacing(initial=1.0) != Pacing(initial=2.0)
    assert Pacing() != Pacing(jitter=none)
    assert repr(Pacing()) == "Pacing(initial=0.5, factor=1.3, max=10.0, floor=0.1, polls_per_task=None)"


def test_learned_pacing_is_a_choice() -> None:
    """Nothing is learned unless polls are asked for; the other fields and their defaults are the same."""
    assert Pacing().polls_per_task is None
    assert Pacing.learned() == Pacing(polls_per_task=10.0)
    fields: dict[str, Any] = {"initial": 1.0, "factor": 2.0, "max": 30.0, "floor": 0.2}
    assert Pacing.learned(20, **fields) == Pacing(polls_per_task=20, **fields)
    assert Pacing.learned(jitter=none).jitter is none


@pytest.mark.parametrize(
    "settings",
    [
        *({"initial": 0}, {"initial": -1.0}, {"initial": float("nan")}, {"initial": "1"}, {"initial": True}),
        *({"factor": 0.99}, {"factor": float("inf")}, {"max": 0}, {"max": float("inf")}, {"floor": -0.1}),
        *({"polls_per_task": 1.9}, {"polls_per_task": float("inf")}, {"polls_per_task": "10"}),
    ],
)
def test_numbers_that_make_no_pace_are_refused(settings: dict[str, Any]) -> None:
    """A pacing is checked where it is made, and the error names the field."""
    with pytest.raises(ConfigurationError, match=f"Pacing.{next(iter(settings))} must be"):
        Pacing(**settings)
