"""What must hold for any answer: run by the fuzzer, by its slice in the tests, and by the codec's properties."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from distribute_async import APIStatusError, ChatResult, DistributeError
from tests.fuzz.corpus import unpacked
from tests.seams import RULES, clear_json_choice, decoded, is_using_orjson, pause_of, rule_for

JsonPath = Literal["orjson", "standard library"]
JSON_PATHS: tuple[JsonPath, ...] = ("orjson", "standard library")

Heard = ChatResult | DistributeError


@contextlib.contextmanager
def reading_json_with(path: JsonPath) -> Iterator[None]:
    """As if the extra `speed` was installed, or as if it wasn't."""
    hidden = sys.modules.get("orjson")
    if path == "standard library":
        sys.modules["orjson"] = None  # type: ignore[assignment]  # makes the import fail
    clear_json_choice()
    try:
        assert is_using_orjson() == (path == "orjson")
        yield
    finally:
        if hidden is None:
            sys.modules.pop("orjson", None)
        else:
            sys.modules["orjson"] = hidden
        clear_json_choice()


def heard(status_code: int, headers: Mapping[str, str], body: bytes) -> Heard:
    """What the codec makes of an answer, once all that must hold of it has been checked, on both JSON paths."""
    by_path = []
    for path in JSON_PATHS:
        with reading_json_with(path):
            by_path.append(decoded(status_code, headers, body))
    for one in by_path:
        if isinstance(one, ChatResult):
            assert status_code == 200
            _check_model(one)
        else:
            _check_error(one)
    assert _shown(by_path[0]) == _shown(by_path[1])
    return by_path[0]


def _check_model(model: ChatResult) -> None:
    wire = json.dumps(model.to_dict(), allow_nan=False)
    again = decoded(200, {}, wire.encode())
    assert isinstance(again, ChatResult)
    assert json.dumps(again.to_dict()) == wire
    assert again == model
    assert hash(again) == hash(model)
    assert pickle.loads(pickle.dumps(model)) == model
    assert isinstance(repr(model), str)
    assert isinstance(model.text, str | None)
    for known in (model.is_over, model.is_failed, model.has_output, model.status.is_known, model.status.is_terminal):
        assert isinstance(known, bool)
    assert model.created_at is None or model.created_at.tzinfo is not None
    assert model.finished_at is None or model.finished_at.tzinfo is not None


def _check_error(error: Any) -> None:
    assert isinstance(error, DistributeError)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert error.__traceback__ is None
    assert all(value is None or type(value) in {int, float, str} for value in error.args)
    assert len(str(error)) < 1_000
    assert str(error).isprintable()
    assert rule_for(error) in RULES
    assert math.isfinite(pause_of(error))
    assert pause_of(error) >= 0
    if isinstance(error, APIStatusError):
        assert error.retry_after is None or (math.isfinite(error.retry_after) and error.retry_after >= 0)


def _shown(one: Heard) -> tuple[object, ...]:
    # A date in Retry-After may be read against the clock, which has gone on meanwhile: the seconds are left out.
    if isinstance(one, ChatResult):
        return (json.dumps(one.to_dict()),)
    return (type(one), *(one.args[:3] if isinstance(one, APIStatusError) else one.args))


def try_one(data: bytes) -> None:
    """One input of the fuzzer; raises where the codec breaks a promise."""
    status_code, headers, body = unpacked(data)
    heard(status_code, headers, body)
