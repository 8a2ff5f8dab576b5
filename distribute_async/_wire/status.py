"""The statuses of a remote task: an open enumeration. Imports nothing; everybody may use it."""

from __future__ import annotations

from enum import StrEnum


class TaskStatus(StrEnum):
    """Where a task stands, in the specification's seven words (`status` of `/async/chat/result`).

    The enumeration is open: a word that this version doesn't know becomes a `TaskStatus` all the same, equal to
    its text, with `is_known` False and not terminal. So a service that learns a new status breaks nobody, and a
    `match` over statuses needs a `case _`. Unknown members are made anew each time (a hostile service
    could otherwise fill the memory): compare them with `==`, not `is`.
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
            return None  # makes the enum machinery raise its ValueError
        member = str.__new__(cls, value)
        member._name_ = member._value_ = str(value)
        return member

    @property
    def is_terminal(self) -> bool:
        """True for COMPLETED and ERROR: nothing follows them."""
        return self in _TERMINAL

    @property
    def is_known(self) -> bool:
        """True for the specification's seven words."""
        return self._name_ in TaskStatus.__members__


_TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.ERROR})
