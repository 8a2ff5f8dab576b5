"""A slice of the soak; the whole of it is `make soak`. And what the soak judges by."""

from __future__ import annotations

import os

import pytest
from attrs import evolve

from tests.seams import watched_exchanges
from tests.soak.__main__ import ROUNDS, Sample, growth, soak

REST = Sample(memory=60 << 20, blocks=200_000, descriptors=11, tasks=1)


async def test_a_short_soak() -> None:
    """Two hundred waits at once through random faults end as they should, and leave nothing behind."""
    assert await soak(seconds=5, users=200, seed=1, is_told=False) == []


async def test_a_leaked_descriptor_is_found() -> None:
    """One descriptor that is left open, among hundreds of exchanges, is found even by a short soak."""
    leaked: list[int] = []

    def leak() -> None:
        if not leaked:
            leaked.append(os.open(os.devnull, os.O_RDONLY))

    try:
        with watched_exchanges(leak):
            wrong = await soak(seconds=1.2, users=50, seed=1, is_told=False)
    finally:
        os.close(leaked[0])
    assert wrong[:ROUNDS] == [f"round {n} left behind: 0 asyncio tasks, 1 descriptors" for n in range(1, ROUNDS + 1)]
    assert len(wrong) == ROUNDS + 1  # after close, too


@pytest.mark.parametrize(
    ("last", "is_long", "found"),
    [
        (REST, True, []),
        (evolve(REST, memory=63 << 20, blocks=209_000), True, []),
        (evolve(REST, memory=65 << 20), True, ["memory grew from 60 to 65 MiB"]),
        (evolve(REST, blocks=211_000), True, ["memory grew by 11,000 blocks"]),
        (evolve(REST, memory=65 << 20, blocks=211_000), False, []),
        (evolve(REST, tasks=2), False, ["round 3 left behind: 1 asyncio tasks, 0 descriptors"]),
    ],
)
def test_growth_is_judged_at_rest(last: Sample, is_long: bool, found: list[str]) -> None:
    """What is there at rest may not grow: tasks and descriptors by one, memory by little once it has warmed up."""
    warming_up = evolve(REST, memory=50 << 20, blocks=150_000)
    assert growth(warming_up, [warming_up, REST, last], is_long=is_long) == found
