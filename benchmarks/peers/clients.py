"""Who takes part: a title, where the client is opened, and what a reader of the tables should know about it.

Modules are named, not imported: each client runs in a process of its own, which loads nothing of the others.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import cast

from attrs import frozen

#: Waits for one task, with the client's own defaults.
Wait = Callable[[str], Awaitable[object]]


@frozen(kw_only=True)
class Client:
    """One line of the tables."""

    title: str
    #: "module:function" within this package; the function takes the server's URL.
    opener: str
    #: Distributions whose versions the report names.
    packages: tuple[str, ...]
    note: str = ""
    #: Has to see one workload end, of another seed, before the one that counts.
    learns: bool = False
    is_about_pacing: bool = False
    #: Concurrent waits past which its loop is too busy to come to see a timer.
    most_held: int = 10_000
    #: Ours at a peer's interval takes part only where that says something; others wherever they can.
    workloads: tuple[str, ...] = ()

    def open(self, url: str) -> AbstractAsyncContextManager[Wait]:
        module, _, function = self.opener.partition(":")
        opener = getattr(importlib.import_module(f"benchmarks.peers.{module}"), function)
        return cast("AbstractAsyncContextManager[Wait]", opener(url))


OURS, LEARNED, BY_HAND, EVERY_SECOND = "ours", "learned", "by-hand", "sleep"
CLIENTS = {
    OURS: Client(
        title="**distribute-async**",
        opener="ours:default",
        packages=("distribute-async",),
        is_about_pacing=True,
        note="the defaults",
    ),
    LEARNED: Client(
        title="**distribute-async**, learned pacing",
        opener="ours:learned",
        packages=("distribute-async",),
        learns=True,
        is_about_pacing=True,
        note="`Pacing.learned(polls_per_task=10)`, after one workload of another seed (cold with 1,000 and 10,000)",
    ),
    BY_HAND: Client(
        title="aiohttp, exponential by hand",
        opener="loops:by_hand",
        packages=("aiohttp", "backoff"),
        is_about_pacing=True,
        note="`backoff.expo(base=1.5, factor=0.5, max_value=10)`, no jitter",
    ),
    EVERY_SECOND: Client(
        title="aiohttp, `sleep(1)`",
        opener="loops:every_second",
        packages=("aiohttp",),
        is_about_pacing=True,
        note="what most people write",
    ),
    "backoff": Client(
        title="aiohttp, backoff's decorator",
        opener="loops:decorated",
        packages=("aiohttp", "backoff"),
        note="`on_predicate(fibo, max_value=13)` with full jitter: its documentation's example of polling",
    ),
    "tenacity": Client(
        title="aiohttp, tenacity",
        opener="loops:with_tenacity",
        packages=("aiohttp", "tenacity"),
        note="`wait_exponential(multiplier=1, min=4, max=10)`: its documentation's example; the default is no wait",
    ),
    "fal": Client(
        title="fal-client",
        opener="fal:fal",
        packages=("fal-client", "httpx"),
        most_held=1_000,
        note="`AsyncRequestHandle.get()`: 0.1 s, and one more request for the result",
    ),
    "replicate": Client(
        title="replicate",
        opener="replicate_:replicate",
        packages=("replicate", "httpx"),
        most_held=1_000,
        note="`predictions.async_get(id)`, then `async_wait()`: 0.5 s",
    ),
    "runpod": Client(
        title="runpod",
        opener="runpod_:runpod",
        packages=("runpod", "aiohttp"),
        note="`asyncio.Job.output(timeout=600)` (its default of 0 gives up at once): 1 s, and one more request",
    ),
    "openai": Client(
        title="openai",
        opener="openai_:openai",
        packages=("openai",),
        most_held=1_000,
        note="`vector_stores.file_batches.poll()`: 1 s; one of its helpers that poll (`responses` has none)",
    ),
    "azure": Client(
        title="azure-core",
        opener="azure_:azure",
        packages=("azure-core", "aiohttp"),
        note="`AsyncLROPoller`: 30 s where the service sends no Retry-After",
    ),
    **{
        f"every-{seconds}": Client(
            title=f"**distribute-async**, every {seconds} s",
            opener=f"ours:every_{name}",
            packages=("distribute-async",),
            # Every second, in a crowd too: there what a request costs counts as much as when it is made.
            workloads=("log-normal", "crowd") if name == "second" else ("log-normal",),
            note=f"`Pacing(initial={seconds / 0.75:.3g}, factor=1, max={seconds / 0.75:.3g}, floor=0)`",
        )
        for seconds, name in ((0.1, "tenth"), (0.5, "half"), (1.0, "second"))
    },
}
