"""`Watch`: one reader's view of one task. Iterate, await, look. Its deadline is its own; the polls are shared.

A `Watch` is an object with `__anext__`, not an async generator: nothing is ever yielded inside a timeout (PEP 789),
and leaving a loop early needs no clean-up, because nothing runs unless somebody is suspended here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar, cast

from attrs import evolve

from distribute_async._api.wait import Wait
from distribute_async._engine.engine import Engine
from distribute_async._engine.kinds import Endpoint
from distribute_async._engine.subscription import HISTORY, Subscription
from distribute_async._wire.models import R, Transition
from distribute_async._wire.status import TaskStatus

T = TypeVar("T")

#: Gives the engine of a client at its first use. Raises where the client can't work.
FindEngine = Callable[[], Engine]


def _status(transition: Transition[Any]) -> TaskStatus:
    return cast("TaskStatus", transition.status)  # a subscription keeps no other ones


def as_given(transition: Transition[R], task_id: str) -> Transition[R]:
    """A transition with the id as a caller gave it: the letters of one id may be of either case."""
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
        "__weakref__", "_cursor", "_endpoint", "_find_engine", "_first", "_is_iterating", "_task_id", "_timeout",
        "_wait",
    )  # fmt: skip

    def __init__(self, find_engine: FindEngine, endpoint: Endpoint, task_id: str, timeout: float) -> None:
        self._find_engine: FindEngine | None = find_engine
        self._endpoint = endpoint
        self._task_id = task_id
        self._timeout = timeout
        self._wait: Wait[R] | None = None
        self._first = 0
        self._cursor = 0
        self._is_iterating = False

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
        return None if self._wait is None else self._wait.subscription.lifecycle.result

    @property
    def result(self) -> R | None:
        """The result once the task is over, COMPLETED or ERROR; None until then, and where only the wait ended."""
        latest = self.latest
        return latest if latest is not None and latest.is_over else None

    @property
    def status(self) -> TaskStatus | None:
        """The newest status seen; None before the first response."""
        return None if self._wait is None else self._wait.subscription.lifecycle.status

    @property
    def history(self) -> tuple[Transition[R], ...]:
        """The transitions since this watch began, the newest 1,000 of them."""
        if self._wait is None:
            return ()
        return tuple(
            as_given(change, self._task_id) for change in self._wait.subscription.since(self._first)[-HISTORY:]
        )

    def __aiter__(self) -> Watch[R]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, TaskStatus]:
        return self._next(_status)

    def transitions(self) -> AsyncIterator[Transition[R]]:
        """Iterate with a `Transition` for each change. It moves the watch's one cursor, and ends as an iteration does.

        It needs no clean-up either: it is an object and no generator.
        """
        return _Transitions(self._next_transition)

    def __await__(self) -> Generator[Any, None, R]:
        return self._begin().end().__await__()

    def _next_transition(self) -> Coroutine[Any, Any, Transition[R]]:
        return self._next(lambda transition: as_given(transition, self._task_id))

    async def _next(self, view: Callable[[Transition[R]], T]) -> T:
        """One step of an iteration: the next transition, seen in this way."""
        if self._is_iterating:
            raise RuntimeError(
                "this watch is being iterated already: a watch has one cursor, make another for another loop"
            )
        self._is_iterating = True
        try:
            wait = self._begin()
            await wait.until(self._cursor)
        finally:
            self._is_iterating = False
        subscription = wait.subscription
        if self._cursor == subscription.seen:
            raise StopAsyncIteration
        # A reader that fell more than the kept history behind goes on with the oldest change that is kept.
        self._cursor = max(self._cursor, subscription.forgotten) + 1
        return view(subscription.history[self._cursor - subscription.forgotten - 1])

    def _begin(self) -> Wait[R]:
        if self._wait is not None:
            self._wait.engine.check_loop()
            return self._wait
        assert self._find_engine is not None  # noqa: S101 - it is there until there is a wait
        engine = self._find_engine()
        subscription: Subscription[R] = engine.follow(self._endpoint, self._task_id)
        self._wait = Wait(engine, subscription, self._task_id, self._timeout)
        self._find_engine = None  # there may be ten thousand of them
        # Joining others, begin with the newest status that they know.
        self._first = self._cursor = max(0, subscription.seen - 1)
        return self._wait


class _Transitions(Generic[R]):
    """What `Watch.transitions` returns."""

    __slots__ = ("_next",)

    def __init__(self, next_transition: Callable[[], Coroutine[Any, Any, Transition[R]]]) -> None:
        self._next = next_transition

    def __aiter__(self) -> _Transitions[R]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Transition[R]]:
        return self._next()
