"""One address of the emulator: it listens, logs each request, and answers it unless it meets a fault.

Used by `_emulator`, for the API and for the files; what it answers is theirs, `_app` and `_files`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from attrs import define, field

from distribute_async.emulator import _checks
from distribute_async.emulator._checks import RefusedError
from distribute_async.emulator._faults import Fault
from distribute_async.emulator._lifecycle import TASK_ID
from distribute_async.emulator._log import Log, RecordedRequest

# Kept instead of the key.
_HIDDEN = "***"


@define(kw_only=True, eq=False)
class Site:
    """It listens between `start` and `stop`, each time on the same port."""

    host: str
    #: 0: not known yet.
    port: int
    api_key: str
    log: Log
    #: The answer to a request, given its JSON value or why it has none, and whether it should be as specified. Raises
    #: `RefusedError`.
    answer: Callable[[web.BaseRequest, RecordedRequest, Any], tuple[web.Response, bool]]
    #: What the next request meets, given the id that it names.
    next_fault: Callable[[str | None], Fault | None]
    #: Told of every answer that should be as specified: path, status code, content type, body.
    tell: Callable[[str, int, str, bytes], None]
    #: Told of what should never happen.
    report: Callable[[Exception], None]
    _http: web.Server | None = field(init=False, default=None)
    _listening: asyncio.Server | None = field(init=False, default=None)

    @property
    def url(self) -> str:
        """Where it listens. Raises `RuntimeError` before it has a port."""
        if not self.port:
            raise RuntimeError("the emulator has no port yet: enter it first")
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def start(self) -> None:
        """Listen. Raises `RuntimeError` where it does already, `OSError` where it can't."""
        if self._listening is not None:
            raise RuntimeError("the emulator is running already")
        # A client that leaves ends its handler at once: nobody answers a closed connection for long.
        self._http = web.Server(self._handle, access_log=None, handler_cancellation=True, auto_decompress=False)
        loop = asyncio.get_running_loop()
        # The kernel lets clients beyond the backlog wait for a second, on the real clock.
        self._listening = await loop.create_server(self._http, self.host, self.port, backlog=1024)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, cut every connection, and wait until their handlers are gone."""
        if self._listening is None or self._http is None:
            return
        for accepting in self._listening.sockets:
            asyncio.get_running_loop().remove_reader(accepting)
        # What asyncio has accepted just now becomes a connection within three turns of the loop, if it listens then.
        for _ in range(3):
            await asyncio.sleep(0)
        self._listening.close()
        for connection in self._http.connections:
            if isinstance(connection.transport, asyncio.WriteTransport):
                connection.transport.abort()
        # An aborted connection is lost in the loop's next turn, which cancels its handler; with that it is gone.
        while self._http.connections:  # noqa: ASYNC110 - aiohttp.web has nothing to await here
            await asyncio.sleep(0)
        await self._listening.wait_closed()
        self._listening = None

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        content, sent = await _sent(request)
        record = self._record(request, content, sent)
        self.log.add(record)
        answer = partial(self._answer, request, record, sent)
        fault = self.next_fault(record.task_id)
        response = answer() if fault is None else await fault(answer, partial(_write, request))
        if response is not None:
            record.status = response.status
            return response
        if request.transport is not None:
            request.transport.close()
        return web.Response()  # aiohttp.web wants one; with the connection closed it sends nothing

    def _record(self, request: web.BaseRequest, content: bytes | None, sent: Any) -> RecordedRequest:
        path, has_key, headers = request.rel_url.raw_path, self.api_key in unquote(request.raw_path), {}
        for name, value in request.headers.items():
            is_key = self.api_key in value
            has_key = has_key or is_key
            headers[name.lower()] = _HIDDEN if is_key or name.lower() == "authorization" else value
        named = sent.get("id") if isinstance(sent, dict) else None
        if named is None and (found := TASK_ID.search(path)):
            named = found[0]
        is_id = isinstance(named, str) and (self.api_key not in named or TASK_ID.fullmatch(named))
        return RecordedRequest(
            time=asyncio.get_running_loop().time(),
            method=request.method,
            path=_HIDDEN if self.api_key in unquote(path) else path,
            task_id=named if is_id else None,
            authorized=request.headers.getall("authorization", []) == [self.api_key],
            has_key=has_key,
            headers=headers,
            content=None if content is None else self._without_key(content),
        )

    def _without_key(self, content: bytes) -> bytes:
        """A body to keep: "***" for the key; for all of it, where escapes in JSON spell the key."""
        content = content.replace(self.api_key.encode(), _HIDDEN.encode())
        if b"\\" not in content:
            return content
        try:
            said = json.dumps(_checks.read(content), ensure_ascii=False)
        except RefusedError:
            return content
        return json.dumps(_HIDDEN).encode() if json.dumps(self.api_key)[1:-1] in said else content

    def _answer(self, request: web.BaseRequest, record: RecordedRequest, sent: Any) -> web.Response:
        try:
            response, is_specified = self.answer(request, record, sent)
        except RefusedError as refusal:
            response, is_specified = _refusal(refusal), True
        except Exception as error:  # the service's documented 500; the emulator's owner hears of it too
            self.report(error)
            response, is_specified = _refusal(RefusedError(500, "internal server error")), True
        if is_specified and isinstance(response.body, bytes):
            self.tell(request.rel_url.raw_path, response.status, response.content_type, response.body)
        return response


def _refusal(error: RefusedError) -> web.Response:
    return json_response({"message": error.message}, error.code, error.headers)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in JSON, without a charset, which JSON doesn't have."""
    content = json.dumps(value).encode()
    return web.Response(status=status, body=content, content_type="application/json", headers=headers)


async def _sent(request: web.BaseRequest) -> tuple[bytes | None, Any]:
    """The body, None where it is too large; and the JSON value in it, a `RefusedError` where there is none."""
    try:
        content = await request.read()
    except web.HTTPRequestEntityTooLarge:
        return None, RefusedError(413, "body is too large")
    try:
        return content, _checks.read(content)
    except RefusedError as error:
        return content, error


def _write(request: web.BaseRequest, data: bytes) -> None:
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.write(data)
