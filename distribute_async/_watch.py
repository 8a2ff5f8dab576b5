"""One reader's view of one task: iterate, await, look. Its deadline is its own; the polls are shared (`_poller`).

A `Watch` is an object with `__anext__`, not an async generator: nothing is ever yielded inside a timeout (PEP 789),
and leaving a loop early needs no clean-up, because nothing runs unless somebody is suspended here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, Protocol

from distribute_async._errors import DistributeError, TaskFailedError
from distribute_async._models import R, Transition
from distribute_async._observer import Hearing
from distribute_async._poller import Poller
from distribute_async._status import TaskStatus
from distribute_async._track import HISTORY, Track, closed


class Source(Protocol[R]):
    """Where a watch finds its track, at its first use."""

    def follow(self, task_id: str, *, single: bool) -> tuple[Poller, Track[R]]:
        """The poller and the track for an id. Raises where the client can't work."""


class _Suspension(asyncio.Future[None]):
    """A watch that is suspended on its track; woken to look again."""

    is_away = False

    def __init__(self, deadline: float, *, wants_all: bool) -> None:
        super().__init__()
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


class Watch(Generic[R]):
    """One task, followed to its end. Made by `client.watch(id)`; one object, three ways to use it.

    - `async for status in watch`: each change of status once, the first one seen included. Ends after the terminal
      status (ERROR too, without raising). There is one cursor: a second loop goes on where the first one stopped, and
      two at once are a `RuntimeError`.
    - `await watch`: the `ChatResult` (or the model of the kind of task); raises `TaskFailedError` where the task ended
      in ERROR. Repeatable, with the same ending; doesn't move the cursor.
    - `result`, `status`, `history`: what is known now.

    Both ways of waiting raise `WaitTimeoutError` once the watch's timeout has passed, which starts at the first
    `await` or iteration and runs through the loop's body; the typed error that ends a wait otherwise
    (`NotFoundError`, `AuthenticationError`, the last transient fault after `Retry.max_outage`, …); and
    `ClientClosedError`.
    """

    def __init__(self, source: Source[R], task_id: str, timeout: float, *, single: bool = False) -> None:
        self._source = source
        self._task_id = task_id
        self._timeout = timeout
        self._single = single
        self._poller: Poller | None = None
        self._track: Track[R] | None = None
        self._started = 0.0
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
    def result(self) -> R | None:
        """The newest answer, whatever its status; None before the first."""
        return None if self._track is None else self._track.walk.result

    @property
    def status(self) -> TaskStatus | None:
        """The newest status seen; None before the first answer."""
        return None if self._track is None else self._track.walk.status

    @property
    def history(self) -> tuple[Transition[R], ...]:
        """The transitions since this watch began, the newest 1,000 of them."""
        if self._track is None:
            return ()
        return tuple(self._track.history[max(0, self._first - self._track.forgotten) :][-HISTORY:])

    def __aiter__(self) -> Watch[R]:
        return self

    async def __anext__(self) -> TaskStatus:
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
        return track.history[self._cursor - track.forgotten - 1].result.status  # type: ignore[union-attr]

    def __await__(self) -> Generator[Any, None, R]:
        return self._ending().__await__()

    async def _ending(self) -> R:
        if self._failure is not None:
            raise self._failed(self._failure)
        result = await self.final_answer()
        if result.is_failed:
            raise self._told(TaskFailedError(result))
        return result

    async def final_answer(self) -> R:
        """The last answer, ERROR or not. For this library's own use."""
        track = await self._wait(wants_all=False)
        assert track.walk.result is not None  # noqa: S101 - a walk that is over without an error has one
        return track.walk.result

    async def _wait(self, *, wants_all: bool) -> Track[R]:
        """Until there is a change that the cursor hasn't passed (`wants_all`), or the end."""
        poller, track = self._follow()
        if poller.telemetry is None:
            return await self._look(poller, track, wants_all=wants_all)
        if self._hearing is None or self._hearing.is_interrupted:
            self._hearing = poller.telemetry.hear(
                track, kind=track.endpoint.name, task_id=self._task_id, is_fetch=self._single
            )
        with self._hearing:
            await self._look(poller, track, wants_all=wants_all)
        # An iteration is over as it gives its last status: few readers come back for the end of the loop.
        if track.walk.is_over and track.walk.error is None and not (wants_all and self._cursor + 1 < track.seen):
            result = track.walk.result
            if result is not None and result.is_failed and not self._single:
                self._hearing.end("error", self._told(TaskFailedError(result)))
            else:
                self._hearing.end("result")
        return track

    async def _look(self, poller: Poller, track: Track[R], *, wants_all: bool) -> Track[R]:
        """What `_wait` does, told to nobody."""
        deadline = self._started + self._timeout
        while not (wants_all and self._cursor < track.seen):
            # The order matters: what is known already comes before the deadline, and a failure stays what it was.
            failure = track.walk.error or self._failure
            if failure is None and poller.is_closed and not track.walk.is_over:
                failure = closed()
            if failure is not None:
                raise self._failed(failure)
            if track.walk.is_over:
                break
            if poller.time() >= deadline:
                self._failure = track.timed_out(self._timeout, poller.time() - self._started)
                continue
            waiter = _Suspension(deadline, wants_all=wants_all)
            poller.join(track, waiter)
            try:
                await waiter
            finally:
                await poller.leave(track, waiter)
            self._failure = waiter.refusal or self._failure
        return track

    def _follow(self) -> tuple[Poller, Track[R]]:
        if self._poller is not None:
            self._poller.check_loop()
        if self._poller is None or self._track is None:
            self._poller, self._track = self._source.follow(self._task_id, single=self._single)
            self._started = self._poller.time()
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
            return error.told(task_id=self._task_id, last_status=None, attempts=0, elapsed=0.0)
        return self._track.told(error, self._poller.time() - self._started)
