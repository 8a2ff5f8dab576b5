"""The statuses of a remote task, as an open enumeration. Pure; everybody may use it."""

from __future__ import annotations

from enum import StrEnum


class TaskStatus(StrEnum):
    """The status of a task: the seven values of `status` in the specification of `/async/chat/result`.

    The enumeration is open. A value that this version doesn't know becomes a `TaskStatus` too: equal to its text, with
    `is_known` False, and not terminal. A new status of the service therefore breaks no program, and a `match` over
    statuses needs a `case _`. Compare unknown values with `==`, not `is`: a new object is made each time, since a cache
    of them could grow without limit.
    """

    CREATED = "CREATED"
    QUEUED = "QUEUED"
    POSTPONED = "POSTPONED"
    ASSIGNED_CONNECTIONS = "ASSIGNED_CONNECTIONS"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    ERROR = "ERROR"

    @classmethod
    def _missing_(cls, value: object) -> TaskStatus | None:
        if not isinstance(value, str):
            return None  # Enum then raises ValueError
        member = str.__new__(cls, value)
        member._name_ = member._value_ = str(value)
        return member

    @property
    def is_terminal(self) -> bool:
        """Whether the status is COMPLETED or ERROR. No other status follows these."""
        return self in _TERMINAL

    @property
    def is_known(self) -> bool:
        """Whether the status is one of the seven in the specification."""
        return self._name_ in TaskStatus.__members__


_TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.ERROR})
