"""For the tests of waiting: ids, answers, clients whose waits are exact, and what a wait may have left behind."""

from __future__ import annotations

import asyncio
import functools
import traceback
from collections.abc import AsyncIterable, Awaitable, Collection
from typing import Any, TypeVar

import aiohttp
import pytest

from distribute_async import DistributeClient, DistributeError, Pacing
from tests.misbehaving import Behaviour, MisbehavingServer, good
from tests.seams import own_session_of, session_of

ID = "0b7dbd53-71f5-4d2b-9c0e-4dd3a2f7d6f1"
OTHER_ID = "4fd6b0a6-6b6c-4a3e-8f1e-0d8f6a1c2b3d"
KEY = "5ec2e7c0ffee5ec2e7c0ffee5ec2e7c0"
#: One poll a second, exactly: no growth, no chance.
EVERY_SECOND = Pacing(initial=1.0, factor=1.0, max=1.0, jitter=lambda span: span)
#: So rarely that any other poll in a test comes from somewhere else.
RARELY = Pacing(initial=100.0, factor=1.0, max=100.0, jitter=lambda span: span)

T = TypeVar("T")
E = TypeVar("E", bound=DistributeError)


def ids(count: int) -> list[str]:
    """So many task ids, all different."""
    return [f"{n:08x}-0000-4000-8000-000000000000" for n in range(count)]


def body(status: str = "COMPLETED", **fields: Any) -> dict[str, Any]:
    """What the service says of a task with this status; fields to replace or add."""
    message = {"role": "assistant", "content": "the answer"}
    choices = [{"finish_reason": "stop", "index": 0, "message": message}] if status == "COMPLETED" else []
    return {"status": status, "created": 1_700_000_000, "model": "a-model", "choices": choices, **fields}


def says(*statuses: str) -> list[Behaviour]:
    """A script in which each answer shows the next status."""
    return [good(body(status)) for status in statuses]


def new_client(url: str, **settings: Any) -> DistributeClient:
    """A client that polls every second, unless told otherwise."""
    return DistributeClient(KEY, **{"base_url": url, "pacing": EVERY_SECOND, **settings})


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def listed(watch: AsyncIterable[T]) -> list[T]:
    """All that an iteration gives."""
    return [item async for item in watch]


async def caught(waiting: Awaitable[Any], kind: type[E]) -> E:
    """The error in which waiting ends."""
    with pytest.raises(kind) as raised:
        await waiting
    assert_is_ours(raised.value)
    return raised.value


def assert_is_ours(error: DistributeError) -> None:
    """Nothing of a library underneath is in an error or hangs on it, and our frames in its traceback hide the key."""
    assert error.__cause__ is None
    assert error.__context__ is None
    for value in (*error.args, *vars(error).values()):
        assert type(value).__module__.partition(".")[0] in {"builtins", "distribute_async"}, value
        if isinstance(value, DistributeError):
            assert_is_ours(value)
    traced = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in traced.stack if "distribute_async" in frame.filename]
    assert [frame for frame in ours if KEY in repr(frame.locals)] == []
    assert KEY not in "".join(traced.format_exception_only())


async def turns(count: int) -> None:
    """Let the loop turn so many times; no time passes on a virtual clock."""
    for _ in range(count):
        await asyncio.sleep(0)


# What is left behind.


def timers() -> list[asyncio.Handle]:
    """The loop's timers that are still to come, but for a server's own and those that mind idle connections."""
    loop: Any = asyncio.get_running_loop()
    slept_on = {id(getattr(task, "_fut_waiter", None)) for task in asyncio.all_tasks() if _name(task) in _SERVERS}
    return [
        handle
        for handle in loop._scheduled
        if not handle.cancelled() and not _is_of_aiohttp(handle) and slept_on.isdisjoint(map(id, handle._args))
    ]


def _is_of_aiohttp(handle: Any) -> bool:
    callback = handle._callback
    while isinstance(callback, functools.partial):
        callback = callback.func
    return str(callback.__module__) in {"aiohttp.helpers", "aiohttp.web_protocol"}


def tasks(but: Collection[asyncio.Future[Any]] = ()) -> set[str]:
    """The asyncio tasks of this loop `but` the test's own and the servers', by the names of their coroutines."""
    return {_name(task) for task in asyncio.all_tasks() - {asyncio.current_task(), *but}} - _SERVERS


_SERVERS = {
    *("BaseSelectorEventLoop._accept_connection2", "MisbehavingServer._serve"),
    *("RequestHandler._handle_request", "RequestHandler.start"),
}


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", "")


def connections_in_use(client: DistributeClient) -> int:
    """The connections that a client has taken from its pool."""
    session = session_of(client)
    return 0 if session is None else len(connector_of(session)._acquired)


def idle_connections(client: DistributeClient) -> int:
    """The open connections that a client keeps in its own pool for its next requests."""
    session = own_session_of(client)
    pools = {} if session is None else connector_of(session)._conns
    return sum(protocol.is_connected() for pool in pools.values() for protocol, _ in pool)


def connector_of(session: aiohttp.ClientSession) -> aiohttp.BaseConnector:
    """The pool of a session."""
    assert session.connector is not None
    return session.connector


def connections_at(server: MisbehavingServer) -> int:
    """The connections that are open at a server."""
    return len(server.tasks)


def assert_nothing_runs(client: DistributeClient, but: Collection[asyncio.Future[Any]] = ()) -> None:
    """Nothing of the library is under way: no asyncio task, no timer, no connection in use.

    To be asked at once after a wait or `close()` has ended, not some turns of the loop later: what they leave to run
    behind them ends by itself in a few turns, and nobody would know. `but`: waits that have yet to hear of it.
    """
    left = tasks(but) or timers()
    assert not left, left
    assert connections_in_use(client) == 0


async def assert_silence(server: MisbehavingServer, seconds: float = 100.0) -> None:
    """From now on nobody asks and nobody connects, for so many (virtual) seconds."""
    began = now()
    await turns(20)  # what was on its way when the wait ended comes now
    connections = server.connections
    await asyncio.sleep(seconds)
    assert [at for at in server.times if at > began] == []
    assert server.connections == connections
