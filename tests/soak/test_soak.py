"""A slice of the soak; the whole of it is `make soak`."""

from __future__ import annotations

from tests.soak.__main__ import soak


async def test_a_short_soak() -> None:
    """Two hundred waits at once through random faults end as they should, and leave nothing behind."""
    assert await soak(seconds=5, users=200, seed=1, is_told=False) == []
