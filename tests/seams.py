"""Where tests reach behind the public face: the only module beside the unit tests of a room that may.

A test that needs something private asks for it here, so that the next move of a module costs one line. `Listener` is
the one seam of the random runs: it hears what is followed, carries the requests, and hears what came of them.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from unittest import mock
from weakref import WeakSet

import aiohttp

from distribute_async import ChatResult, DistributeClient, DistributeError, Watch
from distribute_async._api import shared
from distribute_async._api.client import Tasks
from distribute_async._engine import exchanges
from distribute_async._engine.engine import Engine
from distribute_async._engine.http import HttpSession, Response
from distribute_async._engine.kinds import CHAT, Kind
from distribute_async._engine.poller import Poller
from distribute_async._engine.subscription import Exchange, Subscription
from distribute_async._engine.subscription_states import TRANSITIONS
from distribute_async._policy.faults import (
    RULES,
    UNUSABLE,
    Action,
    Fault,
    HealthSignal,
    Reply,
    Rule,
    pause_of,
    rule_for,
)
from distribute_async._wire import codec
from distribute_async._wire.codec import status_error

ResponseOrError = Response | DistributeError
MaySend = Callable[[], bool]
#: Sends a request over a socket.
Send = Callable[[MaySend], Awaitable[ResponseOrError]]
# The fault table and that of a subscription's states are pure values, which tests and documentation read as they are.
__all__ = ["RULES", "TRANSITIONS", "UNUSABLE", "Action", "HealthSignal", "Rule", "pause_of", "rule_for"]

#: What stands in for the network: (path, body, may_send) → a response, or the error that it came to.
Transport = Callable[[str, bytes, MaySend], Awaitable[ResponseOrError]]


def ok(body: bytes) -> Response:
    """A response with status code 200."""
    return Response(200, {}, body)


def response(status_code: int, headers: Mapping[str, str], body: bytes) -> ResponseOrError:
    """What a client's transport makes of such a response: an error, unless the status code is 200."""
    return Response(200, headers, body) if status_code == 200 else status_error(status_code, headers, body)


@contextmanager
def transport(replacement: Transport) -> Iterator[None]:
    """Every client sends its requests here instead of over a socket."""

    async def post(
        http: HttpSession,
        path: str,
        content: bytes,
        extra: object = None,
        may_send: MaySend = lambda: True,
    ) -> ResponseOrError:
        return await replacement(path, content, may_send)

    with mock.patch.object(HttpSession, "post", post):
        yield


@contextmanager
def before_each_request(call: Callable[[], None]) -> Iterator[None]:
    """Every client calls this before a request leaves, which goes over a socket as usual."""
    real = HttpSession.post

    async def post(http: HttpSession, *arguments: Any) -> ResponseOrError:
        call()
        return await real(http, *arguments)

    with mock.patch.object(HttpSession, "post", post):
        yield


class Listener(Protocol):
    """Hears what a client follows and what its exchanges come to, and carries its requests."""

    def subscribed(self, engine: Engine, subscription: Subscription[Any]) -> None:
        """Somebody is about to wait on this."""

    def replied(self, exchange: Exchange, error: DistributeError | None) -> None:
        """An exchange has ended, in this error if any."""

    async def carry(self, exchange: Exchange, send: Send, content: bytes, may_send: MaySend) -> ResponseOrError:
        """Carry a request: `send` does it over a socket."""


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Every client is heard as long as the context lasts."""
    follow, fetch, submit, replied, post = Engine.follow, Engine.fetch, Engine.submit, Poller.replied, HttpSession.post
    engines: WeakSet[Engine] = WeakSet()

    def heard(method: Callable[..., Subscription[Any]]) -> Callable[..., Subscription[Any]]:
        def subscribe(engine: Engine, *arguments: Any) -> Subscription[Any]:
            subscription = method(engine, *arguments)
            engines.add(engine)
            listener.subscribed(engine, subscription)
            return subscription

        return subscribe

    def heard_replied(poller: Poller, exchange: Exchange, reply: Reply[Any] | None) -> None:
        listener.replied(exchange, reply.error if isinstance(reply, Fault) else None)
        replied(poller, exchange, reply)

    def current_exchange() -> Exchange:
        task = asyncio.current_task()
        under_way = (exchange for engine in engines for exchange in engine._poller._exchanges._under_way)
        return next(exchange for exchange in under_way if exchange.task is task)

    async def heard_post(
        http: HttpSession, path: str, content: bytes, extra: Any, may_send: MaySend
    ) -> ResponseOrError:
        def send(may_send: MaySend) -> Awaitable[ResponseOrError]:
            return post(http, path, content, extra, may_send)

        return await listener.carry(current_exchange(), send, content, may_send)

    with (
        mock.patch.object(Engine, "follow", heard(follow)),
        mock.patch.object(Engine, "fetch", heard(fetch)),
        mock.patch.object(Engine, "submit", heard(submit)),
        mock.patch.object(Poller, "replied", heard_replied),
        mock.patch.object(HttpSession, "post", heard_post),
    ):
        yield


def subscription_of(watch: Watch[Any]) -> Subscription[Any] | None:
    """What a watch waits on; None before its first use."""
    return None if watch._wait is None else watch._wait.subscription


def leftovers(engine: Engine) -> dict[str, object]:
    """What an engine still holds, by what it is; everything is empty once nobody waits."""
    if any(engine._known.values()):
        gc.collect()
    left: dict[str, object] = {name: count for name, count in engine.diagnostics().items() if count}
    session = engine._poller.http._own
    if session is not None and session.connector is not None:
        left["connections in use"] = len(session.connector._acquired)
    return left


def has_open_session(engine: Engine) -> bool:
    """Whether an engine's own aiohttp session is open."""
    return engine._poller.http._own is not None


def shared_engine() -> Engine:
    """The engine of the module-level functions on the running loop; whoever keeps it keeps what it knows."""
    return shared._shared_engine()


def http_of(client: DistributeClient) -> HttpSession:
    """What sends a client's requests."""
    return client._state.http


def session_of(client: DistributeClient) -> aiohttp.ClientSession | None:
    """The aiohttp session that a client uses: the one passed to it, or its own once it has one."""
    return http_of(client)._given or http_of(client)._own


def own_session_of(client: DistributeClient) -> aiohttp.ClientSession | None:
    """The aiohttp session that a client made for itself."""
    return http_of(client)._own


def poller_of(client: DistributeClient) -> Poller:
    """What polls for a client that was used."""
    assert client._state.running is not None
    return client._state.running._poller


def subscription_to(client: DistributeClient, task_id: str) -> Subscription[Any]:
    """What a client's waits on a chat task hang on."""
    return client._state.engine().follow(CHAT.result, task_id)


def tasks_of(client: DistributeClient, kind: Kind[Any, Any]) -> Tasks[Any, Any]:
    """A client's tasks of a kind that it has no attribute for."""
    return Tasks(client._state, kind)


def shared_engines() -> list[Engine]:
    """The engines of the module-level functions that are alive, on all loops."""
    gc.collect()
    return [engine for _, reference in shared._engines.values() if (engine := reference()) is not None]


def has_shared_engine(loop: object) -> bool:
    """Whether the module-level functions were ever used on a loop."""
    return loop in shared._engines


# The codec.


def decoded(status_code: int, headers: Mapping[str, str], body: bytes) -> ChatResult | DistributeError:
    """What the codec makes of a response to the poll of a chat task."""
    return codec.decode(status_code, headers, body, ChatResult)


def is_using_orjson() -> bool:
    """Whether the codec reads JSON with orjson. It looks for orjson once, and keeps to what it found."""
    return codec._orjson_loads() is not None


def clear_json_choice() -> None:
    """Make the codec look for orjson again."""
    codec._orjson_loads.cache_clear()


@contextmanager
def decoding_raises(error: type[Exception]) -> Iterator[None]:
    """In this context the codec breaks with `error`, as it would by a mistake in the library."""
    with mock.patch.object(exchanges, "decode", side_effect=error):
        yield
