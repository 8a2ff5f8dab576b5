"""(status code, headers, body) → a model or an error, as a value. Pure; the only module that knows cattrs and JSON.

Strict where a wrong guess would be silent (types are never coerced), open where the service may grow (unknown
fields, statuses, roles). Whatever the bytes are, nothing comes out but a model or an error of ours.
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
from distribute_async._wire.models import R, Wire
from distribute_async._wire.status import TaskStatus

#: Nesting that is still decoded. The specification needs 7; deeper values would break a caller's recursion.
MAX_DEPTH = 64
#: Entries of one list of the specification (choices, tool calls). It allows 2 choices; each costs 20 µs of the loop.
MAX_ITEMS = 1_000
#: Characters of a status. The specification's longest has 20.
MAX_STATUS_LENGTH = 64
#: Fields with few values, each of which comes again in a hundred thousand answers: it is kept once for all of them.
_INTERNED_FIELDS = {"model", "role", "finish_reason", "type", "service_tier"}
#: Characters of a value that is kept so, and how many values are. (Not `sys.intern`: on Python 3.12.1 it forgets none.)
MAX_INTERNED_LENGTH = 64
MAX_INTERNED = 256
#: Of the service's own words in an error.
MAX_MESSAGE_LENGTH = 300

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

W = TypeVar("W", bound=Wire)


def decode(
    status_code: int, headers: Mapping[str, str], body: bytes, result_type: type[R], *, is_local: bool = False
) -> R | DistributeError:
    """What an answer means: a `result_type` for a sound 200, else the error to act on (returned, not raised).

    `is_local`: it is of a service on this machine.
    """
    if status_code != 200:
        return status_error(status_code, headers, body)
    try:
        value = _parse(body)
    except _InvalidValueError as error:
        return APIResponseValidationError(f"the answer is not what the API promises: {error}")
    except ValueError:
        return APIResponseValidationError("the answer is empty or no JSON", "not_json")
    if not isinstance(value, dict):
        return APIResponseValidationError("the answer is no JSON object")
    try:
        return _converter(is_local).structure(value, result_type)
    except Exception as error:  # cattrs raises groups of anything its hooks raise
        reasons = transform_error(error, path="", format_exception=lambda error, _type: _reason(error))
    return APIResponseValidationError(f"the answer is not what the API promises: {'; '.join(reasons[:3])}")


def status_error_type(status_code: int) -> type[APIStatusError] | None:
    """The error for a status code; None for codes that are no error's (1xx, 2xx, and what HTTP doesn't define)."""
    if not 300 <= status_code < 600:
        return None
    if status_code >= 500:
        return InternalServerError
    return _STATUS_ERRORS.get(status_code, APIStatusError)


def status_error(
    status_code: int, headers: Mapping[str, str], body: bytes, redact: Callable[[str], str] = str
) -> DistributeError:
    """The error for an answer with another status code than 200. `redact` cuts out of its words what nobody may see."""
    error = status_error_type(status_code)
    if error is None:
        return APIResponseValidationError(f"the API has no answer with status code {status_code}", "code")
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
    # Only once it is decoded, and before it is cut: an escaped or a cut secret is none by its bytes.
    return _one_line(redact(message)) if isinstance(message, str) else None


def _one_line(text: str) -> str | None:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * MAX_MESSAGE_LENGTH]).split())
    return line[:MAX_MESSAGE_LENGTH] or None


_DELAY_SECONDS = re.compile(r"\d+(\.\d+)?", re.ASCII)
#: Seconds. However many digits a pause has, it is a finite one that is too long.
_MAX_DELAY = 1e15


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a `Retry-After` header (RFC 9110 §10.2.3); None where there is none that makes sense.

    A date is read against the answer's own `Date`, so that a wrong clock here does no harm; this machine's clock
    serves where there is none. A date gone by is 0.
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
    """A value that is not what the specification says; its text never holds the value."""


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _InvalidValueError("a number is not finite, or too large for a double")
    return number


def _integer(text: str) -> float:
    # As orjson does it: what 64 bits can't hold is a double.
    if len(text) > 20:
        return _finite(text)
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(number)


def _parse(body: bytes) -> Any:
    """The JSON value of a body. Raises `_InvalidValueError` for one that is refused, `ValueError` for no JSON."""
    try:
        value = _loads(body)
        is_deep = _is_deeper_than(value, MAX_DEPTH)
    except RecursionError:
        is_deep = True
    if is_deep:
        raise _InvalidValueError("nested too deeply")
    return value


def _loads(body: bytes) -> Any:
    body = body.removeprefix(codecs.BOM_UTF8)  # RFC 8259 §8.1: nobody should send one, and it may be ignored
    orjson_loads = _orjson_loads()
    if orjson_loads is not None:
        try:
            return orjson_loads(body)
        except ValueError:
            pass  # it refuses what the standard library takes (a lone surrogate in a paid answer); ask that one
    return json.loads(body.decode("utf-8"), parse_int=_integer, parse_float=_finite, parse_constant=_finite)


@functools.cache
def _orjson_loads() -> Callable[[bytes], Any] | None:
    # Looked up at the first answer: the extra `speed` costs nothing at import, and is optional.
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
    return "a required field is missing" if isinstance(error, KeyError) else "not what the specification says"


def _string(value: Any, _: Any) -> str:
    if type(value) is not str:
        raise _InvalidValueError("no string")
    return value


@functools.lru_cache(MAX_INTERNED)
def interned(text: str) -> str:
    """The same text for equal ones, of those that came lately."""
    return text


def _interned_string(value: Any, _: Any) -> str:
    text = _string(value, _)
    return interned(text) if len(text) <= MAX_INTERNED_LENGTH else text


def _number(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise _InvalidValueError("no number")
    return value  # type: ignore[no-any-return]  # an int stays the int that was sent


def _timestamp(value: Any, _: Any) -> float | str:
    return _string(value, _) if type(value) is str else _number(value, _)


def _status(value: Any, _: Any) -> TaskStatus:
    text = _string(value, _)
    # Statuses get into logs and onto screens: any word will do, but no page and nothing that steers a terminal.
    if not 0 < len(text) <= MAX_STATUS_LENGTH or not text.isprintable():
        raise _InvalidValueError("no word")
    return TaskStatus(text)


@functools.cache
def _converter(is_local: bool) -> Converter:
    converter = Converter()
    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(float | str, _timestamp)
    converter.register_structure_hook(float | str | None, _timestamp)  # where there is one, it isn't null
    converter.register_structure_hook(TaskStatus, _status)

    def is_tuple(kind: Any) -> bool:
        return get_origin(kind) is tuple

    @converter.register_structure_hook_factory(is_tuple)
    def tuple_hook(kind: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
        item_kind: Any = get_args(kind)[0]

        def hook(value: Any, _: Any) -> tuple[Any, ...]:
            if type(value) is not list:
                raise _InvalidValueError("no list")
            if len(value) > MAX_ITEMS:
                raise _InvalidValueError(f"more than {MAX_ITEMS} entries")
            items = []
            for index, item in enumerate(value):
                try:
                    items.append(converter.structure(item, item_kind))
                except Exception as error:
                    # The first unfit one is enough: to collect half a million of them would hold up the loop.
                    error.add_note(IterableValidationNote("", index, item_kind))
                    raise IterableValidationError("", [error], kind) from None
            return tuple(items)

        return hook

    @converter.register_structure_hook_factory(lambda kind: isinstance(kind, type) and issubclass(kind, Wire))
    def model_hook(kind: type[W]) -> Callable[[Any, Any], W]:
        fields = [field for field in attrs.fields(kind) if field.init]
        optional = {
            field.name: field.default is not attrs.NOTHING for field in fields if field.metadata.get("wire", True)
        }
        origin = {field.name: is_local for field in fields if field.metadata.get("is_local")}
        overrides: Any = {name: override(struct_hook=_interned_string) for name in optional.keys() & _INTERNED_FIELDS}
        overrides["_extra"] = override(struct_hook=lambda value, _: value)
        structure = make_dict_structure_fn(kind, converter, **overrides)

        def hook(value: Any, _: Any) -> W:
            if type(value) is not dict:
                raise _InvalidValueError("no object")
            # Null where a field is optional is the field left out.
            known = {
                name: value[name]
                for name, is_optional in optional.items()
                if name in value and not (is_optional and value[name] is None)
            }
            known |= origin
            known["_extra"] = {name: item for name, item in value.items() if name not in optional}
            return structure(known, kind)

        return hook

    return converter
