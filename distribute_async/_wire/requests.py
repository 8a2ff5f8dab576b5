"""Requests to create tasks: the documented fields of each create call, validated before anything is sent. Pure.

Used by `kinds`, where each kind of task has one of these classes. `Tasks.submit` takes its fields as keyword arguments.
The fields come from the service's documentation; the specification doesn't contain them. Enumerations that the
documentation leaves open accept any value, and `extra_body` takes fields that are not known here. Fields that are not
given are not sent, so that the service's defaults apply.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
from attrs import Attribute, field, frozen

from distribute_async._wire.arguments import DEFAULT, Default, is_count, is_number, short_repr
from distribute_async._wire.errors import InvalidRequestError
from distribute_async._wire.models import Message

Validator = Callable[[Any, Any, Any], None]
T = TypeVar("T")


def _require(is_valid: bool, name: str, expected: str) -> None:
    if not is_valid:
        # Without the value, which may be a prompt.
        raise InvalidRequestError(f"{name} must be {expected}", name)


# A required field is declared with `field(validator=…)`: type checkers take any other call for a default.


def _validator(expected: str, is_valid: Callable[[Any], bool]) -> Validator:
    """A validator that requires `is_valid` of the value."""

    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        _require(is_valid(value), attribute.name, expected)

    return check


def _text(shortest: int, longest: int) -> Validator:
    """A validator for a text; lengths in characters."""
    expected = f"a text of {shortest} to {longest} characters"
    return _validator(expected, lambda value: isinstance(value, str) and shortest <= len(value) <= longest)


_not_empty = _validator("a text that is not empty", lambda value: isinstance(value, str) and value != "")


def _optional(expected: str, is_valid: Callable[[Any], bool]) -> Any:
    """An optional field that requires `is_valid` of its value."""
    return field(default=None, validator=_validator(expected, lambda value: value is None or is_valid(value)))


def _number(low: float | None, high: float, *, whole: bool = False) -> Any:
    """An optional field for a number within documented bounds."""
    kind = "a whole number" if whole else "a number"

    def is_valid(value: Any) -> bool:
        is_kind = is_number(value) and (isinstance(value, int) or not whole)
        return is_kind and value <= high and (low is None or value >= low)

    return _optional(f"{kind} of at most {high:g}" if low is None else f"{kind} from {low:g} to {high:g}", is_valid)


def _count() -> Any:
    """An optional field for a whole number of 1 or more."""
    return _optional("a whole number of 1 or more", is_count)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _messages(_: object, attribute: Attribute[Any], value: Any) -> None:
    """A validator for the messages of a chat."""
    _require(_is_list(value) and bool(value), attribute.name, "a list of messages, at least one")
    expected = 'a list of mappings such as {"role": "user", "content": "…"}, or of Message'
    for index, message in enumerate(value):
        _require(_is_message(message), attribute.name, f"{expected}, which the one at index {index} is not")


def _is_message(value: Any) -> bool:
    role: object = None
    content: object = None
    if isinstance(value, Message):
        role, content = value.role, value.content
    elif isinstance(value, Mapping):
        role, content = value.get("role"), value.get("content")
    return isinstance(role, str) and (content is None or isinstance(content, str) or _is_list(content))


def _encode(value: Any) -> bytes | None:
    """The JSON text of a value; None if it has none."""
    try:
        return json.dumps(_json_value(value), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _json_value(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _json_value(item) for key, item in value.items()}
    return [_json_value(item) for item in value] if _is_list(value) else value


#: Names of the same fields in other APIs, to suggest the right one.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "model": ("engine", "model_name", "model_id"),
    "messages": ("prompt", "input", "text", "conversation"),
    "prompt": ("input", "text", "messages"),
    "input": ("text", "prompt", "messages"),
    "max_completion_tokens": ("max_tokens", "max_output_tokens", "max_new_tokens", "max_length"),
    "stop": ("stop_sequences", "stop_sequence"),
    "n": ("num_images", "num_choices", "best_of"),
    "tools": ("functions",),
    "tool_choice": ("function_call",),
    "num_inference_steps": ("steps", "num_steps", "inference_steps"),
    "guidance_scale": ("guidance", "cfg_scale"),
    "size": ("width", "height", "resolution", "image_size"),
    "cfg_weight": ("cfg", "cfg_scale"),
    "extra_body": ("extra", "extra_fields", "extra_json"),
    "timeout": ("request_timeout", "max_wait"),
}


def _unknown_field(kind: type, name: str, known: Sequence[str]) -> InvalidRequestError:
    candidates = [one for one in known if name in _ALIASES.get(one, ())]
    candidates += difflib.get_close_matches(name, known, 1)
    suggestion = f": did you mean {candidates[0]}?" if candidates else "."
    text = f"{short_repr(name)} is not a field of {kind.__name__}{suggestion} Pass undocumented fields in extra_body"
    return InvalidRequestError(text, name)


def _checks_names(kind: type[T]) -> type[T]:
    """Make unknown and missing fields of a request an `InvalidRequestError` instead of a `TypeError`."""
    init: Callable[..., None] = kind.__init__
    attributes: tuple[Attribute[Any], ...] = attrs.fields(kind)  # type: ignore[arg-type]
    known = [attribute.name for attribute in attributes]
    required = [attribute.name for attribute in attributes if attribute.default is attrs.NOTHING]

    @functools.wraps(init)
    def checked(self: T, /, *args: Any, **fields: Any) -> None:
        unknown = [name for name in fields if name not in known]
        missing = [] if args else [name for name in required if name not in fields]
        if unknown or missing:
            del self  # its repr would fail in a traceback that shows locals, since it has no attributes yet
        if unknown:
            raise _unknown_field(kind, unknown[0], known)
        if missing:
            raise InvalidRequestError(f"{missing[0]} is missing", missing[0])
        init(self, *args, **fields)

    kind.__init__ = checked  # type: ignore[method-assign, assignment]
    return kind


def _is_extra(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and all(isinstance(name, str) for name in value))


@frozen(kw_only=True)
class TaskRequest:
    """The base class of requests: what all create calls have in common.

    - `extra_body`: other fields to send. They replace documented fields of the same name.
    - `timeout`: seconds for the whole submission, and again for the whole wait of the watch that it returns. None for
      no timeout; the client's by default. It is not sent.

    All fields are keyword arguments. Raises `InvalidRequestError` for an unknown, missing or invalid field.
    """

    extra_body: Mapping[str, Any] | None = field(
        default=None, validator=_validator("a mapping of fields", _is_extra), repr=False, metadata={"wire": False}
    )
    timeout: float | Default | None = field(default=DEFAULT, repr=False, metadata={"wire": False})

    def body(self) -> bytes:
        """The JSON to send. Raises `InvalidRequestError` for a value that JSON can't represent."""
        given = {
            attribute.name: getattr(self, attribute.name)
            for attribute in attrs.fields(type(self))
            if attribute.metadata.get("wire", True)
        }
        sent = {name: value for name, value in given.items() if value is not None}
        body = _encode({**sent, **(self.extra_body or {})})
        if body is None:
            name = next((name for name, value in sent.items() if _encode(value) is None), "extra_body")
            text = f"{name} has a value that JSON has no way to write, such as bytes or a number that is not finite"
            raise InvalidRequestError(text, name)
        return body


@_checks_names
@frozen(kw_only=True)
class ChatRequest(TaskRequest):
    """A request for a chat task. Ranges, and defaults in brackets, are those of the service's documentation.

    - `messages`: the conversation, as `Message` or mappings with `role` and `content`; at least one.
    - `frequency_penalty`, `presence_penalty`: -2 to 2 (0).
    - `max_completion_tokens`: -1 to 600 (128).
    - `n`: 1 or more (1).
    - `temperature`: at most 2 (1).
    - `top_p`: at most 1 (1).

    The other fields are sent as given.
    """

    model: str = field(validator=_not_empty)
    messages: Sequence[Message | Mapping[str, Any]] = field(validator=_messages, repr=False)
    reasoning_effort: str | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    frequency_penalty: float | None = _number(-2, 2)
    presence_penalty: float | None = _number(-2, 2)
    max_completion_tokens: int | None = _number(-1, 600, whole=True)
    n: int | None = _count()
    modalities: Sequence[str] | None = None
    seed: int | None = None
    service_tier: str | None = None
    stop: Sequence[str] | None = field(default=None, repr=False)
    stream: bool | None = None
    stream_options: Mapping[str, Any] | None = None
    temperature: float | None = _number(None, 2)
    top_p: float | None = _number(None, 1)
    tools: Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None


@_checks_names
@frozen(kw_only=True)
class ImageRequest(TaskRequest):
    """A request for an image task. Ranges, and defaults in brackets, are those of the service's documentation.

    - `prompt`: at most 1,000 characters.
    - `guidance_scale`: 1 to 10 (5).
    - `num_inference_steps`: 1 to 50 (10).
    - `n`: 1 or more (1).
    - `size`: width and height, such as "768x768" ("768x768").

    The other fields are sent as given.
    """

    model: str = field(validator=_not_empty)
    prompt: str = field(validator=_text(0, 1000), repr=False)
    seed: int | None = None
    style: str | None = None
    guidance_scale: int | None = _number(1, 10, whole=True)
    num_inference_steps: int | None = _number(1, 50, whole=True)
    n: int | None = _count()
    response_format: str | None = None
    size: str | None = None


@_checks_names
@frozen(kw_only=True)
class SpeechRequest(TaskRequest):
    """A request for a speech task. Ranges, and defaults in brackets, are those of the service's documentation.

    - `model`: such as "Chatterbox".
    - `input`: the text to speak, of 2 to 4,096 characters.
    - `voice`: "leo", "nora" or the id of a file ("leo").
    - `temperature`: 0 to 1 (0.8).
    - `exaggeration`, `cfg_weight`: 0 to 1 (0.5).

    The other fields are sent as given.
    """

    model: str = field(validator=_not_empty)
    input: str = field(validator=_text(2, 4096), repr=False)
    voice: str | None = None
    stream: bool | None = None
    temperature: float | None = _number(0, 1)
    exaggeration: float | None = _number(0, 1)
    cfg_weight: float | None = _number(0, 1)
