"""One reader's view of one task: iterate, await, look. Its deadline is its own; the polls are shared (`poller`).

A `Watch` is an object with `__anext__`, not an async generator: nothing is ever yielded inside a timeout (PEP 789),
and leaving a loop early needs no clean-up, because nothing runs unless somebody is suspended here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Protocol, TypeVar, cast

from attrs import evolve

from distribute_async._engine.observer import Hearing
from distribute_async._engine.poller import Poller
from distribute_async._engine.subscription import HISTORY, Track, closed
from distribute_async._policy.task_state import Prior
from distribute_async._wire.errors import DistributeError, TaskFailedError
from distribute_async._wire.models import R, Transition
from distribute_async._wire.status import TaskStatus

T = TypeVar("T")


class Source(Protocol[R]):
    """Where a watch finds its track, at its first use."""

    def follow(self, task_id: str) -> tuple[Poller, Track[R]]:
        """The poller and the track for an id. Raises where the client can't work."""


_UNHEARD = nullcontext()


class _Suspension(asyncio.Future[None]):
    """A watch that is suspended on its track; woken to look again."""

    __slots__ = ("deadline", "prior", "refusal", "since", "wants_all")

    is_away = False

    def __init__(self, since: float, prior: Prior, deadline: float, *, wants_all: bool) -> None:
        super().__init__()
        self.since = since
        self.prior = prior
        self.deadline = deadline
        self.wants_all = wants_all
        self.refusal: DistributeError | None = None

    def wake(self) -> None:
        if not self.done():
            self.set_result(None)

    def refuse(self, error: DistributeError) -> None:
        self.refusal = error
        self.wake()

    def missed(self) -> None:
        """Never: it is suspended as long as it waits."""


def _status(transition: Transition[Any]) -> TaskStatus:
    return cast("TaskStatus", transition.status)  # a track keeps no other ones


def as_given(transition: Transition[R], task_id: str) -> Transition[R]:
    """A transition as it is told to somebody who gave the id so: the letters of one id may be of either case."""
    return transition if transition.task_id == task_id else evolve(transition, task_id=task_id)


class Watch(Generic[R]):
    """One task, followed to its end. Made by `client.watch(id)`; one object, three ways to use it.

    - `async for status in watch`: each change of status once, the first one seen included. Ends after the terminal
      status (ERROR too, without raising). There is one cursor: a second loop goes on where the first one stopped, and
      two at once are a `RuntimeError`. `async for transition in watch.transitions()` is the same with all that is known
      of each change, on the same cursor.
    - `await watch`: the `ChatResult` (or the model of the kind of task); raises `TaskFailedError` where the task ended
      in ERROR. Repeatable, with the same ending; doesn't move the cursor.
    - `status`, `latest`, `result`, `history`: what is known now.

    Both ways of waiting raise `WaitTimeoutError` once the watch's timeout has passed, which starts at the first
    `await` or iteration and runs through the loop's body; the typed error that ends a wait otherwise
    (`NotFoundError`, `AuthenticationError`, the last transient fault after `Retry.max_outage`, …); and
    `ClientClosedError`.
    """

    __slots__ = (
        "__weakref__", "_cursor", "_failure", "_first", "_hearing", "_is_iterating", "_poller", "_prior",
        "_source", "_started", "_task_id", "_timeout", "_track",
    )  # fmt: skip

    def __init__(self, source: Source[R], task_id: str, timeout: float) -> None:
        self._source = source
        self._task_id = task_id
        self._timeout = timeout
        self._poller: Poller | None = None
        self._track: Track[R] | None = None
        self._started = 0.0
        self._prior: Prior = (0, 0.0)
        self._first = 0
        self._cursor = 0
        self._is_iterating = False
        self._failure: DistributeError | None = None
        self._hearing: Hearing | None = None

    def __repr__(self) -> str:
        return f"<Watch {self._task_id} {self.status or 'not asked yet'}>"

    @property
    def task_id(self) -> str:
        """The task."""
        return self._task_id

    @property
    def id(self) -> str:
        """The task: another name for `task_id`."""
        return self._task_id

    @property
    def latest(self) -> R | None:
        """The newest response, whatever its status; None before the first."""
        return None if self._track is None else self._track.walk.result

    @property
    def result(self) -> R | None:
        """The result once the task is over, COMPLETED or ERROR; None until then, and where only the wait ended."""
        latest = self.latest
        return latest if latest is not None and latest.is_over else None

    @property
    def status(self) -> TaskStatus | None:
        """The newest status seen; None before the first answer."""
        return None if self._track is None else self._track.walk.status

    @property
    def history(self) -> tuple[Transition[R], ...]:
        """The transitions since this watch began, the newest 1,000 of them."""
        if self._track is None:
            return ()
        return tuple(self.as_given(change) for change in self._track.since(self._first)[-HISTORY:])

    def __aiter__(self) -> Watch[R]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, TaskStatus]:
        return self.next_change(_status)

    def transitions(self) -> AsyncIterator[Transition[R]]:
        """Iterate with a `Transition` for each change. It moves the watch's one cursor, and ends as an iteration does.

        Needs no clean-up either: it is an object and no generator.
        """
        return _Transitions(self)

    def as_given(self, transition: Transition[R]) -> Transition[R]:
        """A transition with the id as this watch was given it. For this library's own use."""
        return as_given(transition, self._task_id)

    async def next_change(self, view: Callable[[Transition[R]], T]) -> T:
        """What one step of an iteration gives: the next transition, seen in this way. For this library's own use."""
        if self._is_iterating:
            raise RuntimeError(
                "this watch is being iterated already: a watch has one cursor, make another for another loop"
            )
        self._is_iterating = True
        try:
            track = await self._wait(wants_all=True)
        finally:
            self._is_iterating = False
        if self._cursor == track.seen:
            raise StopAsyncIteration
        # A reader that fell more than the kept history behind goes on with the oldest change that is kept.
        self._cursor = max(self._cursor, track.forgotten) + 1
        return view(track.history[self._cursor - track.forgotten - 1])

    def __await__(self) -> Generator[Any, None, R]:
        return self.last_word().__await__()

    async def last_word(self) -> R:
        """What awaiting this gives. For this library's own use, where it saves an object for each wait."""
        if self._failure is not None:
            raise self._failed(self._failure)
        track = await self._wait(wants_all=False)
        result = track.walk.result
        assert result is not None  # noqa: S101 - a walk that is over without an error has one
        if result.is_failed and not track.walk.single:
            raise self._told(TaskFailedError(result))
        return result

    async def _wait(self, *, wants_all: bool) -> Track[R]:
        """Until there is a change that the cursor hasn't passed (`wants_all`), or the end."""
        is_new = self._poller is None
        poller, track = self._follow()
        deadline = self._started + self._timeout
        # One coroutine and not two, which would be dear: there may be ten thousand of them.
        with self._hear(poller, track):
            while not (wants_all and self._cursor < track.seen):
                # The order matters: what is known already comes before the deadline; a failure stays what it was.
                failure = self._failure or track.walk.error
                if failure is None and poller.is_closed and not track.walk.is_over:
                    failure = closed()
                if failure is not None:
                    raise self._failed(failure)
                if track.walk.is_over:
                    break
                if poller.time() >= deadline:
                    self._failure = track.walk.timed_out(self._timeout)
                    continue
                waiter = _Suspension(self._started, self._prior, deadline, wants_all=wants_all)
                poller.join(track, waiter, is_new=is_new)
                is_new = False
                poller.callers += 1
                try:
                    await waiter
                finally:
                    poller.callers -= 1
                    await poller.leave(track, waiter)
                self._failure = waiter.refusal or self._failure
        # An iteration is over as it gives its last status: few readers come back for the end of the loop.
        if self._hearing is not None and not (wants_all and self._cursor + 1 < track.seen):
            self._tell_end(track, self._hearing)
        return track

    def _hear(self, poller: Poller, track: Track[R]) -> AbstractContextManager[object]:
        """What tells telemetry of a suspension, where there is any."""
        if poller.telemetry is None or track.trace is None:
            return _UNHEARD
        if self._hearing is None or self._hearing.is_interrupted:
            self._hearing = poller.telemetry.hear(
                track,
                kind=track.endpoint.name,
                task_id=self._task_id,
                is_fetch=track.walk.single and track.walk.is_read,
                is_create=not track.walk.is_read,
            )
        return self._hearing

    def _tell_end(self, track: Track[R], hearing: Hearing) -> None:
        result = track.walk.result
        if not track.walk.is_over or track.walk.error is not None or result is None:
            return
        if result.is_failed and not track.walk.single:
            hearing.end("error", self._told(TaskFailedError(result)))
        else:
            hearing.end("result")

    def _follow(self) -> tuple[Poller, Track[R]]:
        if self._poller is not None:
            self._poller.check_loop()
        if self._poller is None or self._track is None:
            self._poller, self._track = self._source.follow(self._task_id)
            self._started = self._poller.time()
            self._prior = self._track.walk.so_far(self._started)
            # Joining others, begin with the newest status that they know.
            self._first = self._cursor = max(0, self._track.seen - 1)
        return self._poller, self._track

    def _failed(self, error: DistributeError) -> DistributeError:
        """What to raise for the error that ends this wait."""
        told = self._told(error)
        if self._hearing is not None:
            self._hearing.end("error", told)
        return told

    def _told(self, error: DistributeError) -> DistributeError:
        if self._poller is None or self._track is None:
            return error.with_context(task_id=self._task_id, last_status=None, attempts=0, elapsed=0.0)
        return self._track.told(error, self._task_id, self._poller.time() - self._started)


class _Transitions(Generic[R]):
    """What `Watch.transitions` gives."""

    __slots__ = ("_watch",)

    def __init__(self, watch: Watch[R]) -> None:
        self._watch = watch

    def __aiter__(self) -> _Transitions[R]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Transition[R]]:
        return self._watch.next_change(self._watch.as_given)
