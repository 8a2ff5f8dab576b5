"""What tasks are created from: the documented fields of each create call, checked before anything is sent.

Used by `_endpoints`, which gives each kind of task one of these; `Tasks.submit` takes its fields as keywords. The
service publishes them in its documentation, not in its specification, and some of its enumerations not at all: these
pass any value through, and `extra_body` passes what is not known here. Fields that are not given are not sent, so that
the service's own defaults hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from attrs import Attribute, field, frozen

from distribute_async._config import DEFAULT, Default, is_count, is_number
from distribute_async._errors import ConfigurationError
from distribute_async._models import Message


def _check(name: str, want: str, fits: bool) -> None:
    # The value isn't repeated: it may be somebody's prompt.
    if not fits:
        raise ConfigurationError(f"{name} must be {want}")


def _checked(want: str, fits: Callable[[Any], bool], **options: Any) -> Any:
    """A field for a value that fits."""

    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        _check(attribute.name, want, fits(value))

    return field(validator=check, **options)


def _optional(want: str, fits: Callable[[Any], bool]) -> Any:
    """The same for one that may be left out."""
    return _checked(want, lambda value: value is None or fits(value), default=None)


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


def _text(shortest: int, longest: int) -> Any:
    """A required field for a text; lengths in characters."""
    want = f"a text of {shortest} to {longest} characters"
    return _checked(want, lambda value: isinstance(value, str) and shortest <= len(value) <= longest, repr=False)


def _name() -> Any:
    """A required field for a name."""
    return _checked("a text that is not empty", lambda value: isinstance(value, str) and value != "")


def _conversation(_: object, attribute: Attribute[Any], value: Any) -> None:
    fits = isinstance(value, Sequence) and not isinstance(value, str | bytes) and bool(value)
    _check(attribute.name, "a list of messages, at least one", fits)
    for message in value:
        fits = isinstance(message, Message) or (isinstance(message, Mapping) and isinstance(message.get("role"), str))
        _check(attribute.name, 'a list of mappings such as {"role": "user", "content": "…"}, or of Message', fits)


def _sent(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _sent(item) for key, item in value.items()}
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)
    return [_sent(item) for item in value] if is_list else value


@frozen(kw_only=True)
class TaskRequest:
    """What all create calls have in common.

    `extra_body`: further fields to send; one that is documented too is replaced. `timeout` is not sent: seconds for the
    whole submission, and again for the whole wait of the watch that it gives; None for none, the client's by default.
    """

    extra_body: Mapping[str, Any] | None = field(default=None, repr=False, metadata={"wire": False})
    timeout: float | Default | None = field(default=DEFAULT, repr=False, metadata={"wire": False})

    def body(self) -> bytes:
        """The JSON to send. Raises `ConfigurationError` where a value can't be sent."""
        given = {
            attribute.name: getattr(self, attribute.name)
            for attribute in attrs.fields(type(self))
            if attribute.metadata.get("wire", True)
        }
        sent = {name: value for name, value in given.items() if value is not None}
        try:
            return json.dumps(_sent({**sent, **(self.extra_body or {})}), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            pass
        raise ConfigurationError("a field holds what JSON has no way to write, such as a number that is not finite")


@frozen(kw_only=True)
class ChatRequest(TaskRequest):
    """A chat task. Ranges and defaults (in brackets) are those of the public documentation.

    `messages`: the conversation, as `Message`s or mappings with `role` and `content`. `frequency_penalty` and
    `presence_penalty` from -2 to 2 (0); `max_completion_tokens` from -1 to 600 (128); `n` 1 or more (1); `temperature`
    at most 2 (1); `top_p` at most 1 (1). The other fields are passed through.
    """

    model: str = _name()
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


@frozen(kw_only=True)
class ImageRequest(TaskRequest):
    """A task that makes pictures. Ranges and defaults (in brackets) are those of the public documentation.

    `prompt` has at most 1,000 characters; `guidance_scale` 1 to 10 (5); `num_inference_steps` 1 to 50 (10); `n` 1 or
    more (1); `size` such as "768x768" (that). The other fields are passed through.
    """

    model: str = _name()
    prompt: str = _text(0, 1000)
    seed: int | None = None
    style: str | None = None
    guidance_scale: int | None = _number(1, 10, whole=True)
    num_inference_steps: int | None = _number(1, 50, whole=True)
    n: int | None = _count()
    response_format: str | None = None
    size: str | None = None


@frozen(kw_only=True)
class SpeechRequest(TaskRequest):
    """A task that speaks. Ranges and defaults (in brackets) are those of the public documentation.

    `model` such as "Chatterbox"; `input`, what to say, has 2 to 4,096 characters; `voice` "leo", "nora" or the id of a
    file ("leo"); `temperature` 0 to 1 (0.8); `exaggeration` and `cfg_weight` 0 to 1 (0.5).
    """

    model: str = _name()
    input: str = _text(2, 4096)
    voice: str | None = None
    stream: bool | None = None
    temperature: float | None = _number(0, 1)
    exaggeration: float | None = _number(0, 1)
    cfg_weight: float | None = _number(0, 1)
