"""Faults to script: what meets a request instead of its answer, or on the way. Used by `_fates` and by whoever scripts.

Made by the functions of this module, which readers know as `fault`: `fault.status(503)`, `fault.silence()`, … A fault
keeps no state and may be used many times over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

#: Makes what would answer the request without the fault, as of the moment of the call.
Answer = Callable[[], web.Response]
#: Writes bytes to the connection as they are.
Write = Callable[[bytes], None]
#: Gives the response to send; None to close the connection after what was written.
Fault = Callable[[Answer, Write], Awaitable[web.Response | None]]


def status(
    code: int, *, headers: Mapping[str, str] | None = None, body: bytes | None = None, content_type: str | None = None
) -> Fault:
    """Answer with this status code. `body` is a JSON `{message}` by default, and HTML otherwise (`content_type`)."""
    content = json.dumps({"message": f"scripted {code}"}).encode() if body is None else body
    kind = content_type or ("application/json" if body is None else "text/html")
    # A Content-Type among the headers wins: a test that wants a broken one says it there.
    fields = {"Content-Type": kind, **(headers or {})}

    async def meet(_answer: Answer, _write: Write) -> web.Response | None:
        return web.Response(status=code, body=content, headers=fields)

    return meet


def silence(seconds: float | None = None) -> Fault:
    """Answer nothing, and close after so many seconds; None: not until the client leaves or the emulator stops."""

    async def meet(_answer: Answer, _write: Write) -> web.Response | None:
        if seconds is None:
            await asyncio.get_running_loop().create_future()
        else:
            await asyncio.sleep(seconds)
        return None

    return meet


def cut(after: int = 0) -> Fault:
    """Close the connection after so many bytes of the answer, its head included."""

    async def meet(answer: Answer, write: Write) -> web.Response | None:
        write(_on_the_wire(answer())[:after])
        return None

    return meet


def delay(seconds: float) -> Fault:
    """Answer as usual, but so many seconds late: with what is true then."""

    async def meet(answer: Answer, _write: Write) -> web.Response | None:
        await asyncio.sleep(seconds)
        return answer()

    return meet


def drip(interval: float = 1.0) -> Fault:
    """Send the answer, its head included, byte by byte, so many seconds apart; then close."""

    async def meet(answer: Answer, write: Write) -> web.Response | None:
        for byte in _on_the_wire(answer()):
            write(bytes([byte]))
            await asyncio.sleep(interval)
        return None

    return meet


def raw(data: bytes) -> Fault:
    """Write these bytes as they are, and close."""

    async def meet(_answer: Answer, write: Write) -> web.Response | None:
        write(data)
        return None

    return meet


def _on_the_wire(response: web.Response) -> bytes:
    content = response.body if isinstance(response.body, bytes) else b""
    # The connection is closed after it in any case; a client that isn't told would take it for the next request.
    fields = {**response.headers, "Content-Length": str(len(content)), "Connection": "close"}
    head = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*head, "", ""]).encode() + content
