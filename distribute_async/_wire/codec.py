"""Decodes responses: status code, headers and body become a model or an error, as a value. Pure.

Used by `poller`, `http` and `download`. It is the only module that uses cattrs and decodes JSON. Types are never
coerced, since a wrong guess would go unnoticed. Unknown fields, statuses and roles are accepted, since the service may
add some. Whatever the bytes are, the result is a model or a `DistributeError`.
"""

from __future__ import annotations

import codecs
import functools
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, get_args, get_origin

import attrs
from cattrs import Converter, transform_error
from cattrs.errors import IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from distribute_async._wire.errors import (
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    DistributeError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)
from distribute_async._wire.models import WireModel
from distribute_async._wire.status import TaskStatus

#: Levels of nesting that are accepted. The specification needs 7; deeper values could break a caller's recursion.
MAX_DEPTH = 64
#: Entries of one list (choices, tool calls). The specification allows 2 choices. Each takes 20 µs to decode.
MAX_ITEMS = 1_000
#: Characters of a status. The longest in the specification has 20.
MAX_STATUS_LENGTH = 64
#: Fields with few distinct values. Equal values share one string, which saves memory where many results are kept.
_INTERNED_FIELDS = {"model", "role", "finish_reason", "type", "service_tier"}
#: Characters of a string that is shared, and how many are. (Not `sys.intern`: on Python 3.12.1 it never frees any.)
MAX_INTERNED_LENGTH = 64
MAX_INTERNED = 256
#: Characters of the service's own message in an error.
MAX_MESSAGE_LENGTH = 300
_NOT_AS_PROMISED = "the response is not what the API promises"

_STATUS_ERRORS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PermissionDeniedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    410: NotFoundError,
    422: BadRequestError,
    429: RateLimitError,
}

W = TypeVar("W", bound=WireModel)


def decode(
    status_code: int, headers: Mapping[str, str], body: bytes, result_type: type[W], *, is_local: bool = False
) -> W | DistributeError:
    """Decode a response: to a `result_type` for a valid 200, otherwise to an error, which is returned, not raised.

    `is_local`: whether the service is on this machine; `File.is_local` keeps it.
    """
    if status_code != 200:
        return status_error(status_code, headers, body)
    try:
        value = _parse(body)
    except _InvalidValueError as error:
        return APIResponseValidationError(f"{_NOT_AS_PROMISED}: {error}")
    except ValueError:
        return APIResponseValidationError("the response is empty or not JSON", "not_json")
    if not isinstance(value, dict):
        return APIResponseValidationError("the response is not a JSON object")
    try:
        return _converter(is_local).structure(value, result_type)
    except Exception as error:  # cattrs raises exception groups of whatever its hooks raise
        reasons = transform_error(error, path="", format_exception=lambda error, _type: _reason(error))
    return APIResponseValidationError(f"{_NOT_AS_PROMISED}: {'; '.join(reasons[:3])}")


def status_error_type(status_code: int) -> type[APIStatusError] | None:
    """The error type for a status code; None for codes without one (1xx, 2xx, and codes that HTTP doesn't define)."""
    if not 300 <= status_code < 600:
        return None
    if status_code >= 500:
        return InternalServerError
    return _STATUS_ERRORS.get(status_code, APIStatusError)


def status_error(
    status_code: int, headers: Mapping[str, str], body: bytes, redact: Callable[[str], str] = str
) -> DistributeError:
    """The error for a status code other than 200. `redact` removes secrets from the service's message."""
    error = status_error_type(status_code)
    if error is None:
        return APIResponseValidationError(f"the response has the unexpected status code {status_code}", "code")
    return error(
        status_code,
        _message(body, redact),
        _one_line(redact(headers.get("x-request-id", ""))),
        retry_after(headers),
    )


def _message(body: bytes, redact: Callable[[str], str]) -> str | None:
    try:
        value = _parse(body)
    except ValueError:
        return None
    message = value.get("message") if isinstance(value, dict) else None
    # Redacted after decoding and before cutting: an escaped or a cut secret would not be recognised.
    return _one_line(redact(message)) if isinstance(message, str) else None


def _one_line(text: str) -> str | None:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * MAX_MESSAGE_LENGTH]).split())
    return line[:MAX_MESSAGE_LENGTH] or None


_DELAY_SECONDS = re.compile(r"\d+(\.\d+)?", re.ASCII)
#: Seconds. Longer delays, which may be infinite as a double, become this one.
_MAX_DELAY = 1e15


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a `Retry-After` header (RFC 9110 §10.2.3); None if it is missing or invalid.

    A date is compared with the response's own `Date` header, so that a wrong local clock does no harm. The local clock
    is used if there is no such header. A date in the past gives 0.
    """
    text = headers.get("retry-after", "").strip()
    if _DELAY_SECONDS.fullmatch(text):
        return min(float(text), _MAX_DELAY)
    until = _http_date(text)
    if until is None:
        return None
    now = _http_date(headers.get("date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


class _InvalidValueError(ValueError):
    """A value that doesn't match the specification. The text never contains the value."""


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _InvalidValueError("a number is not finite, or too large for a double")
    return number


def _integer(text: str) -> float:
    # As in orjson: an integer that doesn't fit into 64 bits becomes a double.
    if len(text) > 20:
        return _finite(text)
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(number)


def _parse(body: bytes) -> Any:
    """The JSON value of a body. Raises `_InvalidValueError` for one that is refused, `ValueError` for invalid JSON."""
    try:
        value = _loads(body)
        is_deep = _is_deeper_than(value, MAX_DEPTH)
    except RecursionError:
        is_deep = True
    if is_deep:
        raise _InvalidValueError("nested too deeply")
    return value


def _loads(body: bytes) -> Any:
    body = body.removeprefix(codecs.BOM_UTF8)  # RFC 8259 §8.1: it must not be sent, and may be ignored
    orjson_loads = _orjson_loads()
    if orjson_loads is not None:
        try:
            return orjson_loads(body)
        except ValueError:
            pass  # orjson refuses lone surrogates; the standard library accepts them
    return json.loads(body.decode("utf-8"), parse_int=_integer, parse_float=_finite, parse_constant=_finite)


@functools.cache
def _orjson_loads() -> Callable[[bytes], Any] | None:
    # Imported at the first response: the extra `speed` is optional, and importing this package stays fast.
    try:
        import orjson  # noqa: PLC0415
    except ImportError:
        return None
    return orjson.loads


def _is_deeper_than(value: Any, levels: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    while level:
        if levels == 0:
            return True
        levels -= 1
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    return False


def _reason(error: BaseException) -> str:
    if isinstance(error, _InvalidValueError):
        return str(error)
    return "a required field is missing" if isinstance(error, KeyError) else "not as specified"


def _string(value: Any, _: Any) -> str:
    if type(value) is not str:
        raise _InvalidValueError("not a string")
    return value


@functools.lru_cache(MAX_INTERNED)
def interned(text: str) -> str:
    """One string object for equal strings, among those used lately."""
    return text


def _interned_string(value: Any, _: Any) -> str:
    text = _string(value, _)
    return interned(text) if len(text) <= MAX_INTERNED_LENGTH else text


def _number(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise _InvalidValueError("not a number")
    return value  # type: ignore[no-any-return]  # an int stays an int


def _timestamp(value: Any, _: Any) -> float | str:
    return _string(value, _) if type(value) is str else _number(value, _)


def _status(value: Any, _: Any) -> TaskStatus:
    text = _string(value, _)
    # Statuses appear in logs and on terminals, so long texts and control characters are refused.
    if not 0 < len(text) <= MAX_STATUS_LENGTH or not text.isprintable():
        raise _InvalidValueError("not a status")
    return TaskStatus(text)


@functools.cache
def _converter(is_local: bool) -> Converter:
    converter = Converter()
    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(float | str, _timestamp)
    converter.register_structure_hook(float | str | None, _timestamp)  # the hook of the model has removed nulls
    converter.register_structure_hook(TaskStatus, _status)
    converter.register_structure_hook_factory(_is_tuple, lambda kind: _tuple_hook(kind, converter))
    converter.register_structure_hook_factory(_is_model, lambda kind: _model_hook(kind, converter, is_local=is_local))
    return converter


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, WireModel)


def _tuple_hook(kind: Any, converter: Converter) -> Callable[[Any, Any], tuple[Any, ...]]:
    item_kind: Any = get_args(kind)[0]

    def hook(value: Any, _: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _InvalidValueError("not a list")
        if len(value) > MAX_ITEMS:
            raise _InvalidValueError(f"more than {MAX_ITEMS} entries")
        items = []
        for index, item in enumerate(value):
            try:
                items.append(converter.structure(item, item_kind))
            except Exception as error:
                # Stop at the first invalid entry: collecting errors for many entries would block the event loop.
                error.add_note(IterableValidationNote("", index, item_kind))
                raise IterableValidationError("", [error], kind) from None
        return tuple(items)

    return hook


def _model_hook(kind: type[W], converter: Converter, *, is_local: bool) -> Callable[[Any, Any], W]:
    fields = [field for field in attrs.fields(kind) if field.init]
    optional = {field.name: field.default is not attrs.NOTHING for field in fields if field.metadata.get("wire", True)}
    origin = {field.name: is_local for field in fields if field.metadata.get("is_local")}
    overrides: Any = {name: override(struct_hook=_interned_string) for name in optional.keys() & _INTERNED_FIELDS}
    overrides["_extra"] = override(struct_hook=lambda value, _: value)
    structure = make_dict_structure_fn(kind, converter, **overrides)

    def hook(value: Any, _: Any) -> W:
        if type(value) is not dict:
            raise _InvalidValueError("not an object")
        # Null in an optional field means the same as no field.
        known = {
            name: value[name]
            for name, is_optional in optional.items()
            if name in value and not (is_optional and value[name] is None)
        }
        known |= origin
        known["_extra"] = {name: item for name, item in value.items() if name not in optional}
        return structure(known, kind)

    return hook
