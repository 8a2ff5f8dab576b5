"""fal-client as a client of the benchmark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fal_client.client

from benchmarks.peers.clients import Wait


@asynccontextmanager
async def fal(url: str) -> AsyncIterator[Wait]:
    # Its scheme is fixed to https, so the address is changed where it is kept.
    fal_client.client.QUEUE_URL_FORMAT = f"{url}/fal/"
    client = fal_client.client.AsyncClient(key="0")

    async def wait(task_id: str) -> object:
        handle = await client.get_handle("bench/tasks", task_id)
        return await handle.get()

    yield wait  # it can't be closed
