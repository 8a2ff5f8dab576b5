"""What tasks are created from: the documented fields of each create call, checked before anything is sent.

Used by `kinds`, which gives each kind of task one of these; `Tasks.submit` takes its fields as keywords. The
service publishes them in its documentation, not in its specification, and some of its enumerations not at all: these
pass any value through, and `extra_body` passes what is not known here. Fields that are not given are not sent, so that
the service's own defaults hold.
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


def _check(name: str, want: str, fits: bool) -> None:
    # The value isn't repeated: it may be somebody's prompt.
    if not fits:
        raise InvalidRequestError(f"{name} must be {want}", name)


# A required field is written as `field(validator=…)`: to type checkers anything else looks like a default.


def _fitting(want: str, fits: Callable[[Any], bool]) -> Validator:
    """For a value that fits."""

    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        _check(attribute.name, want, fits(value))

    return check


def _text(shortest: int, longest: int) -> Validator:
    """For a text; lengths in characters."""
    want = f"a text of {shortest} to {longest} characters"
    return _fitting(want, lambda value: isinstance(value, str) and shortest <= len(value) <= longest)


_named = _fitting("a text that is not empty", lambda value: isinstance(value, str) and value != "")


def _optional(want: str, fits: Callable[[Any], bool]) -> Any:
    """A field that may be left out, for a value that fits."""
    return field(default=None, validator=_fitting(want, lambda value: value is None or fits(value)))


def _number(low: float | None, high: float, *, whole: bool = False) -> Any:
    """An optional field for a number within documented bounds."""
    kind = "a whole number" if whole else "a number"

    def fits(value: Any) -> bool:
        is_kind = is_number(value) and (isinstance(value, int) or not whole)
        return is_kind and value <= high and (low is None or value >= low)

    return _optional(f"{kind} of at most {high:g}" if low is None else f"{kind} from {low:g} to {high:g}", fits)


def _count() -> Any:
    """An optional field for a whole number of 1 or more."""
    return _optional("a whole number of 1 or more", is_count)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _conversation(_: object, attribute: Attribute[Any], value: Any) -> None:
    _check(attribute.name, "a list of messages, at least one", _is_list(value) and bool(value))
    want = 'a list of mappings such as {"role": "user", "content": "…"}, or of Message'
    for index, message in enumerate(value):
        _check(attribute.name, f"{want}, which the one at index {index} is not", _is_message(message))


def _is_message(value: Any) -> bool:
    role: object = None
    content: object = None
    if isinstance(value, Message):
        role, content = value.role, value.content
    elif isinstance(value, Mapping):
        role, content = value.get("role"), value.get("content")
    return isinstance(role, str) and (content is None or isinstance(content, str) or _is_list(content))


def _json(value: Any) -> bytes | None:
    try:
        return json.dumps(_sent(value), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _sent(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _sent(item) for key, item in value.items()}
    return [_sent(item) for item in value] if _is_list(value) else value


#: What fields of this meaning are called elsewhere.
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


def _unknown(kind: type, name: str, known: Sequence[str]) -> InvalidRequestError:
    likely = [one for one in known if name in _ALIASES.get(one, ())]
    likely += difflib.get_close_matches(name, known, 1)
    meant = f": did you mean {likely[0]}?" if likely else "."
    words = f"{short_repr(name)} is no field of {kind.__name__}{meant} What isn't documented goes into extra_body"
    return InvalidRequestError(words, name)


def checks_names(kind: type[T]) -> type[T]:
    """Of a class of requests: fields that it hasn't, and required ones that are missing, are errors like any other."""
    init: Callable[..., None] = kind.__init__
    taken: tuple[Attribute[Any], ...] = attrs.fields(kind)  # type: ignore[arg-type]
    known = [attribute.name for attribute in taken]
    required = [attribute.name for attribute in taken if attribute.default is attrs.NOTHING]

    @functools.wraps(init)
    def checked(self: T, /, *args: Any, **fields: Any) -> None:
        unknown = [name for name in fields if name not in known]
        missing = [] if args else [name for name in required if name not in fields]
        if unknown or missing:
            del self  # it isn't made yet: a traceback with locals would ask in vain for its repr
        if unknown:
            raise _unknown(kind, unknown[0], known)
        if missing:
            raise InvalidRequestError(f"{missing[0]} is missing", missing[0])
        init(self, *args, **fields)

    kind.__init__ = checked  # type: ignore[method-assign, assignment]
    return kind


def _is_extra(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and all(isinstance(name, str) for name in value))


@frozen(kw_only=True)
class TaskRequest:
    """What all create calls have in common.

    `extra_body`: further fields to send; one that is documented too is replaced. `timeout` is not sent: seconds for the
    whole submission, and again for the whole wait of the watch that it gives; None for none, the client's by default.
    """

    extra_body: Mapping[str, Any] | None = field(
        default=None, validator=_fitting("a mapping of fields", _is_extra), repr=False, metadata={"wire": False}
    )
    timeout: float | Default | None = field(default=DEFAULT, repr=False, metadata={"wire": False})

    def body(self) -> bytes:
        """The JSON to send. Raises `InvalidRequestError` where a value can't be sent."""
        given = {
            attribute.name: getattr(self, attribute.name)
            for attribute in attrs.fields(type(self))
            if attribute.metadata.get("wire", True)
        }
        sent = {name: value for name, value in given.items() if value is not None}
        body = _json({**sent, **(self.extra_body or {})})
        if body is None:
            name = next((name for name, value in sent.items() if _json(value) is None), "extra_body")
            words = f"{name} holds what JSON has no way to write, such as bytes or a number that is not finite"
            raise InvalidRequestError(words, name)
        return body


@checks_names
@frozen(kw_only=True)
class ChatRequest(TaskRequest):
    """A chat task. Ranges and defaults (in brackets) are those of the public documentation.

    `messages`: the conversation, as `Message`s or mappings with `role` and `content`. `frequency_penalty` and
    `presence_penalty` from -2 to 2 (0); `max_completion_tokens` from -1 to 600 (128); `n` 1 or more (1); `temperature`
    at most 2 (1); `top_p` at most 1 (1). The other fields are passed through.
    """

    model: str = field(validator=_named)
    messages: Sequence[Message | Mapping[str, Any]] = field(validator=_conversation, repr=False)
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


@checks_names
@frozen(kw_only=True)
class ImageRequest(TaskRequest):
    """A task that makes pictures. Ranges and defaults (in brackets) are those of the public documentation.

    `prompt` has at most 1,000 characters; `guidance_scale` 1 to 10 (5); `num_inference_steps` 1 to 50 (10); `n` 1 or
    more (1); `size` such as "768x768" (that). The other fields are passed through.
    """

    model: str = field(validator=_named)
    prompt: str = field(validator=_text(0, 1000), repr=False)
    seed: int | None = None
    style: str | None = None
    guidance_scale: int | None = _number(1, 10, whole=True)
    num_inference_steps: int | None = _number(1, 50, whole=True)
    n: int | None = _count()
    response_format: str | None = None
    size: str | None = None


@checks_names
@frozen(kw_only=True)
class SpeechRequest(TaskRequest):
    """A task that speaks. Ranges and defaults (in brackets) are those of the public documentation.

    `model` such as "Chatterbox"; `input`, what to say, has 2 to 4,096 characters; `voice` "leo", "nora" or the id of a
    file ("leo"); `temperature` 0 to 1 (0.8); `exaggeration` and `cfg_weight` 0 to 1 (0.5).
    """

    model: str = field(validator=_named)
    input: str = field(validator=_text(2, 4096), repr=False)
    voice: str | None = None
    stream: bool | None = None
    temperature: float | None = _number(0, 1)
    exaggeration: float | None = _number(0, 1)
    cfg_weight: float | None = _number(0, 1)
