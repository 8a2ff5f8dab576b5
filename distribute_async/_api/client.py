"""`DistributeClient`: puts the parts together. The only module that knows them all; used by users and `shared`."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Concatenate, Generic, Self, TypeVar, overload

import aiohttp

from distribute_async._api.client_state import ClientState
from distribute_async._api.id_source import Ids
from distribute_async._api.stream import Changes, Completions, TaskStream
from distribute_async._api.stream_state import WINDOW
from distribute_async._api.wait import Wait
from distribute_async._api.watch import Watch
from distribute_async._engine.credentials import secret, secret_key
from distribute_async._engine.kinds import CHAT, IMAGES, KINDS, SPEECH, Kind, P
from distribute_async._engine.observer import Observer, Stats
from distribute_async._engine.subscription import Subscription
from distribute_async._policy.adaptive import LearnedPacing
from distribute_async._policy.pacing import Pacing
from distribute_async._policy.settings import DEFAULT_TIMEOUT, Limits, Retry
from distribute_async._wire.arguments import DEFAULT, Default
from distribute_async._wire.errors import ConfigurationError
from distribute_async._wire.ids import checked_id
from distribute_async._wire.models import ChatResult, Outcome, R, Transition
from distribute_async._wire.requests import ChatRequest

T = TypeVar("T")


class Tasks(Generic[P, R]):
    """One kind of task of a client, such as `client.chat`."""

    __slots__ = ("_client", "_kind")

    def __init__(self, client: ClientState, kind: Kind[P, R]) -> None:
        self._client = client
        self._kind = kind

    def __repr__(self) -> str:
        return f"<{self._kind.name} tasks of {self._client!r}>"

    async def submit(self, *args: P.args, **fields: P.kwargs) -> Watch[R]:
        """Create a task; gives its `Watch`, whose `task_id` should be kept where a restart doesn't lose it.

        `fields`: those of `ChatRequest`, `ImageRequest` or `SpeechRequest`, which check them before anything is sent
        and raise `InvalidRequestError`; `extra_body` for others. `timeout` (seconds, None for none; the client's by
        default) is for the submission and again for the watch.

        The request is sent again, up to `Retry.attempts` times, only where it surely never reached the service
        (nothing was sent, 429, 503). Where it may have, and no response tells, that is a `SubmitUncertainError`: nobody
        can know whether there is a task now. Other refusals are raised as they are.
        """
        request = self._kind.request_type(*args, **fields)
        engine = self._client.engine()
        subscription = engine.submit(self._kind.create, request.body())
        task_id = await Wait(engine, subscription, None, self._client.seconds(request.timeout)).end()
        return self.watch(task_id, timeout=request.timeout)

    async def submit_and_wait(self, *args: P.args, **fields: P.kwargs) -> R:
        """Create a task and wait for its result: `submit`, and `await` what it gives; raises what both raise.

        An error from the wait has the `task_id`, so that one can go on waiting for it.
        """
        return await (await self.submit(*args, **fields))

    def watch(self, task_id: str | uuid.UUID, *, timeout: float | Default | None = DEFAULT) -> Watch[R]:
        """Follow a task: see `Watch`. Nothing is sent before the first `await` or iteration.

        `timeout`: seconds for the whole wait, None for none; the client's by default. Raises `InvalidTaskIdError`
        for an id that the specification refuses, `ConfigurationError` for a timeout that is no number.
        """
        return Watch(self._client.engine, self._kind.result, checked_id(task_id), self._client.seconds(timeout))

    async def wait_for_result(self, task_id: str | uuid.UUID, *, timeout: float | Default | None = DEFAULT) -> R:
        """Wait until a task is COMPLETED and return its result.

        `timeout`: seconds for the whole wait, None for none; the client's by default. Raises what `await watch` raises
        (see `Watch`), `TaskFailedError` where the task ended in ERROR.
        """
        return await self.watch(task_id, timeout=timeout)

    async def fetch(self, task_id: str | uuid.UUID, *, timeout: float | Default | None = DEFAULT) -> R:
        """One poll: how the task stands now, whatever its status; the response is never older than the call.

        Transient faults are tried again, `Retry.attempts` times in all; then the last one is raised. A 404 raises
        `NotFoundError` at once. `timeout` (seconds, None for none; the client's by default) covers all attempts
        and raises `WaitTimeoutError`.
        """
        text, seconds = checked_id(task_id), self._client.seconds(timeout)
        engine = self._client.engine()
        subscription: Subscription[R] = engine.fetch(self._kind.result, text)
        return await Wait(engine, subscription, text, seconds).end()

    def as_completed(
        self, ids: Ids, *, timeout: float | Default | None = DEFAULT, window: int = WINDOW
    ) -> TaskStream[Outcome[R]]:
        """Follow many tasks: an `Outcome` of each as it ends, none lost. See `TaskStream`.

        `ids`: any iterable or async iterable of them, endless too; taken as there is room among the `window` that are
        followed at once. `timeout`: seconds for each task from when it is taken, None for none; the client's by
        default. An error, a timeout too, is the outcome of its task and doesn't end the others. Raises
        `ConfigurationError` for arguments that can't work.
        """
        return TaskStream(
            Completions(
                self._client.engine, self._kind.result, ids, timeout=self._client.seconds(timeout), window=window
            )
        )

    def watch_many(
        self, ids: Ids, *, timeout: float | Default | None = DEFAULT, window: int = WINDOW
    ) -> TaskStream[Transition[R]]:
        """Follow many tasks: each `Transition` of any of them as it comes. Arguments as for `as_completed`.

        A task that ends in ERROR has that as its last transition. Where following a task ends early, the last one has
        the reason in `error`, and no status.
        """
        return TaskStream(
            Changes(self._client.engine, self._kind.result, ids, timeout=self._client.seconds(timeout), window=window)
        )


class TasksOf(Generic[P, R]):
    """The attribute of a client for a kind of task."""

    def __init__(self, kind: Kind[P, R]) -> None:
        self._kind = kind
        self.__doc__ = f"{kind.name.capitalize()} tasks: see `Tasks`."

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...

    @overload
    def __get__(self, client: DistributeClient, owner: type) -> Tasks[P, R]: ...

    def __get__(self, client: DistributeClient | None, owner: type) -> Self | Tasks[P, R]:
        # Made anew each time: one that is kept would keep the client from going with its last user.
        return self if client is None else Tasks(client._state, self._kind)  # noqa: SLF001 - of its own owner


def _takes(_: Callable[P, object]) -> Callable[[Callable[..., T]], Callable[Concatenate[Any, P], T]]:
    """For type checkers: a method takes the fields of this request."""
    return lambda method: method


class DistributeClient:
    """A client of Distribute.AI's queued inference. Belongs to one event loop; one for a whole service is right.

    Use it with `async with`, or `await client.close()` in the end: that ends running waits with `ClientClosedError`.

    - `api_key`: else from the environment's DISTRIBUTE_API_KEY. `auth_scheme`: a word before it, such as "Bearer",
      for gateways that want one; the service takes the bare key.
    - `base_url`: else from DISTRIBUTE_BASE_URL, else the specification's server. May have a path (a gateway's
      prefix). Plain http is refused for anything but this machine unless `allow_insecure`.
    - `timeout`: seconds for one whole wait where the call gives none; 600 by default, None for none.
    - `session`: your `aiohttp.ClientSession`, used and never closed or changed; its proxy and TLS are your affair.
    - `pacing`, `retry`, `limits`: see `Pacing`, `Retry`, `Limits`.
    - `headers`: sent with each request besides ours.
    - `proxy`: the URL of an HTTP proxy; the environment's is not used. `ssl_context`: to trust a private authority.
    - `observer`: an `Observer`, which is called with what happens: for telemetry.

    Raises `ConfigurationError` for what can't work; nothing is sent or opened before the first call.
    """

    #: Chat tasks, which the client's own methods are short for.
    chat = TasksOf(CHAT)
    #: Image tasks.
    images = TasksOf(IMAGES)
    #: Audio tasks.
    speech = TasksOf(SPEECH)

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        session: aiohttp.ClientSession | None = None,
        pacing: Pacing | None = None,
        retry: Retry | None = None,
        limits: Limits | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        auth_scheme: str | None = None,
        allow_insecure: bool = False,
        observer: Observer | None = None,
    ) -> None:
        # From here on no frame of this library that an error can go through shows the key, or a proxy's, in its locals.
        api_key, proxy = secret_key(api_key), secret(proxy)
        self._state = ClientState(
            api_key,
            base_url=base_url,
            timeout=timeout,
            session=session,
            pacing=pacing,
            retry=retry,
            limits=limits,
            headers=headers,
            proxy=proxy,
            ssl_context=ssl_context,
            auth_scheme=auth_scheme,
            allow_insecure=allow_insecure,
            observer=observer,
        )

    def __repr__(self) -> str:
        state: ClientState | None = getattr(self, "_state", None)
        if state is None:  # its settings were refused, and a traceback shows its locals
            return "<DistributeClient for nowhere>"
        return repr(state)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, *, grace: float = 0.0) -> None:
        """End all running waits with `ClientClosedError` and close the connections. Harmless the second time.

        `grace`: seconds in which creates whose request is under way may come to their own end first, so that their
        callers learn the id; 0 by default. What is cut then, or by a second `close`, ends in `SubmitUncertainError`
        where the request may have arrived. Raises `ConfigurationError` for a grace that is no number of 0 or more.
        """
        await self._state.close(grace)

    @_takes(ChatRequest)
    async def submit(self, **fields: Any) -> Watch[ChatResult]:
        """Short for `client.chat.submit`: see `Tasks.submit`; the fields are those of `ChatRequest`."""
        return await self.chat.submit(**fields)

    @_takes(ChatRequest)
    async def submit_and_wait(self, **fields: Any) -> ChatResult:
        """Short for `client.chat.submit_and_wait`: see `Tasks.submit_and_wait`."""
        return await self.chat.submit_and_wait(**fields)

    def watch(self, task_id: str | uuid.UUID, *, timeout: float | Default | None = DEFAULT) -> Watch[ChatResult]:
        """Short for `client.chat.watch`: see `Tasks.watch`."""
        return self.chat.watch(task_id, timeout=timeout)

    async def wait_for_result(
        self, task_id: str | uuid.UUID, *, timeout: float | Default | None = DEFAULT
    ) -> ChatResult:
        """Short for `client.chat.wait_for_result`: see `Tasks.wait_for_result`."""
        return await self.chat.watch(task_id, timeout=timeout)

    async def fetch(self, task_id: str | uuid.UUID, *, timeout: float | Default | None = DEFAULT) -> ChatResult:
        """Short for `client.chat.fetch`: see `Tasks.fetch`."""
        return await self.chat.fetch(task_id, timeout=timeout)

    def as_completed(
        self, ids: Ids, *, timeout: float | Default | None = DEFAULT, window: int = WINDOW
    ) -> TaskStream[Outcome[ChatResult]]:
        """Short for `client.chat.as_completed`: see `Tasks.as_completed`."""
        return self.chat.as_completed(ids, timeout=timeout, window=window)

    def watch_many(
        self, ids: Ids, *, timeout: float | Default | None = DEFAULT, window: int = WINDOW
    ) -> TaskStream[Transition[ChatResult]]:
        """Short for `client.chat.watch_many`: see `Tasks.watch_many`."""
        return self.chat.watch_many(ids, timeout=timeout, window=window)

    def tasks(self, kind: str) -> Tasks[..., Any]:
        """The tasks of a kind, where its name is data: `client.tasks("images")` is `client.images`.

        Raises `ConfigurationError` for a kind that there isn't.
        """
        found = KINDS.get(kind) if isinstance(kind, str) else None
        if found is None:
            raise ConfigurationError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        return Tasks(self._state, found)

    def stats(self) -> Stats:
        """What this client is doing now and has done since its first use; of its own, without any telemetry."""
        return self._state.stats()

    def pacing_report(self) -> tuple[LearnedPacing, ...]:
        """What was learned of when tasks end, by kind, model and phase; nothing without `Pacing.learned`."""
        return self._state.pacing_report()
