"""Plain HTTP, so that the emulator is tested without the library's client. Used by the tests of this directory."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from distribute_async.emulator import Emulator

CREATE = "/async/chat/create"
RESULT = "/async/chat/result"
A_CHAT: dict[str, Any] = {"model": "Llama-3.3 70B", "messages": [{"role": "user", "content": "Hello!"}]}
#: The least that each kind's create call takes.
BODIES: dict[str, dict[str, Any]] = {
    "chat": A_CHAT,
    "images": {"model": "Flux.1 [dev]", "prompt": "A fox in the snow"},
    "speech": {"model": "Chatterbox", "input": "Hello!"},
}
UNKNOWN_ID = "0b7dbd53-71f5-4d2b-9c0e-4dd3a2f7d6f1"
JSON = {"Content-Type": "application/json"}
#: A question for a task that isn't there.
GOOD_BODY = json.dumps({"id": UNKNOWN_ID}).encode()


async def post(session: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, Any]:
    """The status code and the JSON body of the answer."""
    async with session.post(path, json=body) as response:
        return response.status, await response.json()


async def send(
    session: aiohttp.ClientSession,
    *,
    method: str = "POST",
    path: str = RESULT,
    body: bytes = GOOD_BODY,
    headers: dict[str, str] = JSON,
) -> tuple[int, Any]:
    """The code and the body of the answer; checks that it is JSON whatever it says."""
    async with session.request(
        method, path, data=io.BytesIO(body), headers=headers, skip_auto_headers=["Content-Type"]
    ) as response:
        assert response.headers["Content-Type"] == "application/json"
        return response.status, None if method == "HEAD" else await response.json()


async def refusal(session: aiohttp.ClientSession, **request: Any) -> int:
    """The code with which a request is refused; checks the shape of the refusal."""
    code, answer = await send(session, **request)
    assert answer.keys() == {"message"}
    assert isinstance(answer["message"], str)
    assert answer["message"]
    return code


async def create(session: aiohttp.ClientSession, kind: str = "chat", **fields: Any) -> str:
    """A new task's id."""
    status, answer = await post(session, f"/async/{kind}/create", {**BODIES[kind], **fields})
    assert status == 200, answer
    return str(answer["id"])


async def result(session: aiohttp.ClientSession, task_id: str, kind: str = "chat") -> dict[str, Any]:
    """How the task stands."""
    status, answer = await post(session, f"/async/{kind}/result", {"id": task_id})
    assert status == 200, answer
    assert isinstance(answer, dict)
    return answer


async def status(session: aiohttp.ClientSession, task_id: str, kind: str = "chat") -> str:
    """The task's status; the code of the answer where it is no 200."""
    code, answer = await post(session, f"/async/{kind}/result", {"id": task_id})
    return str(answer["status"]) if code == 200 else str(code)


async def statuses(
    session: aiohttp.ClientSession, task_id: str, kind: str = "chat", *, at: Sequence[float]
) -> list[str]:
    """The task's status at these times, in seconds from now."""
    loop = asyncio.get_running_loop()
    start, seen = loop.time(), []
    for moment in at:
        await asyncio.sleep(start + moment - loop.time())
        seen.append(await status(session, task_id, kind))
    return seen


def request_bytes(emulator: Emulator) -> bytes:
    """A whole request for an unknown task, as it goes over the wire."""
    content = json.dumps({"id": UNKNOWN_ID})
    lines = [
        f"POST {RESULT} HTTP/1.1",
        "Host: localhost",
        f"Authorization: {emulator.api_key}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join([*lines, "", content]).encode()


@asynccontextmanager
async def connection(emulator: Emulator) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of one's own."""
    host, _, port = emulator.base_url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def wire(emulator: Emulator) -> list[tuple[float, bytes]]:
    """All that comes back for one request until the connection is closed: (seconds, bytes) each, b"" for the end."""
    loop = asyncio.get_running_loop()
    async with connection(emulator) as (reader, writer):
        start = loop.time()
        writer.write(request_bytes(emulator))
        came: list[tuple[float, bytes]] = []
        while not came or came[-1][1]:
            data = await reader.read(65536)
            came.append((loop.time() - start, data))
    return came


async def first_bytes(emulator: Emulator, sent: bytes) -> bytes:
    """The first bytes that come back for these."""
    async with connection(emulator) as (reader, writer):
        writer.write(sent)
        return await reader.read(65536)
