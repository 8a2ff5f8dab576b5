"""azure-core as a client of the benchmark: its pipeline and its poller of long-running operations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from azure.core import AsyncPipelineClient
from azure.core.pipeline import policies
from azure.core.polling import AsyncLROPoller
from azure.core.polling.async_base_polling import AsyncLROBasePolling
from azure.core.rest import HttpRequest

from benchmarks.peers.clients import Wait


@asynccontextmanager
async def azure(url: str) -> AsyncIterator[Wait]:
    # The policies that a generated client has, without a credential.
    chain = [
        policies.RequestIdPolicy(),
        policies.HeadersPolicy(),
        policies.UserAgentPolicy("benchmark"),
        policies.ContentDecodePolicy(),
        policies.AsyncRedirectPolicy(),
        policies.AsyncRetryPolicy(),
    ]
    async with AsyncPipelineClient(f"{url}/azure", policies=chain) as client:

        async def wait(task_id: str) -> object:
            request = HttpRequest("POST", f"{url}/azure/start/{task_id}")
            started = await client.send_request(request, _return_pipeline_response=True)
            poller: Any = AsyncLROPoller(client, started, lambda answer: answer.context, AsyncLROBasePolling())
            return await poller.result()

        yield wait
