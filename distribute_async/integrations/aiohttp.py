"""At home in aiohttp.web: one client for the application, tasks as server-sent events, our errors as answers. Public.

::

    from distribute_async.integrations.aiohttp import CLIENT, setup, task_events

    app = web.Application()
    setup(app)
    app.router.add_get("/tasks/{task_id}/events", task_events(authorize=may_see_task))  # for EventSource


    async def answer(request: web.Request) -> web.Response:
        result = await request.app[CLIENT].wait_for_result(request.match_info["task_id"], timeout=30)
        return web.json_response({"text": result.text})
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiohttp import web

from distribute_async import DistributeClient, DistributeError
from distribute_async.integrations import sse
from distribute_async.integrations._feeds import Feeds, Kind, Stream, checked_kind, opened
from distribute_async.integrations._problems import CONTENT_TYPE, logged_problem_of

__all__ = ["CLIENT", "anyone", "error_middleware", "setup", "task_events"]

#: The application's client: `request.app[CLIENT]`, or `request.config_dict[CLIENT]` in a sub-application.
CLIENT: Final = web.AppKey("distribute_client", DistributeClient)
_FEEDS: Final = web.AppKey("distribute_feeds", Feeds)

#: Seconds between looks whether the browser is still there, where the server doesn't cancel handlers.
_LOOK = 1.0

Authorize = Callable[[web.Request, str], Awaitable[bool]]


def setup(app: web.Application, make_client: Callable[[], DistributeClient] = DistributeClient) -> None:
    """Give an application one client, opened when it starts and closed when it stops, and `error_middleware`.

    `make_client` makes the client, on the application's event loop; by default from the environment, which raises
    `ConfigurationError` at the start where it can't work. Event streams end when the application begins to shut down,
    so that the server need not wait for them.
    """

    async def with_client(app: web.Application) -> AsyncIterator[None]:
        async with opened(make_client) as feeds:
            app[CLIENT] = feeds.client
            app[_FEEDS] = feeds
            yield

    async def stop(app: web.Application) -> None:
        app[_FEEDS].stop()

    app.cleanup_ctx.append(with_client)
    app.on_shutdown.append(stop)
    app.middlewares.append(error_middleware)


async def anyone(_request: web.Request, _task_id: str) -> bool:
    """For `authorize=`: whoever knows a task's id may see it. An id is a random UUID, but links get passed on."""
    return True


def task_events(*, authorize: Authorize, kind: Kind = "chat") -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that streams a task as server-sent events; for a path with `{task_id}` and the method GET.

    `kind`: of the tasks, "chat" by default, "images" or "speech". Raises `ConfigurationError` for any other.

    `await authorize(request, task_id)` says True where this request may see this task, and False where it may not,
    which is answered 403; it may as well raise an answer of its own, such as `web.HTTPUnauthorized()`. Anything else
    that it says is refused, with a `TypeError`. `anyone` leaves the door open, for all to read.

    The events are `status` (at each change), `result` or `error`, and `done`. A browser that comes back, also to
    another server, is told what it missed and nothing twice; after `done` it is answered 204, and stops. It says
    how far it got in the `Last-Event-ID` header, or in the query as `last_event_id`. An `error` without `done` after
    it, such as for an outage over `Retry.max_outage`, may get better: its `retry` makes the browser come back after
    30 s, or as late as the service asks for, at most an hour.

    A task's polls are shared by all its streams, and end when the last browser leaves: within a second, or at once
    where the server is run with `handler_cancellation=True`. HEAD is answered without a body, and asks the service
    nothing. An id that is none is answered as `InvalidTaskIdError`. Without `setup` it is a `RuntimeError`.
    """
    checked_kind(kind)

    async def events(request: web.Request) -> web.StreamResponse:
        task_id = request.match_info["task_id"]
        is_allowed: object = await authorize(request, task_id)
        if not isinstance(is_allowed, bool):
            raise TypeError(f"authorize= must say True or False, not {type(is_allowed).__name__}")
        if not is_allowed:
            raise web.HTTPForbidden
        last_event_id = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
        stream = _feeds(request).open(kind, task_id, last_event_id)
        if stream is None:
            return web.Response(status=204, headers=sse.HEADERS)
        response = web.StreamResponse(headers={"Content-Type": sse.CONTENT_TYPE, **sse.HEADERS})
        if request.method == "HEAD":
            return response
        with _ClosedInTheEnd(stream, request):
            try:
                await response.prepare(request)
                async for chunk in stream:
                    await stream.written(response.write(chunk))
                await stream.written(response.write_eof())
            except ConnectionError:
                pass  # the browser has gone
            except TimeoutError:
                # The application stops, and what the browser doesn't read would keep the server.
                if request.transport is not None:
                    request.transport.abort()
        return response

    return events


class _ClosedInTheEnd:
    """Closes a stream, at the latest once its browser has gone: the server need not say so."""

    def __init__(self, stream: Stream, request: web.Request) -> None:
        self._stream = stream
        self._request = request
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._look()

    def __exit__(self, *_error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stream.close()

    def _look(self) -> None:
        if self._request.transport is None:
            self._stream.close()
        else:
            self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)


def _feeds(request: web.Request) -> Feeds:
    feeds = request.config_dict.get(_FEEDS)
    if feeds is None:
        raise RuntimeError("this application has no client: give it setup(app), see distribute_async")
    return feeds


@web.middleware
async def error_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer our errors with a fitting status code and a problem (RFC 9457) in fixed words; see `setup`.

    What the service said stays here. 5xx are logged under `distribute_async.integrations`. Where the response has
    begun already there is no other one: the error goes on to the server, which logs it and cuts the connection.
    """
    try:
        return await handler(request)
    except DistributeError as error:
        if request.writer.output_size > 0:
            raise
        problem = logged_problem_of(error)
        return web.Response(
            body=problem.body, status=problem.status, content_type=CONTENT_TYPE, headers=dict(problem.headers)
        )
