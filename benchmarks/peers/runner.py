"""One client's run, in a process of its own, so that the CPU and memory that it reports are that client's alone.

    python -m benchmarks.peers.runner CLIENT WORKLOAD COUNT URL SEED…

For each seed it says "ready", is told on standard input when the run starts (on the monotonic clock, which the
processes share), and says what came of it as one line of JSON. A client that learns gets two seeds: the last counts.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.clients import CLIENTS, Wait
from benchmarks.peers.workloads import WORKLOADS, Task, Workload


def memory(what: str = "VmRSS") -> int:
    """Bytes of this process: VmRSS now, or VmHWM at their highest (getrusage's would begin with the parent's)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system tells no process its memory")


async def follow(wait: Wait, workload: Workload, tasks: list[Task], base: int) -> dict[str, Any]:
    gc.collect()
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    spent = time.process_time()
    had: dict[str, float] = {}

    async def one(task: Task) -> None:
        await asyncio.sleep(start + task.arrival - time.monotonic())
        await wait(task.id)
        had[task.id] = time.monotonic()

    waits = [asyncio.create_task(one(task)) for task in tasks]
    ended, running = await asyncio.wait(waits, timeout=start - time.monotonic() + workload.limit)
    outcome = {
        "seconds": time.monotonic() - start,
        "cpu": time.process_time() - spent,
        "memory": memory("VmHWM") - base,
        "had": {task_id: at - start for task_id, at in had.items()},
        "errors": collections.Counter(type(error).__name__ for done in ended if (error := done.exception())),
    }
    for left in running:
        left.cancel()
    if running:
        await asyncio.wait(running, timeout=5)
    return outcome


async def main(client: str, workload: str, count: int, url: str, seeds: list[int]) -> None:
    async with CLIENTS[client].open(url) as wait:
        drawn = [WORKLOADS[workload].tasks(seed, count) for seed in seeds]
        base = memory()
        for tasks in drawn:
            outcome = await follow(wait, WORKLOADS[workload], tasks, base)
            print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    _, *names, count, url = sys.argv[:5]
    asyncio.run(main(names[0], names[1], int(count), url, [int(seed) for seed in sys.argv[5:]]))
