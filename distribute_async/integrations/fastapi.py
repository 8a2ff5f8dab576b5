"""At home in FastAPI: one client for the application, tasks as server-sent events, our errors as answers. Public.

::

    from distribute_async.integrations.fastapi import Client, event_route, exception_handlers, lifespan, task_events

    app = FastAPI(lifespan=lifespan(), exception_handlers=exception_handlers)
    app.get("/tasks/{task_id}/events", **event_route)(task_events(authorize=may_see_task))  # for EventSource


    @app.get("/tasks/{task_id}/answer")
    async def answer(task_id: str, client: Client) -> str | None:
        return (await client.wait_for_result(task_id, timeout=30)).text
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import FrameType
from typing import Annotated, Any

try:
    from fastapi import Depends, FastAPI, HTTPException, Request, Response
    from fastapi.requests import HTTPConnection
    from fastapi.responses import StreamingResponse
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"fastapi", "starlette"}:
        raise
    raise ModuleNotFoundError(
        "distribute_async.integrations.fastapi needs FastAPI: pip install 'distribute-async[fastapi]'", name=error.name
    ) from None

from distribute_async import DistributeClient, DistributeError
from distribute_async.integrations import sse
from distribute_async.integrations._feeds import Feeds, Kind, Stream, checked_kind, opened
from distribute_async.integrations._problems import CONTENT_TYPE, logged_problem_of

__all__ = ["Client", "anyone", "event_route", "exception_handlers", "get_client", "lifespan", "task_events"]


def lifespan(
    make_client: Callable[[], DistributeClient] = DistributeClient,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What FastAPI takes as `lifespan=`: opens one client when the application starts, and closes it when it stops.

    `make_client` makes it, on the application's event loop; by default from the environment, which raises
    `ConfigurationError` at the start where it can't work. Beside a lifespan of your own: `async with lifespan()(app):`
    within it.

    It also ends the event streams on SIGINT and SIGTERM, before the server's own handling of these: uvicorn waits
    for open responses, and only then tells the application that it stops.
    """

    @asynccontextmanager
    async def with_client(app: FastAPI) -> AsyncGenerator[None, None]:
        async with opened(make_client) as feeds:
            app.state.distribute_feeds = feeds
            # In a mounted sub-application a request knows that one as its `app`, and of this one the router alone.
            vars(app.router)["distribute_feeds"] = feeds
            with _signalled(feeds.stop):
                yield

    return with_client


def get_client(connection: HTTPConnection) -> DistributeClient:
    """A dependency: the application's client; in a mounted sub-application that of the outermost one.

    Raises `RuntimeError` where neither has a `lifespan`.
    """
    return _feeds(connection).client


#: Of a parameter that is to be the application's client.
Client = Annotated[DistributeClient, Depends(get_client)]


async def anyone() -> bool:
    """For `authorize=`: whoever knows a task's id may see it. An id is a random UUID, but links get passed on."""
    return True


def task_events(
    *, authorize: Callable[..., bool | Awaitable[bool]], kind: Kind = "chat"
) -> Callable[..., Awaitable[Response]]:
    """An endpoint that streams a task as server-sent events; for a path with `{task_id}` and the method GET.

    `kind`: of the tasks, "chat" by default, "images" or "speech". Raises `ConfigurationError` for any other.

    `authorize` is a dependency, with whatever parameters and dependencies of its own, `task_id: str` among them. It
    says True where this request may see this task, and False where it may not, which is answered 403; it may as well
    raise an answer of its own, such as `HTTPException(401)`. Anything else that it says is refused, with a
    `TypeError`. `anyone` leaves the door open, for all to read.

    The events are `status` (at each change), `result` or `error`, and `done`. A browser that comes back, also to
    another server, is told what it missed and nothing twice; after `done` it is answered 204, and stops. It says
    how far it got in the `Last-Event-ID` header, or in the query as `last_event_id`. An `error` without `done` after
    it, such as for an outage over `Retry.max_outage`, may get better: its `retry` makes the browser come back after
    30 s, or as late as the service asks for, at most an hour.

    A task's polls are shared by all its streams, and end when the last browser leaves. HEAD, where the route takes
    it, is answered without a body, and asks the service nothing. An id that is none is answered as
    `InvalidTaskIdError`. `event_route` says to the application's OpenAPI what it answers.
    """
    checked_kind(kind)
    verdict: Any = Depends(authorize)

    async def events(request: Request, task_id: str, is_allowed: Any = verdict) -> Response:
        if not isinstance(is_allowed, bool):
            raise TypeError(f"authorize= must say True or False, not {type(is_allowed).__name__}")
        if not is_allowed:
            raise HTTPException(403)
        last_event_id = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
        stream = _feeds(request).open(kind, task_id, last_event_id)
        if stream is None:
            return Response(status_code=204, headers=sse.HEADERS)
        return EventStream((), headers=sse.HEADERS) if request.method == "HEAD" else _Events(stream)

    return events


class EventStream(StreamingResponse):
    """For `event_route`: a response of server-sent events."""

    media_type = sse.CONTENT_TYPE


#: What a route of `task_events` takes besides its path, for the application's OpenAPI:
#: `app.get(path, **event_route)`.
event_route: Mapping[str, Any] = {
    "response_class": EventStream,
    "response_description": "The task's events",
    "responses": {
        204: {"description": "All events were told"},
        400: {"description": "The id of no task", "content": {CONTENT_TYPE: {"schema": {"type": "object"}}}},
        403: {"description": "This request may not see this task"},
    },
}


async def _answer(_request: Request, error: DistributeError) -> Response:
    problem = logged_problem_of(error)
    return Response(problem.body, problem.status, problem.headers, CONTENT_TYPE)


#: What FastAPI takes as `exception_handlers=`: answers our errors with a fitting status code and a problem (RFC 9457)
#: in fixed words, without what the service said. 5xx are logged under `distribute_async.integrations`.
exception_handlers: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]]
exception_handlers = {DistributeError: _answer}


class _Events(EventStream):
    """Ends as soon as the browser has gone, whatever version of ASGI the server speaks, and closes its stream."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, headers=sse.HEADERS)
        self._stream = stream

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            try:
                while (await receive())["type"] != "http.disconnect":
                    pass
            finally:
                self._stream.close()

        async def write(message: Any) -> None:
            await self._stream.written(send(message))

        listening = asyncio.create_task(listen())
        try:
            await self.stream_response(write)
        except OSError:
            pass  # how newer versions of ASGI say that the browser has gone; or it takes nothing as all stops
        finally:
            self._stream.close()
            listening.cancel()
            await asyncio.wait([listening])


def _feeds(connection: HTTPConnection) -> Feeds:
    for holder in (connection.app.state, connection.scope.get("router")):
        feeds = getattr(holder, "distribute_feeds", None)
        if isinstance(feeds, Feeds):
            return feeds
    raise RuntimeError(
        "this application has no client: give it lifespan=lifespan(), or the outermost one where it is mounted; "
        "see distribute_async"
    )


@contextmanager
def _signalled(tell: Callable[[], None]) -> Generator[None, None, None]:
    """Call `tell` on the loop at SIGINT and SIGTERM, besides what happens then."""
    if threading.current_thread() is not threading.main_thread():  # no signals come here
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell)
        before[number](number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if callable(handler):  # neither ignored nor deadly by default
            before[number] = handler
            signal.signal(number, handle)
    try:
        yield
    finally:
        for ours, theirs in before.items():
            if signal.getsignal(ours) is handle:
                signal.signal(ours, theirs)
