"""The codec as a whole: whatever comes in, a model or an error of ours comes out, by either way to read JSON."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from distribute_async import (
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ChatResult,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)
from distribute_async._wire.codec import (
    MAX_INTERNED,
    MAX_INTERNED_LENGTH,
    decode,
    interned,
    retry_after,
    status_error_type,
)
from distribute_async._wire.errors import DistributeError
from tests.fuzz import bodies as made
from tests.fuzz.oracle import JSON_PATHS, JsonPath, heard, reading_json_with


@pytest.fixture(params=JSON_PATHS)
def json_path(request: pytest.FixtureRequest) -> Iterator[JsonPath]:
    """The test runs once with orjson and once as if it wasn't installed."""
    with reading_json_with(request.param):
        yield request.param


def error_of(body: bytes, status_code: int = 200, headers: dict[str, str] | None = None) -> DistributeError:
    error = decode(status_code, headers or {}, body, ChatResult)
    assert isinstance(error, DistributeError), error
    return error


def result_of(body: bytes) -> ChatResult:
    result = decode(200, {}, body, ChatResult)
    assert isinstance(result, ChatResult), result
    return result


def named(cases: list[tuple[str, bytes]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in cases])


@named(made.NO_JSON)
def test_no_json_says_so(json_path: JsonPath, body: bytes) -> None:
    """What is no JSON text in UTF-8 is an answer that another attempt may better."""
    error = error_of(body)
    assert isinstance(error, APIResponseValidationError)
    assert (error.reason, str(error)) == ("not_json", "the response is empty or not JSON")


@named(made.NO_ANSWER)
def test_json_that_is_no_answer_says_so(json_path: JsonPath, body: bytes) -> None:
    """JSON of another shape, with numbers that no double holds, too deep or too long is no answer."""
    error = error_of(body)
    assert isinstance(error, APIResponseValidationError)
    assert error.reason == "shape"


@named(made.ODD)
def test_what_is_only_odd_is_taken(json_path: JsonPath, body: bytes) -> None:
    """Lone surrogates, duplicates, the largest allowed depth, length and numbers are no fault."""
    assert result_of(body).model


@named(made.NULLS)
def test_null_for_what_may_be_missing_is_no_fault(json_path: JsonPath, body: bytes) -> None:
    """Null where a field is optional, in `choices` and in the content is taken as nothing."""
    assert result_of(body).model == "text"


@named(made.WRONG)
def test_each_wrong_type_names_its_field(request: pytest.FixtureRequest, json_path: JsonPath, body: bytes) -> None:
    """Each field of the specification refuses every other JSON type, and its absence where it is required, by name."""
    error = error_of(body)
    assert isinstance(error, APIResponseValidationError)
    assert error.reason == "shape"
    field = request.node.callspec.id.partition("-")[2].split(" ")[0]
    assert f"@ .{field}" in str(error)


def test_the_words_of_an_error() -> None:
    """The error says what is wrong and where, for the first three of its kind."""
    body = {
        "status": 7,
        "created": "1",
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": "", "role": "x", "tool_calls": 1}}],
    }
    assert str(error_of(json.dumps(body).encode())) == (
        "the response is not what the API promises: not a string @ .status; "
        "a required field is missing @ .model; not a number @ .created"
    )
    body = {**body, "status": "QUEUED", "created": 1, "model": "m", "usage": 1}
    assert str(error_of(json.dumps(body).encode())) == (
        "the response is not what the API promises: not a list @ .choices[0].message.tool_calls; not an object @ .usage"
    )
    assert str(error_of(made.with_extra(b"NaN"))) == (
        "the response is not what the API promises: a number is not finite, or too large for a double"
    )
    assert (
        str(error_of(made.with_extra(b"[" * 99 + b"]" * 99)))
        == "the response is not what the API promises: nested too deeply"
    )
    assert str(error_of(b"[" * 100_000)) == "the response is not what the API promises: nested too deeply"
    assert str(error_of(b"[]")) == "the response is not a JSON object"
    page = json.dumps({**made.example(), "status": "<" * 65}).encode()
    assert str(error_of(page)) == "the response is not what the API promises: not a status @ .status"
    many = json.dumps({**made.example(), "choices": [{}] * 1_001}).encode()
    assert str(error_of(many)) == "the response is not what the API promises: more than 1000 entries @ .choices"


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
        ("9" * 15, 999_999_999_999_999.0),
        ("9" * 16, 1e15),
        ("9" * 20, 1e15),
        ("9" * 20 + ".5", 1e15),
        ("9" * 400, 1e15),
        ("9" * 8_000, 1e15),
        ("0" * 20 + "7", 7.0),
        ("1.123456789", 1.123456789),
        ("1.5" + "0" * 20, 1.5),
        ("1.", None),
        (".5", None),
        ("1.5\n2", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("Tue, 24 Nov 2026 08:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 07:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 09:00:30 +0100", 30.0),
        ("Tue, 99 Nov 2026 07:00:00 GMT", None),
        ("Tue, 24 Nov 2026 08:00:30 -99999999999", None),
    ],
)
def test_retry_after(text: str, expected: float | None) -> None:
    """Seconds and HTTP dates are understood (against the answer's own clock), and garbage is as if nothing was sent."""
    assert retry_after({"retry-after": text, "date": "Tue, 24 Nov 2026 08:00:00 GMT"}) == expected


def test_retry_after_is_none_without_the_header() -> None:
    """An answer without Retry-After asks for nothing, whatever its date."""
    assert retry_after({}) is None
    assert retry_after({"date": "Tue, 24 Nov 2026 08:00:00 GMT"}) is None


def test_a_date_gone_by_is_no_pause_whatever_clock_is_asked() -> None:
    """A Retry-After of long ago is 0 by this machine's clock too, where the answer's Date is missing or senseless."""
    for date in ({}, {"date": "yesterday"}):
        assert retry_after({"retry-after": "Tue, 24 Nov 1998 08:00:00 GMT", **date}) == 0.0


def test_an_error_carries_the_services_words() -> None:
    """The documented `{message}`, the request id and Retry-After reach the error; control characters don't."""
    error = error_of(b'{"message": "over\\u001b[31m loaded\\n"}', 503, {"retry-after": "2", "x-request-id": "r\n-\t 1"})
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.message, error.request_id, error.retry_after) == (
        503,
        "over [31m loaded",
        "r - 1",
        2,
    )
    assert "HTTP 503 Service Unavailable: over [31m loaded" in str(error)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", None),
        (b"<html>", None),
        (b"[]", None),
        (b'"message"', None),
        (b"[" * 100_000, None),
        (b"{}", None),
        (b'\xef\xbb\xbf{"message": "marked"}', "marked"),
        (b'{"message": null}', None),
        (b'{"message": 7}', None),
        (b'{"message": {"message": "x"}}', None),
        (b'{"message": ""}', None),
        (b'{"message": " \\n\\u0000 "}', None),
        (b'{"message": "  a \\u2028 b\\ud800c  "}', "a b c"),
        (b'{"message": "' + b"x" * 299 + b' yz"}', "x" * 299 + " "),
        (b'{"message": "' + b"x" * 100_000 + b'"}', "x" * 300),
        (b'{"message": "' + b" " * 598 + b'abc"}', "ab"),
    ],
)
def test_the_services_words_are_one_short_line(json_path: JsonPath, body: bytes, message: str | None) -> None:
    """The message of an error is at most 300 characters of printable text, and None where there is none."""
    error = error_of(body, 500)
    assert isinstance(error, APIStatusError)
    assert error.message == message
    assert (error.request_id, error.retry_after) == (None, None)


def test_each_code_has_its_error() -> None:
    """Each code from 300 to 599 gives an `APIStatusError`, of its own type where there is one; others don't."""
    named: dict[int, type[APIStatusError]] = {
        **dict.fromkeys(range(300, 500), APIStatusError),
        **dict.fromkeys(range(500, 600), InternalServerError),
        **dict.fromkeys((400, 422), BadRequestError),
        401: AuthenticationError,
        **dict.fromkeys((402, 403), PermissionDeniedError),
        **dict.fromkeys((404, 410), NotFoundError),
        429: RateLimitError,
    }
    assert {code: type(error_of(b"", code)) for code in named} == named
    assert {code for code in range(-1, 1_100) if status_error_type(code)} == set(named)
    error = error_of(b"", 418)
    assert isinstance(error, APIStatusError)
    assert error.status_code == 418


def test_orjson_reads_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `speed` is used for each answer, once."""
    read: list[bytes] = []

    def loads(body: bytes) -> Any:
        read.append(body)
        return json.loads(body)

    monkeypatch.setitem(sys.modules, "orjson", SimpleNamespace(loads=loads))
    with reading_json_with("orjson"):
        result_of(made.SOUND)
    assert read == [made.SOUND]


def test_integers_stay_integers_up_to_64_bits(json_path: JsonPath) -> None:
    """What 64 bits hold arrives exactly, and what they don't is a double, by either way to read JSON."""
    sent = [0, -1, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 10**18, 10**19]
    wide = [2**64, -(2**63) - 1, 10**20, -(10**19), 10**300]
    held = result_of(made.with_extra(json.dumps([*sent, *wide]).encode())).extra["extra"]
    assert held == [*sent, *map(float, wide)]
    assert [type(number) for number in held] == [int] * len(sent) + [float] * len(wide)


def test_a_code_that_the_api_lacks_says_which() -> None:
    """A code that is no error's is named in the error."""
    for code in (100, 201, 204, 299, 600, 999):
        error = error_of(made.SOUND, code)
        assert isinstance(error, APIResponseValidationError)
        assert (error.reason, str(error)) == ("code", f"the response has the unexpected status code {code}")


# What may come: bytes, JSON, almost an answer, an answer; and headers.

json_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**30, 10**400])
    | st.floats()
    | st.text()
)
json_values = st.recursive(
    json_leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
# What both JSON paths can hold exactly: 64 bits of integer, and doubles.
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
texts = st.text(st.characters(exclude_categories=()))  # lone surrogates too
new_statuses = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=64)


def sound(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Whatever the specification allows here, and what a newer service may add."""
    kind = schema["type"]
    if kind == "object":
        known = schema["properties"]
        required = {name: sound(inner) for name, inner in known.items() if name in schema["required"]}
        optional = {name: sound(inner) for name, inner in known.items() if name not in schema["required"]}
        extras = st.dictionaries(texts.filter(lambda name: name not in known), plain_values, max_size=2)
        return st.builds(
            lambda named, extra: {**named, **extra}, st.fixed_dictionaries(required, optional=optional), extras
        )
    if kind == "array":
        return st.lists(sound(schema["items"]), max_size=2)
    if kind == "string":
        words = schema.get("enum", [])
        return st.sampled_from(words) | new_statuses if "COMPLETED" in words else st.sampled_from(["", *words]) | texts
    return st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)


answers = sound(made.SCHEMA)
places = st.sampled_from([field.path for field in made.fields()])
almost_answers = st.builds(made.replaced, st.just(made.example()), places, json_values)
bodies = (
    st.binary()
    | (json_values | almost_answers | answers).map(lambda value: json.dumps(value).encode())
    | st.sampled_from([body for _, body in [*made.ODD, *made.NO_JSON, *made.NO_ANSWER] if len(body) < 10_000])
)
numbers = st.integers(-(10**6), 10**6).map(str) | st.floats().map(str)
dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Tue", "tue", "Tuesday", ""]),
    st.integers(-1, 99),
    st.sampled_from(["Nov", "nov", "Foo", "11", ""]),
    st.integers(-1, 99_999),
    st.integers(-1, 99),
    st.integers(-1, 99),
    st.sampled_from(["00", "30", "61", "7.5", ""]),
    st.sampled_from(["GMT", "UTC", "-0000", "+0100", "+9999", "-99999999999", "EST", "", "x"]),
)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "date", "x-request-id", "content-type"]), texts | numbers | dates
)


@seed(2611)
@settings(max_examples=400, deadline=None)
@given(status_code=st.integers(-1, 1_100), headers=headers, body=bodies)
def test_anything_gives_a_model_or_an_error_of_ours(status_code: int, headers: dict[str, str], body: bytes) -> None:
    """Any bytes with any status code and headers give a model or one of our errors, the same by both JSON paths."""
    for code in (200, status_code):
        heard(code, headers, body)


@seed(2611)
@settings(max_examples=200, deadline=None)
@given(body=answers)
def test_a_sound_answer_goes_there_and_back(body: dict[str, Any]) -> None:
    """Whatever the specification allows, with unknown fields at any level, comes back from `to_dict` as it was sent."""
    for path in JSON_PATHS:
        with reading_json_with(path):
            back = result_of(json.dumps(body).encode()).to_dict()
        assert json.dumps(back, sort_keys=True) == json.dumps(body, sort_keys=True)


CANARY = "c4n4ry"
CANARY_NUMBER = 271828182845
secrets = st.recursive(
    st.sampled_from([CANARY, CANARY_NUMBER, CANARY_NUMBER + 0.5, True, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([CANARY, "id"]), inner, max_size=3),
    max_leaves=6,
)


def with_canaries(body: Any) -> Any:
    """An answer with a canary in place of each text and each number."""
    if isinstance(body, dict):
        return {**{name: with_canaries(value) for name, value in body.items()}, CANARY: CANARY}
    if isinstance(body, list):
        return [with_canaries(value) for value in body]
    return CANARY if isinstance(body, str) else CANARY_NUMBER


@seed(2611)
@settings(max_examples=300, deadline=None)
@given(place=places, value=secrets, cut=st.none() | st.integers(0, 60), code=st.sampled_from([200, 200, 404, 500, 202]))
def test_an_error_holds_no_value_of_the_body(
    place: tuple[made.Step, ...], value: object, cut: int | None, code: int
) -> None:
    """However an answer is wrong, nothing that stood in it is in the error's text, repr or arguments."""
    body = json.dumps(made.replaced(with_canaries(made.example()), place, value)).encode()
    error = heard(code, {}, body if cut is None else body[: len(body) - cut])
    if isinstance(error, DistributeError):
        for text in (str(error), repr(error), repr(error.args), repr(vars(error))):
            assert CANARY not in text
            assert str(CANARY_NUMBER) not in text


# What it costs.


def answer_of(n: int, **fields: str) -> bytes:
    """An answer with every text of its own, but for these fields."""
    call = {"id": f"call-{n}", "type": f"type-{n}", "function": {"name": f"tool-{n}", "arguments": f"a-{n}"}}
    message = {"content": f"words-{n}", "role": f"role-{n}", "name": f"name-{n}", "tool_calls": [call]}
    choice = {"finish_reason": f"reason-{n}", "index": 0, "message": message}
    body = {"id": f"id-{n}", "status": f"STATUS-{n}", "created": 1, "model": f"model-{n}", "choices": [choice]}
    return json.dumps({**body, "service_tier": f"tier-{n}", "extra": f"extra-{n}", **fields}).encode()


def test_no_text_of_an_answer_is_kept_for_ever(json_path: JsonPath) -> None:
    """No text outlives its answer in Python's table of names, and the library's own keeps the newest few alone."""
    # On some Pythons the question itself keeps a text for ever: each path has its own.
    result = result_of(answer_of(10_000 + JSON_PATHS.index(json_path)))
    texts = [text for text in all_texts(result.to_dict()) if "-" in text]
    assert len(texts) == 13
    for text in texts:
        fresh = "".join(list(text))
        assert sys.intern(fresh) is fresh, f"{text} was in Python's table of names"
    for n in range(1, 3_000):
        result_of(answer_of(n))
    assert interned.cache_info().currsize == interned.cache_info().maxsize == MAX_INTERNED <= 1_000
    assert MAX_INTERNED * MAX_INTERNED_LENGTH <= 1 << 16


def all_texts(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [text for item in (value.values() if isinstance(value, dict) else value) for text in all_texts(item)]
    return [value] if isinstance(value, str) else []


def test_the_same_few_texts_are_kept_once(json_path: JsonPath) -> None:
    """Model, role, finish reason, type and tier are one object in a hundred thousand answers, whatever else comes."""
    call = {"id": "1", "type": "a type", "function": {"name": "f", "arguments": ""}}
    message = {"content": "words", "role": "a role", "tool_calls": [call]}
    choices = [{"finish_reason": "a reason", "index": 0, "message": message}]
    same = {**made.example(), "model": "a model", "service_tier": "a tier", "choices": choices}
    results = []
    for n in range(2_000):
        results.append(result_of(json.dumps({**same, "id": str(n)}).encode()))
        result_of(answer_of(n))
    for texts in (
        [result.model for result in results],
        [result.service_tier for result in results],
        [result.choices[0].finish_reason for result in results],
        [result.choices[0].message.role for result in results],
        [(result.choices[0].message.tool_calls or ())[0].type for result in results],
    ):
        assert len(texts) == 2_000
        assert len({id(text) for text in texts}) == 1


@named(made.DENSE)
def test_one_answer_costs_so_much_at_most(body: bytes) -> None:
    """The densest answers under the size cap cost under 64 MiB: not half a million errors where one would do."""
    assert 900_000 < len(body) <= 1 << 20
    tracemalloc.start()
    try:
        decode(200, {}, body, ChatResult)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
