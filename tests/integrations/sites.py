"""The same small application in both frameworks, on a real socket in the test's own loop (for a virtual clock)."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web
from attrs import frozen
from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.base import BaseHTTPMiddleware

from distribute_async import DistributeClient
from distribute_async.integrations import aiohttp as on_aiohttp
from distribute_async.integrations import fastapi as on_fastapi
from tests.integrations.eventsource import Source

MakeClient = Callable[[], DistributeClient]
#: Set by each request; nothing of it may reach what serves many requests.
USER: contextvars.ContextVar[str] = contextvars.ContextVar("user")
#: What `authorize` says to whom; anybody else is sent away with 401.
VERDICTS: dict[str, Any] = {"owner": True, "stranger": False, "nobody": None}


@frozen
class Site:
    """A running application, and a browser's connections to it."""

    url: str
    session: aiohttp.ClientSession

    def events(
        self, task_id: str, last_event_id: str = "", user: str = "owner", headers: Mapping[str, str] | None = None
    ) -> Source:
        url = f"{self.url}/tasks/{task_id}/events"
        return Source(self.session, url, last_event_id, {"X-User": user} if headers is None else headers)

    async def get(self, path: str, **headers: str) -> aiohttp.ClientResponse:
        async with self.session.get(self.url + path, headers=headers) as response:
            await response.read()
            return response


def listening_socket(port: int = 0) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)  # so that who doesn't read is soon noticed
    listening.bind(("127.0.0.1", port))
    listening.listen(1024)
    listening.setblocking(False)
    return listening


@asynccontextmanager
async def fastapi_site(make_client: MakeClient, *, port: int = 0, with_middleware: bool = False) -> AsyncIterator[Site]:
    app = FastAPI(lifespan=on_fastapi.lifespan(make_client), exception_handlers=on_fastapi.exception_handlers)
    if with_middleware:

        async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
            return await call_next(request)

        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)

    async def authorize(request: Request, task_id: str) -> Any:
        USER.set(request.headers["x-user"])
        if request.headers["x-user"] not in VERDICTS:
            raise HTTPException(401)
        return VERDICTS[request.headers["x-user"]]

    app.get("/tasks/{task_id}/events")(on_fastapi.task_events(authorize=authorize))

    @app.get("/tasks/{task_id}")
    async def answer(task_id: str, client: on_fastapi.Client) -> str | None:
        return (await client.wait_for_result(task_id, timeout=30)).text

    async with serve_fastapi(app, port) as site:
        yield site


@asynccontextmanager
async def serve_fastapi(app: FastAPI, port: int = 0, *, shutdown_timeout: int | None = None) -> AsyncIterator[Site]:
    with listening_socket(port) as listening:
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=shutdown_timeout)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started:  # noqa: ASYNC110 - it sets no event of ours
            await asyncio.sleep(0.01)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", session)
        finally:
            if hasattr(app.state, "distribute_feeds"):
                app.state.distribute_feeds.stop()  # as at a signal, which would end the tests as well
            server.should_exit = True
            await serving


@asynccontextmanager
async def aiohttp_site(
    make_client: MakeClient, *, port: int = 0, handler_cancellation: bool = True
) -> AsyncIterator[Site]:
    app = web.Application()
    on_aiohttp.setup(app, make_client)

    async def authorize(request: web.Request, _task_id: str) -> bool:
        USER.set(request.headers["x-user"])
        if request.headers["x-user"] not in VERDICTS:
            raise web.HTTPUnauthorized
        verdict: bool = VERDICTS[request.headers["x-user"]]
        return verdict

    app.router.add_get("/tasks/{task_id}/events", on_aiohttp.task_events(authorize=authorize))

    async def answer(request: web.Request) -> web.Response:
        client = request.app[on_aiohttp.CLIENT]
        return web.json_response((await client.wait_for_result(request.match_info["task_id"], timeout=30)).text)

    app.router.add_get("/tasks/{task_id}", answer)
    async with serve_aiohttp(app, port, handler_cancellation=handler_cancellation) as site:
        yield site


@asynccontextmanager
async def serve_aiohttp(
    app: web.Application, port: int = 0, *, handler_cancellation: bool = True
) -> AsyncIterator[Site]:
    runner = web.AppRunner(app, handler_cancellation=handler_cancellation, access_log=None)
    await runner.setup()
    try:
        listening = listening_socket(port)
        await web.SockSite(runner, listening, backlog=1024).start()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", session)
    finally:
        await runner.cleanup()


MakeSite = Callable[..., AbstractAsyncContextManager[Site]]


# An application without a server: what a server would give it.


def asgi_scope(path: str, method: str = "GET") -> dict[str, Any]:
    """A request as a server gives it to an application."""
    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1"}
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "headers": [], "scheme": "http"}
    return scope | {"method": method}


async def ignored(_message: Any) -> None:
    """Sends nothing anywhere."""


async def nobody_leaves() -> dict[str, Any]:
    """What a server says of a browser that stays."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError
