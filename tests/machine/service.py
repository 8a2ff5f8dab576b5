"""The service of a random run: what each request meets, simulated below the client's session or on a real socket.

Used by `run`. Both ways draw from one `Service`, so that one plan goes either way.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

from distribute_async import APIConnectionError, APIResponseValidationError
from tests import misbehaving as bad
from tests import seams
from tests.machine.plan import PROBE_ID, Plan
from tests.misbehaving import Behaviour
from tests.waiting import KEY

#: Bodies that are no answer.
_BODIES = {
    "html": b"<html>Bad moment</html>",
    "shape": b'{"status": 7}',
    "nan": b'{"status": "QUEUED", "created": NaN, "model": "m"}',
    "huge": b" " * 5000,
    "id": b'{"id": "no-such-id"}',
}
#: Faults that come before there is a connection, or with one on which nothing may be sent.
_BEFORE_SENDING = {"connect": "connect", "certificate": "certificate", "poisoned": "stale"}


class Asked:
    """What a request asks for: a task, by its number, or that one is created, for an actor by its number."""

    def __init__(self, plan: Plan, content: bytes) -> None:
        body = json.loads(content)
        self.creates = "messages" in body
        #: What scripts its faults go by.
        self.key: str = body["messages"][0]["content"] if self.creates else body["id"].lower()
        self.actor: int | None = int(self.key) if self.creates else None
        self.task: int | None = None
        if not self.creates and self.key != PROBE_ID:
            self.task = int(self.key[:8], 16)
        self.task_id = plan.task_id(plan.actors[int(self.key)].task) if self.creates else self.key


class Service:
    """What the plan says about each request."""

    def __init__(self, plan: Plan, started: float) -> None:
        self._plan = plan
        self._started = started
        self._lives = plan.all_lives
        self._asked: dict[str, int] = {}
        self._requests = 0

    def meet(self, asked: Asked, now: float) -> tuple[float, str]:
        """For a request that comes: seconds until its answer, and the fault that it meets, "" for none."""
        delay = self._plan.delays[self._requests % len(self._plan.delays)]
        nth = self._asked.get(asked.key, 0)
        self._requests += 1
        self._asked[asked.key] = nth + 1
        faults: tuple[str, ...] = ()
        if asked.actor is not None:
            faults = self._plan.actors[asked.actor].faults
        elif asked.task is not None:
            faults = self._lives[asked.task].faults
        if nth < len(faults) and faults[nth]:
            return delay, faults[nth]
        for front in self._plan.fronts:
            is_meant = front.task is None or front.task == asked.task
            if is_meant and 0 <= now - self._started - front.start < front.seconds:
                return delay if front.delay is None else front.delay, front.fault
        return delay, ""

    def says(self, asked: Asked, now: float) -> dict[str, Any]:
        """The good answer of this moment."""
        if asked.task is None:
            return {"id": asked.task_id}
        life = self._lives[asked.task]
        status = [word for at, word in life.timeline if at <= now - self._started or at == life.timeline[0][0]][-1]
        message = {"role": "assistant", "content": f"the answer of {asked.task_id}"}
        choice = {"finish_reason": "stop", "index": 0, "message": message}
        return {
            "status": status,
            "created": 1_700_000_000,
            "model": "a-model",
            "choices": [choice] if status in {"COMPLETED", "DONE"} else [],
            "finished": 1_700_000_001 if status in {"COMPLETED", "ERROR", "DONE", "GONE"} else None,
        }

    def answer(self, asked: Asked, fault: str, now: float) -> tuple[int, dict[str, str], bytes] | None:
        """Status code, headers and body; None for a fault of the connection."""
        if not fault and asked.key == PROBE_ID:
            return 404, {}, b'{"message": "no such task"}'
        if not fault:
            return 200, {}, json.dumps(self.says(asked, now)).encode()
        if fault in _BODIES:
            return 200, {}, _BODIES[fault]
        code, _, seconds = fault.partition("+")
        if not code.isdigit():
            return None
        return int(code), {"retry-after": seconds} if seconds else {}, b'{"message": "a bad moment"}'

    # Simulated.

    async def post(self, content: bytes, may_send: Callable[[], bool]) -> seams.ResponseOrError:
        """One exchange, as a socket would bring it."""
        loop = asyncio.get_running_loop()
        asked = Asked(self._plan, content)
        delay, fault = self.meet(asked, loop.time())
        if fault == "unreachable":
            await asyncio.sleep(math.inf)
        if fault == "middleware":
            raise asyncio.CancelledError
        if fault in _BEFORE_SENDING:
            await asyncio.sleep(delay)
            return APIConnectionError("the exchange failed", _BEFORE_SENDING[fault])
        if not may_send():
            return APIConnectionError("nothing was sent", "stale")
        await asyncio.sleep(math.inf if fault == "silence" else delay)
        if fault == "bug":
            raise RuntimeError("a mistake in this library")
        if fault == "foreign":
            raise asyncio.CancelledError
        if fault == "huge":
            return APIResponseValidationError("the answer is too large", "too_large")
        answer = self.answer(asked, fault, loop.time())
        if answer is None:
            reason = {"cut": "disconnected", "garbage": "protocol"}.get(fault, fault)
            return APIConnectionError("the exchange failed", reason)
        return seams.response(*answer)

    # On a socket.

    def behaviour(self) -> Behaviour:
        """The same for a `MisbehavingServer`. Error answers repeat the key, which nobody may show."""

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
            loop = asyncio.get_running_loop()
            asked = Asked(self._plan, request.partition(b"\r\n\r\n")[2])
            delay, fault = self.meet(asked, loop.time())
            if fault not in {"silence", "unreachable"}:
                await asyncio.sleep(delay)
            answer = self.answer(asked, fault, loop.time())
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
    "poisoned": bad.close,
    "foreign": bad.reset,
    "middleware": bad.close,
}
