"""This library as a client of the benchmark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from benchmarks.peers.clients import Wait
from distribute_async import DistributeClient, Pacing

KEY = "0" * 32
#: For those who ask whether this version has it.
CAN_LEARN = hasattr(DistributeClient, "pacing_report")


@asynccontextmanager
async def client_with(url: str, pacing: Pacing | None) -> AsyncIterator[Wait]:
    async with DistributeClient(KEY, base_url=url, pacing=pacing) as client:
        yield client.wait_for_result


def default(url: str) -> AbstractAsyncContextManager[Wait]:
    return client_with(url, None)


def learned(url: str) -> AbstractAsyncContextManager[Wait]:
    kind: Any = Pacing
    return client_with(url, kind.learned(polls_per_task=10))


def every(seconds: float, url: str) -> AbstractAsyncContextManager[Wait]:
    # Half of an interval is random, so that its mean is three quarters of it.
    return client_with(url, Pacing(initial=seconds / 0.75, factor=1.0, max=seconds / 0.75, floor=0.0))


every_tenth, every_half, every_second = partial(every, 0.1), partial(every, 0.5), partial(every, 1.0)
