"""The tasks of one stream: taken from the ids as there is room, followed, and turned into items. Used by `stream`.

There is no asyncio task for each id: each is an `_Entry`, a waiter on its subscription, and the stream is suspended
once for all of them. While the loop's body runs, the stream is away: what is under way comes in and is kept for the
next step, and nothing new is started.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections import deque
from collections.abc import Sized
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

from attrs import frozen

from distribute_async._api.id_source import AT_ONCE, Id, Ids, IdSource, source_error
from distribute_async._api.watch import FindEngine, as_given
from distribute_async._engine.engine import Engine
from distribute_async._engine.kinds import Endpoint
from distribute_async._engine.subscription import Subscription
from distribute_async._engine.telemetry import Span
from distribute_async._policy.attempts import Prior
from distribute_async._wire.arguments import checked_count
from distribute_async._wire.errors import DistributeError, InvalidTaskIdError, TaskFailedError
from distribute_async._wire.ids import checked_id
from distribute_async._wire.models import R

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
#: Tasks of one stream that are followed at once, where nobody says otherwise.
WINDOW = 100_000
#: Seconds within which tasks count as taken at the same time.
SAME_TIME = 0.001


@frozen(kw_only=True)
class Progress:
    """How far a stream has come. A snapshot: see `TaskStream.progress`."""

    #: Tasks that are followed now.
    waiting: int
    #: Tasks that ended well, and those that ended in an error of any kind.
    done: int
    failed: int
    #: Good responses to the client's polls since this stream began, those for other waits included.
    polls: int
    #: Tasks that ended in a second, on average since this stream began.
    rate: float
    #: Seconds until all have ended at this rate; None where the ids have no length, or none has ended yet.
    eta: float | None


class _Entry(Generic[R]):
    """One task of a stream, as a waiter on its subscription."""

    __slots__ = ("after", "before", "cursor", "prior", "span", "stream", "subscription", "task_id", "times")

    def __init__(
        self,
        stream: StreamState[R, Any],
        subscription: Subscription[R],
        task_id: str,
        times: tuple[float, float],
        span: Span,
    ) -> None:
        self.stream = stream
        self.subscription = subscription
        #: As it was given: usually the very text that the subscription has, because one more for each adds up.
        self.task_id = subscription.lifecycle.task_id if task_id == subscription.lifecycle.task_id else task_id
        #: Loop times: when it was taken, and until when it is followed. One pair for all that were taken at once.
        self.times = times
        self.prior: Prior = subscription.lifecycle.attempts.so_far(times[0])
        self.span = span
        #: Transitions yielded so far; joining others, it begins with the newest that they know.
        self.cursor = max(0, subscription.seen - 1)
        #: The stream's entries beside it, in the order in which they came.
        self.before: _Entry[R] | None = None
        self.after: _Entry[R] | None = None

    @property
    def since(self) -> float:
        return self.times[0]

    @property
    def deadline(self) -> float:
        return self.times[1]

    @property
    def wants_all(self) -> bool:
        return self.stream.wants_all

    @property
    def is_away(self) -> bool:
        return self.stream.is_away

    def wake(self) -> None:
        self.stream.update(self)

    def refuse(self, error: DistributeError) -> None:
        self.stream.end(self, error)

    def parked(self) -> None:
        self.stream.parked.append(self.subscription)


class StreamState(Generic[R, T]):
    """The tasks of one stream, and the items that it has yet to yield."""

    #: Whether each transition is an item, or only each end.
    wants_all: bool

    def __init__(self, find_engine: FindEngine, endpoint: Endpoint, ids: Ids, *, timeout: float, window: int) -> None:
        #: Seconds for each task from when it is taken; infinite for none.
        self.timeout = timeout
        #: Nobody is suspended on the stream now.
        self.is_away = True
        #: Subscriptions whose polls came due meanwhile.
        self.parked: list[Subscription[R]] = []
        self._find_engine = find_engine
        self._endpoint = endpoint
        self._window = checked_count("window", window)
        self._total = len(ids) if isinstance(ids, Sized) else None
        self._ids = IdSource(ids, lambda: self._room() > 0, self._notify)
        #: How many tasks are followed, and the newest of them, which knows the one before. (A set of them would be a
        #: tenth of what each costs.)
        self._waiting = 0
        self._newest: _Entry[R] | None = None
        #: What the next steps give.
        self._items: deque[T] = deque()
        self._waker: asyncio.Future[None] | None = None
        self._broken: BaseException | None = None
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: What was cut and is to be seen ended.
        self._cut: list[asyncio.Task[Any]] = []
        self._is_closed = False
        self._started = 0.0
        #: The loop times of the newest tasks: see `_Entry`.
        self._times = (-math.inf, -math.inf)
        self._polls_before = 0
        self._done = 0
        self._failed = 0

    async def step(self) -> T:
        """The next item. Raises `StopAsyncIteration` after the last one."""
        if not self.is_away:
            raise RuntimeError("this stream is being iterated already: it is for one loop")
        self.is_away = False
        self._loop = asyncio.get_running_loop()
        try:
            try:
                await self._until_known()
            finally:
                # Before the item is taken, so that a cancellation here doesn't lose it.
                if self._engine is not None:
                    await self._engine.settle()
            return self._next()
        finally:
            self.is_away = True

    def _next(self) -> T:
        if self._items:
            return self._items.popleft()
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken
        raise StopAsyncIteration

    async def _until_known(self) -> None:
        """Until there is an item, an error of the ids, or the end."""
        if self._engine is not None:
            self._engine.check_loop()
            parked, self.parked = self.parked, []
            self._engine.resume(parked)
        while True:
            more = not self._is_closed and self._take()
            if self._items or self._broken is not None:
                return
            if self._is_closed or (self._ids.are_over and not self._waiting):
                await self.close()
                return
            if more:
                await asyncio.sleep(0)
                continue
            await self._suspend(self._engine)

    async def _suspend(self, engine: Engine | None) -> None:
        """Until there may be an item to yield, or an id to take."""
        self._waker = asyncio.get_running_loop().create_future()
        if engine is not None:
            engine.callers += 1
        try:
            await self._waker
        finally:
            self._waker = None
            if engine is not None:
                engine.callers -= 1

    def _room(self) -> int:
        """For how many more ids there is room now."""
        if self.is_away or self._is_closed or self._broken is not None:
            return 0
        # What the loop hasn't taken yet counts too: a slow one doesn't pile up what it will never catch up with.
        return self._window - self._waiting - len(self._items) - self._ids.arrived

    def _take(self) -> bool:
        """Follow some more ids; whether there may be more of them at once."""
        most = min(self._room() + self._ids.arrived, AT_ONCE)
        taken = 0
        try:
            for given in self._ids.take(most):
                taken += 1
                self._follow(given)
        except (Exception, asyncio.CancelledError) as error:  # of the caller's ids, or of a client that can't work
            self._broken = source_error(error)  # nothing is awaited here, so nobody cancels this
        return 0 < most == taken

    def _follow(self, given: Id) -> None:
        try:
            task_id = checked_id(given)
        except InvalidTaskIdError as error:
            self._failed += 1
            self._add_end(str(given), None, error)
            return
        engine = self._engine or self._find_engine()
        subscription: Subscription[R] = engine.follow(self._endpoint, task_id)
        now = engine.time()
        if self._engine is None:
            self._engine, self._started, self._polls_before = engine, now, engine.telemetry.polls
        if now - self._times[0] > SAME_TIME:
            self._times = now, now + self.timeout
        entry = _Entry(self, subscription, task_id, self._times, engine.telemetry.span(subscription, task_id))
        self._keep(entry)
        engine.join(subscription, entry, is_new=True)
        if subscription.seen and entry in subscription.waiters:
            self.update(entry)

    def update(self, entry: _Entry[R]) -> None:
        """Something happened to its subscription, or its time is up."""
        subscription = entry.subscription
        self._add_changes(entry)
        if subscription.lifecycle.error is not None:
            self.end(entry, subscription.lifecycle.error)
        elif subscription.lifecycle.is_over:
            result = subscription.lifecycle.result
            self.end(entry, TaskFailedError(result) if result is not None and result.is_failed else None)
        elif entry not in subscription.waiters:
            self.end(entry, subscription.lifecycle.timed_out(self.timeout))
        elif self._items:
            self._notify()

    def _add_changes(self, entry: _Entry[R]) -> None:
        """Add the transitions that it hasn't yielded, if they are wanted."""
        if self.wants_all:
            changes = [as_given(change, entry.task_id) for change in entry.subscription.since(entry.cursor)]
            self._items.extend(cast("list[T]", changes))
            entry.cursor = entry.subscription.seen

    def end(self, entry: _Entry[R], error: DistributeError | None) -> None:
        """It has ended, in this error if any: add that after what is known, and stop following the task."""
        subscription = entry.subscription
        self._add_changes(entry)
        if error is not None:
            error = subscription.with_context(error, entry.task_id, self._elapsed(entry))
        self._done += error is None
        self._failed += error is not None
        self._add_end(entry.task_id, subscription, error)
        entry.span.end("result" if error is None else "error", error)
        self._let_go(entry)
        self._notify()

    @abstractmethod
    def _add_end(self, task_id: str, subscription: Subscription[R] | None, error: DistributeError | None) -> None:
        """Add the item for the end of a task, if it wants one; without a subscription none could be followed."""

    def _keep(self, entry: _Entry[R]) -> None:
        self._waiting += 1
        entry.before, self._newest = self._newest, entry
        if entry.before is not None:
            entry.before.after = entry

    def _let_go(self, entry: _Entry[R]) -> asyncio.Task[Any] | None:
        self._waiting -= 1
        if entry.before is not None:
            entry.before.after = entry.after
        if entry.after is not None:
            entry.after.before = entry.before
        else:
            self._newest = entry.before
        return None if self._engine is None else self._engine.drop(entry.subscription, entry)

    def _elapsed(self, entry: _Entry[R]) -> float:
        return 0.0 if self._engine is None else self._engine.time() - entry.since

    def _notify(self) -> None:
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    async def close(self) -> None:
        """Follow nothing any longer, and see what was under way ended."""
        self._leave()
        if self._cut:
            await asyncio.wait(self._cut)
        if self._engine is not None:
            await self._engine.settle()
        self._notify()

    def _leave(self) -> None:
        """Follow nothing any longer. What is cut here settles what it leaves behind."""
        self._is_closed = True
        self._broken = None
        self._items.clear()
        while (entry := self._newest) is not None:
            if (exchange := self._let_go(entry)) is not None:
                self._cut.append(exchange)
            entry.span.end("left")
        self._cut += self._ids.close()

    def abandon(self) -> None:
        """Its stream was dropped, perhaps by the garbage collector: at any time, and in any thread."""
        if self._loop is not None and not self._is_closed:
            with suppress(RuntimeError):  # the loop is closed, and everything with it
                # No asyncio task, which the loop's end could find unfinished.
                self._loop.call_soon_threadsafe(self._leave)

    def progress(self) -> Progress:
        """See `TaskStream.progress`."""
        elapsed = 0.0 if self._engine is None else self._engine.time() - self._started
        ended = self._done + self._failed
        rate = ended / elapsed if elapsed > 0 else 0.0
        return Progress(
            waiting=self._waiting,
            done=self._done,
            failed=self._failed,
            polls=0 if self._engine is None else self._engine.telemetry.polls - self._polls_before,
            rate=rate,
            eta=None if self._total is None or not rate else max(0, self._total - ended) / rate,
        )
