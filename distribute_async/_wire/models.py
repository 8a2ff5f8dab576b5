"""What the service says, as frozen values, and the check of a task id. Uses `status` alone; everybody may use it.

Fields have the specification's names and optionality. What it doesn't name is kept in `extra` as sent, so that a
newer service loses nothing. Reprs leave out what prompts and answers say.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from attrs import Attribute, field, fields, frozen

from distribute_async._wire.status import TaskStatus


def _wire_value(value: Any) -> Any:
    if isinstance(value, Wire):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_wire_value(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _none_if_empty(extra: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return extra or None


@frozen(kw_only=True)
class Wire:
    """What all parts of an answer have in common: unknown fields in `extra`, and the way back to the wire."""

    # Nearly always empty, and an empty dict for each of a hundred thousand answers adds up.
    _extra: Mapping[str, Any] | None = field(
        default=None, converter=_none_if_empty, repr=False, hash=False, metadata={"wire": False}
    )

    @property
    def extra(self) -> Mapping[str, Any]:
        """The fields that this library doesn't know, as they were sent."""
        return self._extra or {}

    def to_dict(self) -> dict[str, Any]:
        """The JSON object as the service sends it, unknown fields included; optional fields that are None left out."""
        known: tuple[Attribute[Any], ...] = fields(type(self))
        named = {
            attribute.name: _wire_value(value)
            for attribute in known
            if attribute.metadata.get("wire", True)
            and ((value := getattr(self, attribute.name)) is not None or attribute.metadata.get("nullable"))
        }
        return {**named, **self.extra}


@frozen(kw_only=True)
class FunctionCall(Wire):
    """The function that a model asks for. `arguments` is JSON text as the model wrote it: parse it with care."""

    name: str
    arguments: str = field(repr=False)


@frozen(kw_only=True)
class ToolCall(Wire):
    """One call of a tool in a message. `type` is "function" in the specification; others pass through."""

    id: str
    type: str
    function: FunctionCall


@frozen(kw_only=True)
class Message(Wire):
    """What was said. `content` is None where the service sends null (usual beside tool calls)."""

    content: str | None = field(repr=False, metadata={"nullable": True})
    role: str
    tool_calls: tuple[ToolCall, ...] | None = field(default=None, repr=False)
    name: str | None = None


@frozen(kw_only=True)
class Choice(Wire):
    """One alternative answer. `finish_reason` is "stop" or "tool_calls" in the specification; others pass through."""

    finish_reason: str
    index: float
    message: Message


@frozen(kw_only=True)
class Usage(Wire):
    """The tokens that were counted, as numbers as sent."""

    completion_tokens: float
    prompt_tokens: float
    total_tokens: float


def _as_datetime(stamp: float | str | None) -> datetime | None:
    # The specification gives no unit. Seconds reach 1e11 in the year 5138; milliseconds passed it in 1973.
    if stamp is None:
        return None
    try:
        if isinstance(stamp, str):
            told = datetime.fromisoformat(stamp)
            return told.astimezone(UTC) if told.tzinfo else told.replace(tzinfo=UTC)
        return datetime.fromtimestamp(stamp / 1000 if abs(stamp) >= 1e11 else stamp, UTC)
    except (OverflowError, OSError, ValueError):
        return None


@frozen(kw_only=True)
class TaskResult(Wire):
    """What the answers for all kinds of task have in common; the walk of a task reads nothing else."""

    status: TaskStatus
    created: float | str
    model: str
    id: str | None = None
    finished: float | str | None = None

    @property
    def created_at(self) -> datetime | None:
        """`created` as an aware datetime in UTC; None where it is none, or beyond what a datetime holds.

        The specification names no unit, so the size tells it: below 1e11 it is seconds since 1970 (as in OpenAI's
        format), else milliseconds. Text (images have that) is read as ISO 8601, in UTC where it names no zone.
        """
        return _as_datetime(self.created)

    @property
    def finished_at(self) -> datetime | None:
        """`finished` as an aware datetime in UTC, its unit told as for `created_at`; None where there is none."""
        return _as_datetime(self.finished)

    @property
    def has_output(self) -> bool:
        """Whether the answer holds what the task was created for."""
        raise NotImplementedError

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: a terminal status, or an unknown one with `finished` set."""
        return self.status.is_terminal or (not self.status.is_known and self.finished is not None)

    @property
    def is_failed(self) -> bool:
        """Whether the task is over without its output: ERROR, or an unknown ending status with nothing to show."""
        return self.status == TaskStatus.ERROR or (
            self.is_over and self.status != TaskStatus.COMPLETED and not self.has_output
        )


@frozen(kw_only=True)
class ChatResult(TaskResult):
    """An answer of `/async/chat/result`: how the task stands and, once COMPLETED, what the model said."""

    created: float
    finished: float | None = None
    choices: tuple[Choice, ...] = field(default=(), repr=lambda choices: f"<{len(choices)}>")
    service_tier: str | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str | None:
        """The first choice's content; None where there is no choice yet, or it has no content (tool calls)."""
        return self.choices[0].message.content if self.choices else None

    @property
    def has_output(self) -> bool:
        """Whether there is any choice."""
        return bool(self.choices)


@frozen(kw_only=True)
class Created(Wire):
    """The response to a create call: the id of the new task. Fields that a service may add are kept in `extra`."""

    id: str


R = TypeVar("R", bound=TaskResult)
R_co = TypeVar("R_co", bound=TaskResult, covariant=True)


@frozen(kw_only=True)
class Transition(Generic[R_co]):
    """An observed change of one task's status."""

    #: The task.
    task_id: str
    #: The status before it; None for the first one seen.
    previous: TaskStatus | None
    #: The status reached; None where following the task ended in `error`.
    status: TaskStatus | None
    #: The answer that showed it; None beside `error`.
    result: R_co | None = field(repr=False)
    #: Seconds of loop time from the start of following the task to this observation.
    elapsed: float
    #: Status reads that it took so far, this one included.
    polls: int
    #: Why following the task ended early; only in `watch_many`, None elsewhere.
    error: Exception | None = None


@frozen(kw_only=True)
class Outcome(Generic[R_co]):
    """How one of many tasks ended: out of `as_completed`."""

    #: The task; the text of what was given where that is no task id.
    task_id: str
    #: The result; None beside `error`.
    result: R_co | None = field(repr=False)
    #: Why there is none: a `DistributeError`, `TaskFailedError` where the task ended in ERROR.
    error: Exception | None

    def unwrap(self) -> R_co:
        """The result; raises `error` where there is one."""
        if self.error is not None:
            raise self.error.with_traceback(None)  # or each call would add its frames to it
        assert self.result is not None  # noqa: S101 - one of the two is set
        return self.result
