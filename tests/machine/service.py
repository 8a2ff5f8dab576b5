"""The service of a random run: what each request meets, simulated below the client's session or on a real socket.

Used by `run`. Both ways draw from one `Service`, so that one plan goes either way.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

from distribute_async import APIConnectionError, APIResponseValidationError, DistributeError
from distribute_async._session import Answer
from tests import misbehaving as bad
from tests.machine.plan import Plan
from tests.misbehaving import Behaviour
from tests.waiting import KEY

#: Bodies that are no answer.
_BODIES = {
    "html": b"<html>Bad moment</html>",
    "shape": b'{"status": 7}',
    "nan": b'{"status": "QUEUED", "created": NaN, "model": "m"}',
    "huge": b" " * 5000,
}


class Service:
    """What the plan says about each request."""

    def __init__(self, plan: Plan, started: float) -> None:
        self._plan = plan
        self._started = started
        self._lives = plan.all_lives
        self._tasks = {plan.task_id(n): n for n in range(len(self._lives))}
        self._asked = dict.fromkeys(self._tasks, 0)
        self._requests = 0

    def meet(self, task_id: str, now: float) -> tuple[float, str]:
        """For a request that comes: seconds until its answer, and the fault that it meets, "" for none."""
        task = self._tasks[task_id]
        delay = self._plan.delays[self._requests % len(self._plan.delays)]
        nth = self._asked[task_id]
        self._requests += 1
        self._asked[task_id] += 1
        faults = self._lives[task].faults
        if nth < len(faults) and faults[nth]:
            return delay, faults[nth]
        for front in self._plan.fronts:
            if front.task in (None, task) and 0 <= now - self._started - front.start < front.seconds:
                return delay, front.fault
        return delay, ""

    def says(self, task_id: str, now: float) -> dict[str, Any]:
        """The good answer of this moment."""
        life = self._lives[self._tasks[task_id]]
        status = [word for at, word in life.timeline if at <= now - self._started or at == life.timeline[0][0]][-1]
        message = {"role": "assistant", "content": f"the answer of {task_id}"}
        choice = {"finish_reason": "stop", "index": 0, "message": message}
        return {
            "status": status,
            "created": 1_700_000_000,
            "model": "a-model",
            "choices": [choice] if status in {"COMPLETED", "DONE"} else [],
            "finished": 1_700_000_001 if status in {"COMPLETED", "ERROR", "DONE", "GONE"} else None,
        }

    def answer(self, task_id: str, fault: str, now: float) -> tuple[int, dict[str, str], bytes] | None:
        """Status code, headers and body; None for a fault of the connection."""
        if not fault:
            return 200, {}, json.dumps(self.says(task_id, now)).encode()
        if fault in _BODIES:
            return 200, {}, _BODIES[fault]
        code, _, seconds = fault.partition("+")
        if not code.isdigit():
            return None
        return int(code), {"retry-after": seconds} if seconds else {}, b'{"message": "a bad moment"}'

    # Simulated.

    async def post(self, content: bytes, may_send: Callable[[], bool]) -> Answer | DistributeError:
        """One exchange, as `Session.post` would have it."""
        loop = asyncio.get_running_loop()
        task_id = str(json.loads(content)["id"])
        delay, fault = self.meet(task_id, loop.time())
        if fault == "unreachable":
            await asyncio.sleep(math.inf)
        may_send()
        await asyncio.sleep(math.inf if fault == "silence" else delay)
        if fault == "bug":
            raise RuntimeError("a mistake in this library")
        if fault == "huge":
            return APIResponseValidationError("the answer is too large", "too_large")
        answer = self.answer(task_id, fault, loop.time())
        if answer is None:
            reason = {"cut": "disconnected", "garbage": "protocol"}.get(fault, fault)
            return APIConnectionError("the exchange failed", reason)
        return Answer(*answer)

    # On a socket.

    def behaviour(self) -> Behaviour:
        """The same for a `MisbehavingServer`. Error answers repeat the key, which nobody may show."""

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
            loop = asyncio.get_running_loop()
            task_id = str(json.loads(request.partition(b"\r\n\r\n")[2])["id"])
            delay, fault = self.meet(task_id, loop.time())
            if fault not in {"silence", "unreachable"}:
                await asyncio.sleep(delay)
            answer = self.answer(task_id, fault, loop.time())
            if answer is not None:
                code, headers, body = answer
                if code != 200:
                    headers = {**headers, "x-request-id": KEY, "x-key": KEY}
                    body = json.dumps({"message": f"a bad moment for {KEY}"}).encode()
                await bad.raw(bad.answer(body, code, headers))(reader, writer, request)
            else:
                await _BROKEN[fault](reader, writer, request)

        return behave


_BROKEN: dict[str, Behaviour] = {
    "cut": bad.close,
    "stale": bad.close,
    "body": bad.truncated(b'{"status": "QUEUED"'),
    "garbage": bad.raw_and_close(b"SMTP ready\r\n\r\n"),
    "connect": bad.reset,
    "silence": bad.silence(),
    "unreachable": bad.silence(),
    "bug": bad.raw_and_reset(bad.head(200, {"Content-Length": "9"})),
    "certificate": bad.status(495),
}
