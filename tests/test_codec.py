"""The codec as a whole: whatever comes in, a model or an error of ours comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from distribute_async import APIResponseValidationError, APIStatusError, ChatResult
from distribute_async._codec import decode, retry_after
from distribute_async._errors import DistributeError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)

FIELDS = ["id", "status", "created", "finished", "model", "service_tier", "usage", "choices", "message", "extra"]
near_answers = st.dictionaries(st.sampled_from(FIELDS), json_values).map(lambda body: json.dumps(body).encode())
bodies = st.binary() | json_values.map(lambda value: json.dumps(value).encode()) | near_answers
headers = st.dictionaries(st.sampled_from(["retry-after", "date", "x-request-id"]), st.text())


@seed(2611)
@settings(max_examples=400, deadline=None)
@given(status_code=st.integers(100, 999), headers=headers, body=bodies)
def test_anything_gives_a_model_or_an_error_of_ours(status_code: int, headers: dict[str, str], body: bytes) -> None:
    """Any bytes with any status code and headers give a model or one of our errors, as a value, never anything else."""
    for code in (200, status_code):
        heard = decode(code, headers, body, ChatResult)
        assert isinstance(heard, ChatResult | DistributeError)
        if isinstance(heard, ChatResult):
            assert code == 200
            json.dumps(heard.to_dict(), allow_nan=False)


SOUND: dict[str, Any] = {
    "status": "COMPLETED",
    "created": 1,
    "model": "m",
    "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": "c", "role": "assistant"}}],
}


def changed(path: list[str | int], value: object) -> bytes:
    body = json.loads(json.dumps(SOUND))
    at = body
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["status"], 5, "status"),
        (["status"], None, "status"),
        (["created"], "1", "created"),
        (["created"], True, "created"),
        (["model"], None, "model"),
        (["choices"], "abc", "choices"),
        (["choices"], {"0": {}}, "choices"),
        (["choices"], [None], "choices"),
        (["choices"], [{}] * 1001, "choices"),
        (["choices", 0, "index"], "0", "choices[0].index"),
        (["choices", 0, "message", "content"], 1.5, "message.content"),
        (["choices", 0, "message", "role"], None, "message.role"),
        (["choices", 0, "message", "tool_calls"], {}, "message.tool_calls"),
        (["usage"], {"total_tokens": 1}, "usage"),
        (["usage"], [], "usage"),
    ],
)
def test_a_wrong_type_names_its_field_and_hides_its_value(path: list[str | int], value: object, named: str) -> None:
    """A value of the wrong type is refused, never coerced; the error names the field's path and not what was there."""
    error = decode(200, {}, changed(path, value), ChatResult)
    assert isinstance(error, APIResponseValidationError)
    assert error.reason == "shape"
    assert named in str(error)
    assert repr(value) not in str(error)


@pytest.mark.parametrize("field", ["status", "created", "model"])
def test_a_missing_required_field_is_refused(field: str) -> None:
    """What the specification requires must be there."""
    body = {name: value for name, value in SOUND.items() if name != field}
    error = decode(200, {}, json.dumps(body).encode(), ChatResult)
    assert isinstance(error, APIResponseValidationError)
    assert field in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        (" 7 ", 7.0),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("9" * 400, None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("Tue, 24 Nov 2026 08:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 07:00:00 GMT", 0.0),
        ("Tue, 99 Nov 2026 07:00:00 GMT", None),
    ],
)
def test_retry_after(text: str, expected: float | None) -> None:
    """Seconds and HTTP dates are understood (against the answer's own clock), and garbage is as if nothing was sent."""
    assert retry_after({"retry-after": text, "date": "Tue, 24 Nov 2026 08:00:00 GMT"}) == expected


def test_an_error_carries_the_services_words() -> None:
    """The documented `{message}`, the request id and Retry-After reach the error; control characters don't."""
    error = decode(
        503, {"retry-after": "2", "x-request-id": "r-1"}, b'{"message": "over\\u001b[31m loaded\\n"}', ChatResult
    )
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.message, error.request_id, error.retry_after) == (
        503,
        "over [31m loaded",
        "r-1",
        2,
    )
    assert "HTTP 503 Service Unavailable: over [31m loaded" in str(error)
