"""How tests reach private modules of the library. Used by all tests but those of `wire`, `policy` and `engine`.

Those mirror the rooms of the library and import what they test. All others use the public names, and where these don't
suffice, this module: a module or a class that is moved or renamed inside the library is then followed here alone.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import aiohttp

from distribute_async import ChatResult, DistributeClient, DistributeError
from distribute_async._api import shared
from distribute_async._engine import poller
from distribute_async._engine.http import Answer, Session
from distribute_async._engine.subscription import Track
from distribute_async._policy import faults
from distribute_async._policy.faults import RULES, UNUSABLE, Action, Evidence, Rule
from distribute_async._wire import codec

# The fault table is a pure value, which tests read as it is.
__all__ = ["RULES", "UNUSABLE", "Action", "Evidence", "Rule"]

# Faults.


def rule_for(error: DistributeError) -> Rule:
    """The row of the fault table for an error."""
    return faults.rule_for(error)


def pause_of(error: DistributeError) -> float:
    """Seconds for which the service asks with this error to be left alone."""
    return faults.pause_of(error)


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
    with mock.patch.object(poller, "decode", side_effect=error):
        yield


# HTTP exchanges.


@contextmanager
def exchanges_answered_by(answer: Callable[[], Awaitable[bytes | DistributeError]]) -> Iterator[None]:
    """In this context no client uses the network: `answer` gives the body of a 200 response, or what went wrong."""

    async def post(session: Session, path: str, content: bytes, *rest: object) -> Answer | DistributeError:
        outcome = await answer()
        return Answer(200, {}, outcome) if isinstance(outcome, bytes) else outcome

    with mock.patch.object(Session, "post", post):
        yield


@contextmanager
def watched_exchanges(before_each: Callable[[], None]) -> Iterator[None]:
    """In this context `before_each` is called before each HTTP exchange of any client."""
    original = Session.post

    async def post(*args: Any) -> Any:
        before_each()
        return await original(*args)

    with mock.patch.object(Session, "post", post):
        yield


# Clients.


def transport_of(client: DistributeClient) -> dict[str, Any]:
    """The attributes of the object through which a client sends its requests."""
    return vars(client._session)


def session_of(client: DistributeClient) -> aiohttp.ClientSession | None:
    """The aiohttp session that a client uses, its own or the caller's; None while there is none."""
    return client._session._given or client._session._own


def own_session_of(client: DistributeClient) -> aiohttp.ClientSession | None:
    """The aiohttp session that a client has made for itself; None while there is none."""
    return client._session._own


def address_of(client: DistributeClient) -> str:
    """The host and port that a client names where it can't connect."""
    return client._session.address


def live_subscriptions() -> int:
    """How many ids, of all clients, have a state in memory once the garbage has been collected."""
    gc.collect()
    return sum(type(it) is Track for it in gc.get_objects())


# The module-level functions.


def shared_clients() -> list[DistributeClient]:
    """The clients behind the module-level functions that are still alive, of all event loops."""
    return [client for reference in shared._clients.values() if (client := reference()) is not None]


def has_shared_client(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the module-level functions have made a client for this event loop, alive or not."""
    return loop in shared._clients
