"""The tasks and their lives. Pure: no clock and no socket; `now` is whatever clock the caller goes by, in seconds.

Used by `_emulator` and `_kinds`; `_checks` and `_fates` take the names of the specification from here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from distribute_async.emulator._media import File

#: The specification's pattern for `id`, for the whole string.
TASK_ID = re.compile(r"[a-fA-F0-9]{8}-[a-fA-F0-9]{4}-4[a-fA-F0-9]{3}-[89abAB][a-fA-F0-9]{3}-[a-fA-F0-9]{12}")

#: The statuses of the specification.
STATUSES = frozenset({"CREATED", "QUEUED", "POSTPONED", "ASSIGNED_CONNECTIONS", "PROCESSING", "COMPLETED", "ERROR"})

#: (seconds after its creation, status) of a task, in order.
Timeline = Sequence[tuple[float, str]]

# Clock arithmetic isn't exact: (0.1 + 0.2) - 0.1 < 0.2. Who sleeps until a change is to see it.
_GRACE = 1e-6


def _is_in_order(_task: object, _attribute: object, timeline: Timeline) -> None:
    offsets = [offset for offset, _ in timeline]
    if not offsets:
        raise ValueError("a timeline needs at least one status")
    if not all(map(math.isfinite, offsets)) or offsets != sorted(offsets) or offsets[0] < 0:
        raise ValueError("the offsets of a timeline must be finite, not below 0, and in ascending order")


@frozen(kw_only=True)
class Task:
    """A task and its fate, fixed when it is created. Raises `ValueError` for a timeline out of order."""

    id: str
    #: The name of its kind.
    kind: str
    #: When it was created.
    born: float
    timeline: Timeline = field(validator=_is_in_order)
    model: str
    #: What it says: the answer of a chat, the revised prompt of a picture.
    text: str
    prompt_tokens: int
    #: (function's name, arguments as JSON text) that the model asks for.
    tool_calls: Sequence[tuple[str, str]]
    #: What it makes.
    files: Sequence[File]
    #: Seconds after its creation before which the service doesn't know the task (404).
    visible_after: float
    #: Fields of the answer to replace or add, beyond the specification.
    answer: Mapping[str, Any]

    def is_visible(self, now: float) -> bool:
        """Whether the service knows the task yet."""
        return self.born + self.visible_after <= now + _GRACE

    def is_specified(self, now: float) -> bool:
        """Whether the answer at `now` is one that the specification allows: nothing in it was scripted beyond that."""
        return not self.answer and self.stand(now)[1] in STATUSES

    def stand(self, now: float) -> tuple[float, str]:
        """Since which offset the task has which status at `now`; before the first offset it has the first one."""
        since, status = self.timeline[0]
        for offset, following in self.timeline[1:]:
            if self.born + offset > now + _GRACE:
                break
            if following != status:  # said again, it began when it was said first
                since, status = offset, following
        return since, status


class Store:
    """All tasks of one emulator."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def add(self, task: Task) -> None:
        """Keep a task. Raises `ValueError` where the id isn't a version 4 UUID, or is taken."""
        if not TASK_ID.fullmatch(task.id):
            raise ValueError(f"not a version 4 UUID: {task.id!r}")
        if task.id.lower() in self._tasks:
            raise ValueError(f"there is a task {task.id} already")
        self._tasks[task.id.lower()] = task

    def find(self, task_id: str, now: float) -> Task | None:
        """The task, if the service knows it by now. Upper and lower case are one, as in any UUID."""
        task = self._tasks.get(task_id.lower())
        return task if task is not None and task.is_visible(now) else None
