"""The module-level functions, such as `wait_for_result`: a client of the environment, shared on each event loop.

The calls of one event loop use one client, so that they share polls, pauses and connections. Its connections are
open only while somebody is suspended in one of these calls, or what a stream left under way hasn't ended. The client is
freed with the last `Watch` or stream that refers to it.
"""

from __future__ import annotations

import asyncio
import os
import uuid
import weakref

from distribute_async._api.client import DistributeClient
from distribute_async._api.client_state import ClientState
from distribute_async._api.id_source import Ids
from distribute_async._api.stream import Changes, Completions, TaskStream
from distribute_async._api.stream_state import WINDOW
from distribute_async._api.wait import Wait
from distribute_async._api.watch import Watch
from distribute_async._engine.address import BASE_URL_VARIABLE
from distribute_async._engine.credentials import Secret, secret_key
from distribute_async._engine.engine import Engine
from distribute_async._engine.kinds import CHAT
from distribute_async._engine.subscription import Subscription
from distribute_async._policy.settings import DEFAULT_TIMEOUT
from distribute_async._wire.arguments import DEFAULT, Default, wait_timeout
from distribute_async._wire.ids import checked_id
from distribute_async._wire.models import ChatResult, Outcome, Transition

_Environment = tuple[Secret | None, str | None]

# Weak both ways: this remembers nobody's loop and keeps no engine alive.
_engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[_Environment, weakref.ref[Engine]]] = (
    weakref.WeakKeyDictionary()
)


def _shared_engine() -> Engine:
    """The one that polls for all module-level calls on the running loop; its waits alone keep it."""
    loop = asyncio.get_running_loop()
    environment = secret_key(None), os.environ.get(BASE_URL_VARIABLE)
    made_from, reference = _engines.get(loop, (None, None))
    engine = None if reference is None else reference()
    # An old one may linger in a traceback: tests on one loop would meet their predecessor's service.
    if engine is None or made_from != environment:
        engine = ClientState(secret_key(None), closes_when_idle=True).engine()
        _engines[loop] = environment, weakref.ref(engine)
    return engine


def _seconds(timeout: float | Default | None) -> float:
    return DEFAULT_TIMEOUT if timeout is DEFAULT else wait_timeout(timeout)


def watch(
    task_id: str | uuid.UUID,
    *,
    timeout: float | Default | None = DEFAULT,
    client: DistributeClient | None = None,
) -> Watch[ChatResult]:
    """Follow a chat task: see `Watch` and `Tasks.watch`.

    Without `client` the settings come from the environment (DISTRIBUTE_API_KEY, DISTRIBUTE_BASE_URL), read at the
    first `await` or iteration, which raises `ConfigurationError` where they can't work. `timeout`: seconds for the
    whole wait, None for none; 600 by default, or the client's.
    """
    if client is not None:
        return client.watch(task_id, timeout=timeout)
    return Watch(_shared_engine, CHAT.result, checked_id(task_id), _seconds(timeout))


async def wait_for_result(
    task_id: str | uuid.UUID,
    *,
    timeout: float | Default | None = DEFAULT,
    client: DistributeClient | None = None,
) -> ChatResult:
    """Wait until a chat task is COMPLETED and return its result; `TaskFailedError` where it ended in ERROR.

    `client` and `timeout` as for `watch`; raises what `await watch` raises (see `Watch`).
    """
    return await watch(task_id, timeout=timeout, client=client)


async def fetch(
    task_id: str | uuid.UUID,
    *,
    timeout: float | Default | None = DEFAULT,
    client: DistributeClient | None = None,
) -> ChatResult:
    """One poll of a chat task, whatever its status: see `Tasks.fetch`. `client` and `timeout` as for `watch`."""
    if client is not None:
        return await client.fetch(task_id, timeout=timeout)
    text, seconds, engine = checked_id(task_id), _seconds(timeout), _shared_engine()
    subscription: Subscription[ChatResult] = engine.fetch(CHAT.result, text)
    return await Wait(engine, subscription, text, seconds).end()


def as_completed(
    ids: Ids,
    *,
    timeout: float | Default | None = DEFAULT,
    window: int = WINDOW,
    client: DistributeClient | None = None,
) -> TaskStream[Outcome[ChatResult]]:
    """Follow many chat tasks to their ends: see `Tasks.as_completed`.

    `client` as for `watch`. `timeout`: seconds for each task from when it is taken, None for none; 600 by default, or
    the client's.
    """
    if client is not None:
        return client.as_completed(ids, timeout=timeout, window=window)
    return TaskStream(Completions(_shared_engine, CHAT.result, ids, timeout=_seconds(timeout), window=window))


def watch_many(
    ids: Ids,
    *,
    timeout: float | Default | None = DEFAULT,
    window: int = WINDOW,
    client: DistributeClient | None = None,
) -> TaskStream[Transition[ChatResult]]:
    """Follow the transitions of many chat tasks: see `Tasks.watch_many`. Arguments as for `as_completed`."""
    if client is not None:
        return client.watch_many(ids, timeout=timeout, window=window)
    return TaskStream(Changes(_shared_engine, CHAT.result, ids, timeout=_seconds(timeout), window=window))
