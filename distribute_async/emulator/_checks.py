"""What the service takes: the bodies of its calls, strictly checked. Pure; used by `_kinds` and `_app`.

The result calls follow the specification, the create calls the public documentation: an enumeration that it doesn't
give in full takes any value, and a bound that it doesn't give is not checked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

from attrs import frozen

from distribute_async.emulator._lifecycle import TASK_ID

Check = Callable[[Any], bool]


class RefusedError(Exception):
    """A request that is answered with an error: its status code, the service's words, and headers."""

    def __init__(self, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.headers = headers


def _is(*kinds: type) -> Check:
    # bool is an int to Python, but no number to JSON.
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _is_between(low: float, high: float) -> Check:
    return lambda value: _is(int, float)(value) and low <= value <= high


def _is_whole(low: int, high: int) -> Check:
    # To JSON 5.0 is an integer.
    return lambda value: _is_between(low, high)(value) and value == int(value)


def _is_text(shortest: int, longest: int) -> Check:
    return lambda value: isinstance(value, str) and shortest <= len(value) <= longest


def _matches(pattern: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


@frozen
class Shape:
    """An object with these fields, and no others."""

    fields: Mapping[str, Check]
    required: AbstractSet[str]

    def complaint(self, value: Any) -> str | None:
        """What is wrong with `value`, if anything. Never says the value itself."""
        if not isinstance(value, dict):
            return "must be an object"
        for name in sorted(self.required - value.keys()):
            return f"must have required property '{name}'"
        if value.keys() - self.fields.keys():
            return "must not have additional properties"
        wrong = [name for name, item in value.items() if not self.fields[name](item)]
        return f"has a property that is not as documented: '{wrong[0]}'" if wrong else None

    def __call__(self, value: Any) -> bool:
        return self.complaint(value) is None


_MESSAGE = Shape({"role": _is(str), "content": _is(str), "name": _is(str)}, {"role", "content"})
_FUNCTION = Shape({"name": _is(str), "description": _is(str), "parameters": _is(dict), "strict": _is(bool)}, {"name"})
_TOOL = Shape({"type": lambda value: value == "function", "function": _FUNCTION}, {"type", "function"})

#: Width and height of a picture, in pixels. The pattern is documented with the synchronous call alone.
SIZE = re.compile("([1-9][0-9]{0,2}|1024)x([1-9][0-9]{0,2}|1024)")

CHAT = Shape(
    {
        "model": _is(str),
        "messages": _is_list_of(_MESSAGE),
        "reasoning_effort": _is(str),
        "metadata": _is(dict),
        "frequency_penalty": _is_between(-2, 2),
        "presence_penalty": _is_between(-2, 2),
        "max_completion_tokens": _is_between(-1, 600),
        "n": _is(int, float),
        "modalities": _is_list_of(_is(str)),
        "seed": _is(int, float),
        "service_tier": _is(str),
        "stop": _is_list_of(_is(str)),
        "stream": _is(bool),
        "stream_options": _is(dict),
        "temperature": _is_between(-math.inf, 2),
        "top_p": _is_between(-math.inf, 1),
        "tools": _is_list_of(_TOOL),
        "tool_choice": _is(str, dict),
        "parallel_tool_calls": _is(bool),
    },
    {"model", "messages"},
)

IMAGES = Shape(
    {
        "model": _is(str),
        "prompt": _is_text(0, 1000),
        "seed": _is(int, float),
        "style": _is(str),
        "guidance_scale": _is_whole(1, 10),
        "num_inference_steps": _is_whole(1, 50),
        "n": _is(int, float),
        "response_format": _is(str),
        "size": _matches(SIZE),
    },
    {"model", "prompt"},
)

SPEECH = Shape(
    {
        "model": lambda value: value == "Chatterbox",
        "input": _is_text(2, 4096),
        "voice": _is(str),
        "stream": _is(bool),
        "temperature": _is_between(0, 1),
        "exaggeration": _is_between(0, 1),
        "cfg_weight": _is_between(0, 1),
    },
    {"model", "input"},
)

#: The body of every result call.
RESULT = Shape({"id": _matches(TASK_ID)}, {"id"})


def read(body: bytes) -> Any:
    """The JSON value in a body. Raises `RefusedError` (400): RFC 8259 knows no NaN and no encoding but UTF-8."""
    try:
        return json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RefusedError(400, "body is not valid JSON") from None


def checked(value: Any, shape: Shape) -> dict[str, Any]:
    """`value` as the object that a call takes. Raises `RefusedError` (400) where it isn't one."""
    complaint = shape.complaint(value)
    if complaint:
        raise RefusedError(400, f"body {complaint}")
    return dict(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
