"""openai as a client of the benchmark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from openai import AsyncOpenAI

from benchmarks.peers.clients import Wait


@asynccontextmanager
async def openai(url: str) -> AsyncIterator[Wait]:
    async with AsyncOpenAI(api_key="0", base_url=f"{url}/openai") as client:

        async def wait(task_id: str) -> object:
            return await client.vector_stores.file_batches.poll(task_id, vector_store_id="bench")

        yield wait
