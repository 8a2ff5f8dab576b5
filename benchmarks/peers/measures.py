"""What one thing costs, each measured in a fresh process: CPU and wake-ups a poll, bytes a wait.

    python -m benchmarks.peers.measures MEASURE SUBJECT COUNT URL      # prints one line of JSON

The tasks are those of the endless workload, which the server is told of before.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.peers.clients import CLIENTS
from benchmarks.peers.runner import memory
from benchmarks.peers.workloads import WORKLOADS

#: Far more often than in earnest, which is all that makes it a measurement.
OFTEN = 0.02
#: Of CPU measurement, after half a second for the beginning.
SECONDS = 2.0


def ids(count: int) -> list[str]:
    return [task.id for task in WORKLOADS["endless"].tasks(0, count)]


@asynccontextmanager
async def bare(task_ids: list[str], url: str) -> AsyncIterator[Callable[[], int]]:
    """The loop that everybody writes; gives a function that tells its polls."""
    from benchmarks.peers.loops import fetching, is_waiting  # noqa: PLC0415 - a process loads one subject alone

    polls = 0

    async def wait(task_id: str) -> None:
        nonlocal polls
        while is_waiting(await fetch(task_id)):
            polls += 1
            await asyncio.sleep(OFTEN)

    async with fetching(url) as fetch, asyncio.TaskGroup() as group:
        waits = [group.create_task(wait(task_id)) for task_id in task_ids]
        yield lambda: polls
        for running in waits:
            running.cancel()


@asynccontextmanager
async def ours(task_ids: list[str], url: str) -> AsyncIterator[Callable[[], int]]:
    """This library at the same interval."""
    from benchmarks.peers.ours import KEY  # noqa: PLC0415
    from distribute_async import DistributeClient, Pacing  # noqa: PLC0415

    # The random half of an interval at its most, so that this one is fixed too.
    often = Pacing(initial=OFTEN, factor=1.0, max=OFTEN, floor=0.0, jitter=lambda span: span)
    async with DistributeClient(KEY, base_url=url, pacing=often) as client, asyncio.TaskGroup() as group:
        waits = [group.create_task(client.wait_for_result(task_id)) for task_id in task_ids]
        yield lambda: client.stats().polls
        for running in waits:
            running.cancel()


async def cpu(subject: str, task_ids: list[str], url: str) -> dict[str, float]:
    """CPU seconds a poll."""
    async with (ours if subject.startswith("ours") else bare)(task_ids, url) as polls:
        await asyncio.sleep(0.5)
        gc.collect()
        before, spent = polls(), time.process_time()
        await asyncio.sleep(SECONDS)
        asked = polls() - before
        return {"cpu": (time.process_time() - spent) / asked, "polls": asked}


def owner(callback: Any) -> str:
    """The module that a callback of the loop belongs to."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    return str(getattr(callback, "__module__", None) or type(callback).__module__)


async def wakes(subject: str, task_ids: list[str], url: str) -> dict[str, float]:
    """Callbacks that the loop ran for each poll: this library's timers, all of its own, and everybody's.

    Counted are the calls of functions that the package's modules define; the steps of an exchange's asyncio task,
    which run aiohttp's code as well, count as everybody's, as they do for the bare loop.
    """
    loop: Any = asyncio.get_running_loop()
    ran: collections.Counter[tuple[str, bool]] = collections.Counter()

    def counting(schedule: Callable[..., Any], place: int, *, is_timer: bool) -> Callable[..., Any]:
        def scheduled(*arguments: Any, **more: Any) -> Any:
            callback = arguments[place]

            def called(*given: Any) -> Any:
                ran[owner(callback).partition(".")[0], is_timer] += 1
                return callback(*given)

            return schedule(*arguments[:place], called, *arguments[place + 1 :], **more)

        return scheduled

    loop.call_at = counting(loop.call_at, 1, is_timer=True)
    loop.call_soon = counting(loop.call_soon, 0, is_timer=False)
    async with (ours if subject == "ours" else bare)(task_ids, url) as polls:
        await asyncio.sleep(0.5)
        before = polls()
        ran.clear()
        await asyncio.sleep(SECONDS)
        asked = polls() - before
    mine = {is_timer: ran["distribute_async", is_timer] / asked for is_timer in (True, False)}
    return {"timers": mine[True], "own": mine[True] + mine[False], "all": ran.total() / asked}


async def hold(subject: str, task_ids: list[str], url: str) -> dict[str, float]:
    """Bytes a wait while all of them are waiting, and how many gave up meanwhile."""
    warm, ids_ = task_ids[:100], task_ids[100:]
    async with CLIENTS[subject].open(url) as wait:
        group = [asyncio.ensure_future(wait(task_id)) for task_id in warm]  # the connections are not a wait's
        await asyncio.sleep(2)
        gc.collect()
        before = memory()
        group += [asyncio.ensure_future(wait(task_id)) for task_id in ids_]
        await asyncio.sleep(max(6.0, len(ids_) / 700))
        gc.collect()
        held = (memory() - before) / len(ids_)
        ended = sum(running.done() for running in group)
        for running in group:
            running.cancel()
        await asyncio.gather(*group, return_exceptions=True)
    return {"bytes": held, "ended": ended}


async def suspended(_subject: str, task_ids: list[str], _url: str) -> dict[str, float]:
    """Bytes of an asyncio task that waits for a future: what a caller's own costs."""
    loop = asyncio.get_running_loop()

    async def wait(_: str) -> None:
        await loop.create_future()

    gc.collect()
    before = memory()
    group = [asyncio.create_task(wait(task_id)) for task_id in task_ids]
    await asyncio.sleep(0.5)
    gc.collect()
    held = (memory() - before) / len(group)
    for running in group:
        running.cancel()
    await asyncio.wait(group)
    return {"bytes": held}


async def many(_subject: str, task_ids: list[str], url: str) -> dict[str, float]:
    """Bytes an id of `as_completed` while all are waiting, the ids' own texts apart."""
    from benchmarks.peers.ours import KEY  # noqa: PLC0415
    from distribute_async import DistributeClient  # noqa: PLC0415

    async with DistributeClient(KEY, base_url=url) as client:
        kind: Any = client

        async def run(some: list[str]) -> None:
            async for _ in kind.as_completed(some):
                pass

        warm = asyncio.create_task(run(task_ids[:100]))
        await asyncio.sleep(2)
        gc.collect()
        before, polls = memory(), client.stats().polls
        following = asyncio.create_task(run(task_ids[100:]))
        limit = time.monotonic() + 120
        while client.stats().polls - polls < 1.05 * len(task_ids) and time.monotonic() < limit:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        gc.collect()
        held = (memory() - before) / (len(task_ids) - 100)
        waiting = client.stats().tasks
        for running in (warm, following):
            running.cancel()
        await asyncio.wait([warm, following])
    return {"bytes": held, "waiting": waiting}


MEASURES = {"cpu": cpu, "wakes": wakes, "hold": hold, "suspended": suspended, "many": many}


def main() -> None:
    _, measure, subject, count, url = sys.argv
    if subject.endswith("without orjson"):
        sys.modules["orjson"] = None  # type: ignore[assignment] # an import of it fails from here on
    running = MEASURES[measure](subject, ids(int(count)), url)
    if subject.endswith("uvloop"):
        import uvloop  # noqa: PLC0415

        outcome = uvloop.run(running)
    else:
        outcome = asyncio.run(running)
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
