"""The server that all clients ask: one store of tasks, and each peer's dialect of "how does it stand?".

    python -m benchmarks.peers.server      # prints its URL; stops at the end of its standard input

A process of its own. Answers are the least that each client's models accept, so none pays for a long body.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop
from aiohttp import web
from attrs import define, field

from benchmarks.peers.workloads import WORKLOADS, Task

QUEUED, ENDED = frozenset({"CREATED", "QUEUED", "POSTPONED"}), frozenset({"COMPLETED", "ERROR"})
ANSWER = {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "forty-two"}}
Body = dict[str, Any]


@define
class Store:
    """The tasks of the run under way, and what was asked."""

    tasks: dict[str, Task] = field(factory=dict)
    start: float = 0.0
    requests: dict[str, int] = field(factory=dict)
    told: dict[str, float] = field(factory=dict)
    #: Operations started (azure-core's): exchanges that cost the client CPU, but no polls.
    started: int = 0

    def begin(self, workload: str, seed: int, count: int, start: float) -> None:
        self.tasks = {task.id: task for task in WORKLOADS[workload].tasks(seed, count)}
        self.start, self.requests, self.told, self.started = start, {}, {}, 0

    def ask(self, task_id: str) -> str:
        now = time.monotonic()
        task = self.tasks[task_id]
        status = task.status(now - self.start - task.arrival)
        self.requests[task_id] = self.requests.get(task_id, 0) + 1
        if status in ENDED:
            self.told.setdefault(task_id, now)
        return status


def word(status: str, queued: str, working: str, ended: str) -> str:
    return queued if status in QUEUED else ended if status in ENDED else working


def distribute(task_id: str, status: str, _: str) -> Body:
    choices = [ANSWER] if status in ENDED else []
    return {"id": task_id, "status": status, "created": 1, "model": "Llama-3.1 8B", "choices": choices}


def fal(task_id: str, status: str, last: str) -> Body:
    if last != "status":
        return {"output": "forty-two"}
    word_ = word(status, "IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    return {"request_id": task_id, "status": word_, "queue_position": 0, "logs": None}


def replicate(task_id: str, status: str, _: str) -> Body:
    output = "forty-two" if status in ENDED else None
    word_ = word(status, "starting", "processing", "succeeded")
    empty: Body = {"input": {}, "error": None, "logs": "", "urls": {}, "created_at": "2026-01-01T00:00:00Z"}
    return {"id": task_id, "model": "a/b", "version": "c", "status": word_, "output": output, **empty}


def runpod(task_id: str, status: str, _: str) -> Body:
    body: Body = {"id": task_id, "status": word(status, "IN_QUEUE", "IN_PROGRESS", "COMPLETED")}
    return {**body, "output": "forty-two"} if status in ENDED else body


def openai(task_id: str, status: str, _: str) -> Body:
    is_over = status in ENDED
    counts = {"in_progress": int(not is_over), "completed": int(is_over), "failed": 0, "cancelled": 0, "total": 1}
    about = {"object": "vector_store.file_batch", "created_at": 1, "vector_store_id": "bench"}
    return {"id": task_id, "status": "completed" if is_over else "in_progress", "file_counts": counts, **about}


def azure(task_id: str, status: str, _: str) -> Body:
    return {"id": task_id, "status": word(status, "NotStarted", "Running", "Succeeded"), "result": "forty-two"}


DIALECTS: dict[str, Callable[[str, str, str], Body]] = {
    "async": distribute,
    "fal": fal,
    "replicate": replicate,
    "runpod": runpod,
    "openai": openai,
    "azure": azure,
}


def answer(body: Body) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), content_type="application/json")


class Handler:
    """One for all paths: the first part names the dialect, the last part that is an id the task."""

    def __init__(self) -> None:
        self.store = Store()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        dialect, *parts = request.path[1:].split("/")
        if dialect == "bench":
            return await self.control(parts[0], request)
        if dialect == "async":
            parts = [json.loads(await request.read())["id"]]
        task_id = next((part for part in reversed(parts) if part in self.store.tasks), None)
        if task_id is None:
            raise web.HTTPNotFound
        if parts[0] == "start":  # azure-core wants to have started the operation: that is no poll
            self.store.started += 1
            where = f"http://{request.host}/azure/operations/{task_id}"
            return web.Response(status=202, headers={"operation-location": where})
        return answer(DIALECTS[dialect](task_id, self.store.ask(task_id), parts[-1]))

    async def control(self, what: str, request: web.BaseRequest) -> web.StreamResponse:
        if what == "begin":
            self.store.begin(**await request.json())
            return answer({})
        told = {task_id: at - self.store.start for task_id, at in self.store.told.items()}
        return answer({"requests": self.store.requests, "told": told, "started": self.store.started})


async def main() -> None:
    runner = web.ServerRunner(web.Server(Handler(), access_log=None), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=16_384)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
