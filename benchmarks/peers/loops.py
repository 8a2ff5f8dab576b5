"""What people write with aiohttp where they have no client: a loop, paced in four ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import backoff
import tenacity

from benchmarks.peers.clients import Wait

Fetch = Callable[[str], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def fetching(url: str) -> AsyncIterator[Fetch]:
    async with aiohttp.ClientSession(headers={"authorization": "0" * 32}) as session:

        async def fetch(task_id: str) -> dict[str, Any]:
            async with session.post(f"{url}/async/chat/result", json={"id": task_id}) as response:
                response.raise_for_status()
                answer: dict[str, Any] = await response.json()
                return answer

        yield fetch


def is_waiting(answer: dict[str, Any]) -> bool:
    return answer["status"] not in {"COMPLETED", "ERROR"}


@asynccontextmanager
async def every_second(url: str) -> AsyncIterator[Wait]:
    async with fetching(url) as fetch:

        async def wait(task_id: str) -> dict[str, Any]:
            while is_waiting(answer := await fetch(task_id)):  # noqa: ASYNC110 - only polling tells
                await asyncio.sleep(1)
            return answer

        yield wait


@asynccontextmanager
async def by_hand(url: str) -> AsyncIterator[Wait]:
    async with fetching(url) as fetch:

        async def wait(task_id: str) -> dict[str, Any]:
            waits = backoff.expo(base=1.5, factor=0.5, max_value=10)
            next(waits)
            while is_waiting(answer := await fetch(task_id)):  # noqa: ASYNC110 - only polling tells
                await asyncio.sleep(next(waits))
            return answer

        yield wait


@asynccontextmanager
async def decorated(url: str) -> AsyncIterator[Wait]:
    async with fetching(url) as fetch:
        yield backoff.on_predicate(backoff.fibo, is_waiting, max_value=13)(fetch)


@asynccontextmanager
async def with_tenacity(url: str) -> AsyncIterator[Wait]:
    async with fetching(url) as fetch:
        yield tenacity.retry(
            retry=tenacity.retry_if_result(is_waiting), wait=tenacity.wait_exponential(multiplier=1, min=4, max=10)
        )(fetch)
