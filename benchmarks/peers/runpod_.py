"""runpod as a client of the benchmark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import runpod as library
from runpod.endpoint.asyncio.asyncio_runner import Job
from runpod.http_client import AsyncClientSession

from benchmarks.peers.clients import Wait


@asynccontextmanager
async def runpod(url: str) -> AsyncIterator[Wait]:
    library.endpoint_url_base = f"{url}/runpod"
    async with AsyncClientSession() as session:

        async def wait(task_id: str) -> object:
            return await Job("bench", task_id, session, {"Authorization": "Bearer 0"}).output(timeout=600)

        yield wait
