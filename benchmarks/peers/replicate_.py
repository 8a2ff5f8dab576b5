"""replicate as a client of the benchmark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replicate.client import Client

from benchmarks.peers.clients import Wait


@asynccontextmanager
async def replicate(url: str) -> AsyncIterator[Wait]:
    client = Client("0", base_url=f"{url}/replicate")

    async def wait(task_id: str) -> object:
        prediction = await client.predictions.async_get(task_id)
        await prediction.async_wait()
        return prediction.output

    yield wait  # it can't be closed
