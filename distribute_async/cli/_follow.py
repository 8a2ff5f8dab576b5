"""Following several tasks at once, and what came of each. Used by all commands; drawn by `_view`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import define, field

from distribute_async import (
    ChatResult,
    DistributeError,
    ImageResult,
    SpeechResult,
    SubmitUncertainError,
    TaskFailedError,
    Transition,
    WaitTimeoutError,
    Watch,
)
from distribute_async.cli._codes import FAILED, OK, TIMED_OUT, TROUBLE, UNCERTAIN, USAGE

# From the best outcome to the worst: of several tasks, the worst decides.
_RANKS = (OK, TIMED_OUT, FAILED, TROUBLE, USAGE)

#: What the tasks of the three kinds come to.
Result = ChatResult | ImageResult | SpeechResult


def _now() -> float:
    return asyncio.get_running_loop().time()


@define(eq=False)
class Followed:
    """A task that is followed: its name on the screen, its watch and, once it is over, how that ended."""

    label: str
    watch: Watch[Any]
    is_over: bool = False
    error: DistributeError | None = None
    _started: float = field(init=False, factory=_now)

    @property
    def has_ended(self) -> bool:
        """Whether the task itself has come to its end, COMPLETED or not."""
        return self.is_over and (self.error is None or isinstance(self.error, TaskFailedError))

    @property
    def elapsed(self) -> float:
        """Seconds from the start of following it to its end, or to now."""
        if self.error is not None:
            return self.error.elapsed
        return self.watch.history[-1].elapsed if self.is_over else _now() - self._started

    @property
    def polls(self) -> int:
        """Status reads up to its end, or to its latest change."""
        if self.error is not None:
            return self.error.attempts
        return self.watch.history[-1].polls if self.watch.history else 0


#: Called at each transition of a task, and once more, without one, when following it is over.
Tell = Callable[[Followed, Transition[Any] | None], None]


def exit_code(error: DistributeError | None) -> int:
    """The exit code for how one task, or a whole command, ended."""
    match error:
        case None:
            return OK
        case ValueError():  # a setting, an id or a field of a request that can't be right
            return USAGE
        case TaskFailedError():
            return FAILED
        case WaitTimeoutError():
            return TIMED_OUT
        case SubmitUncertainError():
            return UNCERTAIN
        case _:
            return TROUBLE


def worst(codes: Iterable[int]) -> int:
    """The exit code for several tasks: that of the worst outcome; `OK` for none."""
    return max(codes, key=_RANKS.index, default=OK)


async def follow(tasks: Sequence[Followed], tell: Tell) -> None:
    """Follow all to their ends. What ends a wait is kept in its `Followed`; only what `tell` raises comes out."""
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(_follow_one(task, tell))


async def _follow_one(task: Followed, tell: Tell) -> None:
    try:
        async for _ in task.watch:
            tell(task, task.watch.history[-1])
        await task.watch
    except DistributeError as error:
        task.error = error
    task.is_over = True
    tell(task, None)


def tell_nothing(_task: Followed, _transition: Transition[Any] | None) -> None:
    """A `Tell` that says nothing."""
