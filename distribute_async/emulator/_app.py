"""The HTTP side: the two calls of the service, strict in what they take and exact in what they give.

Used by `_emulator` alone. What the specification doesn't say (400, 401, 405, 413) is answered `{message}` as well.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web
from attrs import frozen

from distribute_async.emulator import _checks
from distribute_async.emulator._checks import RefusedError
from distribute_async.emulator._faults import Fault
from distribute_async.emulator._log import RecordedRequest

_SHAPES = {"/async/chat/create": _checks.CREATE, "/async/chat/result": _checks.RESULT}
_JSON = "application/json"

# An emulator on the command line may run for days.
_KEPT_REQUESTS = 100_000


@frozen(kw_only=True)
class Service:
    """The service as HTTP shows it, over what the emulator behind it knows."""

    api_key: str
    log: list[RecordedRequest]
    #: Makes a task of a checked create body, and gives its id.
    create: Callable[[dict[str, Any]], str]
    #: The result of a task and whether it is as specified; None where the service knows no such task.
    look_up: Callable[[str], tuple[dict[str, Any], bool] | None]
    #: What the next request meets, given the id that it names.
    next_fault: Callable[[str | None], Fault | None]
    #: Told of every answer that should be as specified: path, status code, content type, body.
    tell: Callable[[str, int, str, bytes], None]
    #: Told of what should never happen.
    report: Callable[[Exception], None]

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """One request: log it, and answer it, unless it meets a fault."""
        sent = await _sent(request)
        named = sent.get("id") if isinstance(sent, dict) else None
        record = RecordedRequest(
            time=asyncio.get_running_loop().time(),
            method=request.method,
            path=request.rel_url.raw_path,
            task_id=named if isinstance(named, str) else None,
            authorized=request.headers.getall("authorization", []) == [self.api_key],
            headers={name.lower(): value for name, value in request.headers.items() if name.lower() != "authorization"},
        )
        if len(self.log) >= _KEPT_REQUESTS:
            del self.log[: _KEPT_REQUESTS // 2]
        self.log.append(record)

        answer = partial(self._answer, request, record, sent)
        fault = self.next_fault(record.task_id)
        response = answer() if fault is None else await fault(answer, partial(_write, request))
        if response is not None:
            record.status = response.status
            return response
        if request.transport is not None:
            request.transport.close()
        return web.Response()  # aiohttp.web wants one; with the connection closed it sends nothing

    def _answer(self, request: web.BaseRequest, record: RecordedRequest, sent: Any) -> web.Response:
        status, headers, is_specified = 200, None, True
        try:
            value, is_specified = self._call(request, record, sent)
            content = json.dumps(value).encode()
        except RefusedError as refusal:
            status, content, headers = refusal.code, _message(refusal.message), refusal.headers
        except Exception as error:  # the service's documented 500; the emulator's owner hears of it too
            self.report(error)
            status, content = 500, _message("internal server error")
        if is_specified:
            self.tell(record.path, status, _JSON, content)
        return web.Response(status=status, body=content, content_type=_JSON, headers=headers)

    def _call(self, request: web.BaseRequest, record: RecordedRequest, sent: Any) -> tuple[dict[str, Any], bool]:
        """The answer's body, and whether it is as specified. Raises `RefusedError`."""
        shape = _SHAPES.get(record.path)
        if shape is None:
            raise RefusedError(404, "no such path")
        if record.method != "POST":
            raise RefusedError(405, "only POST is allowed", {"Allow": "POST"})
        if not record.authorized:
            raise RefusedError(401, "missing or wrong key in the authorization header")
        if request.content_type != _JSON or (request.charset or "utf-8").lower() != "utf-8":
            raise RefusedError(400, f"content type must be {_JSON}, in UTF-8")
        if isinstance(sent, RefusedError):
            raise sent
        body = _checks.checked(sent, shape)
        if shape is _checks.CREATE:
            return {"id": self.create(body)}, True
        found = self.look_up(body["id"])
        if found is None:
            raise RefusedError(404, "task not found")
        return found


async def _sent(request: web.BaseRequest) -> Any:
    """The JSON value in a request; a `RefusedError` where there is none."""
    try:
        return _checks.read(await request.read())
    except web.HTTPRequestEntityTooLarge:
        return RefusedError(413, "body is too large")
    except RefusedError as refusal:
        return refusal


def _write(request: web.BaseRequest, data: bytes) -> None:
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.write(data)


def _message(text: str) -> bytes:
    return json.dumps({"message": text}).encode()
