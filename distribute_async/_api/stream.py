"""`TaskStream`: many tasks as one stream, of outcomes (`as_completed`) or of transitions (`watch_many`).

Used by `client` and `shared`. `stream_state` does the work; what the two streams yield is said here.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from distribute_async._api.stream_state import Progress, StreamState
from distribute_async._engine.subscription import Subscription
from distribute_async._wire.errors import DistributeError, TaskFailedError
from distribute_async._wire.models import Outcome, R, Transition

T_co = TypeVar("T_co", covariant=True)


class TaskStream(Generic[T_co]):
    """Many tasks, followed together: what `client.as_completed(ids)` and `client.watch_many(ids)` give.

    Iterate over it with `async for`, in one loop at a time. Ids are taken as there is room for them in the window; one
    that the specification refuses gives an item with an `InvalidTaskIdError`. What the iterable of ids raises is raised
    here; after that the iteration may be resumed for the tasks that are followed already.

    An iterable that ends in a `CancelledError` of its own raises a `DistributeError` that says so.

    Leaving the loop early needs no clean-up: nothing new starts, at most the exchanges under way finish. Dropping the
    stream, or `aclose()`, cuts these too, and cancels an async iterable of ids if it is being waited for at that
    moment; one that isn't can be used further. Closing the client gives each task that is followed an item with a
    `ClientClosedError`; then one is raised if there are more ids.
    """

    def __init__(self, state: StreamState[Any, T_co]) -> None:
        # The engine refers to the state and not to its stream, so that a stream that is dropped is freed at once.
        self._state = state

    def __repr__(self) -> str:
        return f"<TaskStream {self.progress}>"

    def __aiter__(self) -> TaskStream[T_co]:
        return self

    async def __anext__(self) -> T_co:
        return await self._state.step()

    async def aclose(self) -> None:
        """Follow nothing any longer; returns once the exchanges under way are cut. Harmless the second time."""
        await self._state.close()

    @property
    def progress(self) -> Progress:
        """How far it has come: for a progress bar. Cheap, and may be asked for at any time."""
        return self._state.progress()

    def __del__(self) -> None:
        self._state.abandon()


class Completions(StreamState[R, Outcome[R]]):
    """What `as_completed` gives: each task's end."""

    wants_all = False

    def _add_end(self, task_id: str, subscription: Subscription[R] | None, error: DistributeError | None) -> None:
        result = None if error is not None or subscription is None else subscription.lifecycle.result
        self._items.append(Outcome(task_id=task_id, result=result, error=error))


class Changes(StreamState[R, Transition[R]]):
    """What `watch_many` gives: each task's transitions; the end of one that can't be followed is one, too."""

    wants_all = True

    def _add_end(self, task_id: str, subscription: Subscription[R] | None, error: DistributeError | None) -> None:
        if error is None or isinstance(error, TaskFailedError):
            return  # the last transition says so
        change: Transition[R] = Transition(
            task_id=task_id,
            previous=None if subscription is None else subscription.lifecycle.status,
            status=None,
            result=None,
            elapsed=error.elapsed,
            polls=0 if subscription is None else subscription.lifecycle.attempts.count,
            error=error,
        )
        self._items.append(change)
