"""Models of the service's responses, and of what waits report. Frozen attrs classes. Pure; everybody may use it.

Fields have the names and optionality of the specification. Unknown fields are kept in `extra` as they were sent. Reprs
leave out the content of prompts and responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from attrs import Attribute, field, fields, frozen

from distribute_async._wire.status import TaskStatus


def _wire_value(value: Any) -> Any:
    if isinstance(value, WireModel):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_wire_value(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _none_if_empty(extra: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return extra or None


@frozen(kw_only=True)
class WireModel:
    """The base class of all parts of a response: keeps unknown fields, and converts back to the JSON object."""

    # Nearly always empty. None takes less memory than an empty dict where many results are kept.
    _extra: Mapping[str, Any] | None = field(
        default=None, converter=_none_if_empty, repr=False, hash=False, metadata={"wire": False}
    )

    @property
    def extra(self) -> Mapping[str, Any]:
        """The fields that this version doesn't know, as they were sent."""
        return self._extra or {}

    def to_dict(self) -> dict[str, Any]:
        """The JSON object as the service sends it, with unknown fields, and without optional fields that are None."""
        known: tuple[Attribute[Any], ...] = fields(type(self))
        named = {
            attribute.name: _wire_value(value)
            for attribute in known
            if attribute.metadata.get("wire", True)
            and ((value := getattr(self, attribute.name)) is not None or attribute.metadata.get("nullable"))
        }
        return {**named, **self.extra}


@frozen(kw_only=True)
class FunctionCall(WireModel):
    """A function that the model calls. `arguments` is JSON text written by the model; it may be invalid."""

    name: str
    arguments: str = field(repr=False)


@frozen(kw_only=True)
class ToolCall(WireModel):
    """One tool call of a message. `type` is "function" in the specification; other values are kept as sent."""

    id: str
    type: str
    function: FunctionCall


@frozen(kw_only=True)
class Message(WireModel):
    """One message of a chat. `content` is None if the service sends null, as it does with tool calls."""

    content: str | None = field(repr=False, metadata={"nullable": True})
    role: str
    tool_calls: tuple[ToolCall, ...] | None = field(default=None, repr=False)
    name: str | None = None


@frozen(kw_only=True)
class Choice(WireModel):
    """One of the alternative responses of the model.

    `finish_reason` is "stop" or "tool_calls" in the specification; other values are kept as sent.
    """

    finish_reason: str
    index: float
    message: Message


@frozen(kw_only=True)
class Usage(WireModel):
    """The number of tokens, as sent."""

    completion_tokens: float
    prompt_tokens: float
    total_tokens: float


def _as_datetime(stamp: float | str | None) -> datetime | None:
    # The specification gives no unit. In seconds 1e11 is the year 5138; in milliseconds it is 1973.
    if stamp is None:
        return None
    try:
        if isinstance(stamp, str):
            time = datetime.fromisoformat(stamp)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        return datetime.fromtimestamp(stamp / 1000 if abs(stamp) >= 1e11 else stamp, UTC)
    except (OverflowError, OSError, ValueError):
        return None


@frozen(kw_only=True)
class TaskResult(WireModel):
    """The base class of results: the fields that all kinds of task have. Polling depends on these alone."""

    status: TaskStatus
    created: float | str
    model: str
    id: str | None = None
    finished: float | str | None = None

    @property
    def created_at(self) -> datetime | None:
        """`created` as an aware datetime in UTC; None if it isn't a time, or one out of the range of `datetime`.

        The specification gives no unit. Numbers below 1e11 are taken for seconds since 1970 (as in OpenAI's format),
        larger ones for milliseconds. Text, which images have, is parsed as ISO 8601, in UTC if it has no time zone.
        """
        return _as_datetime(self.created)

    @property
    def finished_at(self) -> datetime | None:
        """`finished` as an aware datetime in UTC, converted as in `created_at`; None if the field is missing."""
        return _as_datetime(self.finished)

    @property
    def has_output(self) -> bool:
        """Whether the result contains what the task was created for."""
        raise NotImplementedError

    @property
    def is_over(self) -> bool:
        """Whether the task has ended: its status is terminal, or unknown with `finished` set."""
        return self.status.is_terminal or (not self.status.is_known and self.finished is not None)

    @property
    def is_failed(self) -> bool:
        """Whether the task has failed: its status is ERROR, or an unknown one with `finished` set and no output."""
        return self.status == TaskStatus.ERROR or (
            self.is_over and self.status != TaskStatus.COMPLETED and not self.has_output
        )


@frozen(kw_only=True)
class ChatResult(TaskResult):
    """A response of `/async/chat/result`: the status of the task and, once COMPLETED, the model's response."""

    created: float
    finished: float | None = None
    choices: tuple[Choice, ...] = field(default=(), repr=lambda choices: f"<{len(choices)}>")
    service_tier: str | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str | None:
        """The content of the first choice; None if there is no choice yet, or no content (with tool calls)."""
        return self.choices[0].message.content if self.choices else None

    @property
    def has_output(self) -> bool:
        """Whether there is at least one choice."""
        return bool(self.choices)


@frozen(kw_only=True)
class Created(WireModel):
    """A response to a create call: the id of the new task. Other fields are kept in `extra`."""

    id: str


R = TypeVar("R", bound=TaskResult)
R_co = TypeVar("R_co", bound=TaskResult, covariant=True)


@frozen(kw_only=True)
class Transition(Generic[R_co]):
    """An observed change of one task's status."""

    #: The task.
    task_id: str
    #: The status before the change; None for the first one seen.
    previous: TaskStatus | None
    #: The status after the change; None if following the task ended in `error`.
    status: TaskStatus | None
    #: The result with this status; None if there is an `error`.
    result: R_co | None = field(repr=False)
    #: Seconds from the start of following the task to this change.
    elapsed: float
    #: The number of polls so far, this one included.
    polls: int
    #: The error that ended following the task; only in `watch_many`, otherwise None.
    error: Exception | None = None


@frozen(kw_only=True)
class Outcome(Generic[R_co]):
    """How one of many tasks ended; see `as_completed`."""

    #: The task; the text of the argument if it isn't a task id.
    task_id: str
    #: The result; None if there is an `error`.
    result: R_co | None = field(repr=False)
    #: The error, a `DistributeError`: `TaskFailedError` if the task ended in ERROR. None if there is a result.
    error: Exception | None

    def unwrap(self) -> R_co:
        """The result. Raises `error` if there is one."""
        if self.error is not None:
            raise self.error.with_traceback(None)  # without this each call would add frames to it
        assert self.result is not None  # noqa: S101 - one of the two is set
        return self.result
