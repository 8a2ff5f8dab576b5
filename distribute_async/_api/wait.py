"""One caller's wait on one subscription: its deadline, its part of the telemetry, and the error that ended it.

Used by `watch`, which waits again and again, and by `client` for what is one wait: a fetch, a submission.
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar

from distribute_async._engine.engine import Engine
from distribute_async._engine.subscription import Subscription, closed
from distribute_async._engine.telemetry import Span
from distribute_async._policy.attempts import Prior
from distribute_async._wire.errors import DistributeError, TaskFailedError
from distribute_async._wire.models import TaskResult

T = TypeVar("T")


class Suspension(asyncio.Future[None]):
    """A caller that is suspended on a subscription; woken to look at it again."""

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
        """Let the caller go on."""
        if not self.done():
            self.set_result(None)

    def refuse(self, error: DistributeError) -> None:
        """The wait ends in this error."""
        self.refusal = error
        self.wake()

    def parked(self) -> None:
        """Never called: it is suspended as long as it waits."""


class Wait(Generic[T]):
    """One caller's wait, from its first suspension to its end. `timeout`: seconds for all of it, infinite for none."""

    __slots__ = ("_failure", "_prior", "_span", "_started", "_task_id", "_timeout", "engine", "subscription")

    def __init__(self, engine: Engine, subscription: Subscription[T], task_id: str | None, timeout: float) -> None:
        self.engine = engine
        self.subscription = subscription
        self._task_id = task_id
        self._timeout = timeout
        self._started = engine.time()
        self._prior: Prior = subscription.lifecycle.attempts.so_far(self._started)
        self._failure: DistributeError | None = None
        self._span: Span | None = None

    async def end(self) -> T:
        """Wait for the end; returns the result. Raises what ended the wait, in each call the same."""
        if self._failure is not None:
            raise self._fail(self._failure)
        await self.until(None)
        result: Any = self.subscription.lifecycle.result
        if error := self._task_failure():
            raise self._with_context(error)
        return result  # type: ignore[no-any-return]

    async def until(self, cursor: int | None) -> None:
        """Until there are more transitions than `cursor`, or the end. Raises what ends the wait before."""
        subscription, engine = self.subscription, self.engine
        lifecycle = subscription.lifecycle
        deadline = self._started + self._timeout
        is_new = self._span is None
        # One coroutine and not two, which would be dear: there may be ten thousand of them.
        with self._open_span():
            while cursor is None or cursor == subscription.seen:
                # The order matters: what is known already comes before the deadline; a failure stays what it was.
                failure = self._failure or lifecycle.error
                if failure is None and engine.is_closed and not lifecycle.is_over:
                    failure = closed()
                if failure is not None:
                    raise self._fail(failure)
                if lifecycle.is_over:
                    break
                if engine.time() >= deadline:
                    self._failure = lifecycle.timed_out(self._timeout)
                    continue
                waiter = Suspension(self._started, self._prior, deadline, wants_all=cursor is not None)
                engine.join(subscription, waiter, is_new=is_new)
                is_new = False
                engine.callers += 1
                try:
                    await waiter
                finally:
                    engine.callers -= 1
                    await engine.leave(subscription, waiter)
                self._failure = waiter.refusal or self._failure
        # An iteration is over as it gives its last status: few readers come back for the end of the loop.
        if cursor is None or cursor + 1 >= subscription.seen:
            self._end_span()

    def _open_span(self) -> Span:
        if self._span is None or self._span.is_interrupted:
            self._span = self.engine.telemetry.span(self.subscription, self._task_id)
        return self._span

    def _end_span(self) -> None:
        lifecycle = self.subscription.lifecycle
        if self._span is None or not lifecycle.is_over or lifecycle.error is not None or lifecycle.result is None:
            return
        if error := self._task_failure():
            self._span.end("error", self._with_context(error))
        else:
            self._span.end("result")

    def _task_failure(self) -> TaskFailedError | None:
        """The error for a task that was followed to an ERROR; a call asked for the response, whatever it is."""
        lifecycle = self.subscription.lifecycle
        result = lifecycle.result
        if lifecycle.is_call or not isinstance(result, TaskResult) or not result.is_failed:
            return None
        return TaskFailedError(result)

    def _fail(self, error: DistributeError) -> DistributeError:
        """What to raise for the error that ends this wait."""
        error = self._with_context(error)
        if self._span is not None:
            self._span.end("error", error)
        return error

    def _with_context(self, error: DistributeError) -> DistributeError:
        return self.subscription.with_context(error, self._task_id, self.engine.time() - self._started)
