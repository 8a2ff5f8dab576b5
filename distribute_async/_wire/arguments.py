"""Validation of arguments: numbers, counts, timeouts, and the fields of settings. Pure; everybody may use it."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, Final

from attrs import Attribute
from attrs import field as _field

from distribute_async._wire.errors import ConfigurationError


class Default(Enum):
    """The type of `DEFAULT`, which stands for the client's own value. None can't: it already means no timeout."""

    DEFAULT = "the client's"

    def __repr__(self) -> str:
        return self.value


DEFAULT: Final = Default.DEFAULT


def _require(is_valid: bool, instance: object, attribute: Attribute[Any], value: object, expected: str) -> None:
    if not is_valid:
        raise ConfigurationError(
            f"{type(instance).__name__}.{attribute.name} must be {expected}, not {short_repr(value)}"
        )


def short_repr(value: object) -> str:
    """The repr of a refused value for an error's text, cut to 60 characters."""
    try:
        text = repr(value)
    except Exception:  # such as an int of more than 4,300 digits
        return f"such a {type(value).__name__}"
    return text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}…"


_MAX_REPR = 60


def is_number(value: object) -> bool:
    """Whether `value` is a finite number that fits into a double, and not a bool."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def seconds(default: float) -> Any:
    """A field for seconds: a finite number of 0 or more."""

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        _require(is_number(value) and value >= 0, instance, attribute, value, "a number of 0 or more")

    return _field(default=default, validator=check)


def growth(default: float) -> Any:
    """A field for the factor of a backoff: a finite number of 1 or more."""

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        _require(is_number(value) and value >= 1, instance, attribute, value, "a number of 1 or more")

    return _field(default=default, validator=check)


def positive(default: float) -> Any:
    """A field for a finite number above 0."""

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        _require(is_number(value) and value > 0, instance, attribute, value, "a number above 0")

    return _field(default=default, validator=check)


def is_count(value: object) -> bool:
    """Whether `value` is a whole number of 1 or more that fits into a double, and not a bool."""
    return isinstance(value, int) and is_number(value) and value >= 1


def count(default: int) -> Any:
    """A field for a whole number of 1 or more."""

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        _require(is_count(value), instance, attribute, value, "a whole number of 1 or more")

    return _field(default=default, validator=check)


def rate() -> Any:
    """A field for a rate: a finite number above 0, or None, the default, for no limit."""

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        is_valid = value is None or (is_number(value) and value > 0)
        _require(is_valid, instance, attribute, value, "a number above 0, or None for no limit")

    return _field(default=None, validator=check)


def checked_count(name: str, value: int) -> int:
    """The argument itself. Raises `ConfigurationError` for anything but a whole number of 1 or more."""
    if not is_count(value):
        raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {short_repr(value)}")
    return value


def wait_timeout(value: float | None) -> float:
    """The seconds of a `timeout=` argument; infinity for None.

    Raises `ConfigurationError` for anything but None or a number of 0 or more.
    """
    if value is None:
        return math.inf
    is_endless = isinstance(value, float) and value == math.inf
    if not (is_endless or (is_number(value) and value >= 0)):
        raise ConfigurationError(f"timeout must be None or a number of seconds of 0 or more, not {short_repr(value)}")
    return value
