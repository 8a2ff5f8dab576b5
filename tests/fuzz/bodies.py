"""Answers made from the specification: sound, wrong and hostile ones. For the codec's tests and its fuzzing."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

_SPECIFICATION = json.loads((Path(__file__).parents[1] / "spec" / "chat-result.openapi.json").read_text())
#: What a 200 holds.
SCHEMA: dict[str, Any] = _SPECIFICATION["paths"]["/async/chat/result"]["post"]["responses"]["200"]["content"][
    "application/json"
]["schema"]

Step = str | int


@frozen
class Field:
    """One place in an answer: the way to it, what the specification says of it, and whether it may be left out."""

    path: tuple[Step, ...]
    schema: dict[str, Any]
    is_required: bool

    @property
    def name(self) -> str:
        """Such as `choices[0].index`."""
        return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path).lstrip(".")

    @property
    def takes_null(self) -> bool:
        """Whether null is as good as left out, or (the content beside tool calls) usual."""
        return not self.is_required or self.name in {"choices", "choices[0].message.content"}


def fields(schema: dict[str, Any] = SCHEMA, path: tuple[Step, ...] = ()) -> Iterator[Field]:
    """Every place that the specification names, the entries of lists included."""
    if schema["type"] == "array":
        yield Field((*path, 0), schema["items"], is_required=True)
        yield from fields(schema["items"], (*path, 0))
    for name, inner in schema.get("properties", {}).items():
        yield Field((*path, name), inner, name in schema["required"])
        yield from fields(inner, (*path, name))


def example(schema: dict[str, Any] = SCHEMA) -> Any:
    """A sound answer with every field; of an enumeration the last word, which ends no task in ERROR."""
    kind = schema["type"]
    if kind == "object":
        return {name: example(inner) for name, inner in schema["properties"].items()}
    if kind == "array":
        return [example(schema["items"])]
    if kind == "string":
        words = schema.get("enum", ["text"])
        return "COMPLETED" if "COMPLETED" in words else words[-1]
    return 1


def replaced(body: Any, path: tuple[Step, ...], value: Any) -> Any:
    """A copy of an answer with another value at one place."""
    body = copy.deepcopy(body)
    at = body
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return body


def without(body: Any, path: tuple[Step, ...]) -> Any:
    """A copy of an answer with one place left out."""
    body = copy.deepcopy(body)
    at = body
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    return body


#: A value of each JSON type, by the specification's name for the type.
OF_EACH_TYPE: dict[str, list[Any]] = {
    "null": [None],
    "boolean": [True, False],
    "number": [7, 7.5],
    "string": ["7", ""],
    "array": [[], [7], ["7"]],
    "object": [{}, {"7": 7}],
}


def wrong_values(field: Field) -> list[Any]:
    """Values of every JSON type that is not the field's; an object that lacks what is required is wrong too."""
    of_type: str = field.schema["type"]
    others = [value for kind, values in OF_EACH_TYPE.items() if kind != of_type for value in values]
    return [value for value in others if not (value is None and field.takes_null)] + (
        OF_EACH_TYPE["object"] if of_type == "object" else []
    )


#: (name, body) of a sound answer with one wrong value, or without one required field.
WRONG = [
    (f"{field.name} = {json.dumps(value)}", json.dumps(replaced(example(), field.path, value)).encode())
    for field in fields()
    for value in wrong_values(field)
] + [
    (f"{field.name} missing", json.dumps(without(example(), field.path)).encode())
    for field in fields()
    if field.is_required and isinstance(field.path[-1], str) and field.name != "choices"
]

#: (name, body) of a sound answer with null where null is no fault.
NULLS = [
    (f"{field.name} = null", json.dumps(replaced(example(), field.path, None)).encode())
    for field in fields()
    if field.takes_null
]

SOUND = json.dumps(example()).encode()
_HEAD = b'{"status": "COMPLETED", "created": 1, "model": "m", '


def with_extra(value: bytes) -> bytes:
    """A sound answer with this JSON text in a field that the specification doesn't know."""
    return _HEAD + b'"choices": [], "extra": ' + value + b"}"


def with_created(value: bytes) -> bytes:
    """An answer with this JSON text for `created`."""
    return b'{"status": "COMPLETED", "created": ' + value + b', "model": "m", "choices": []}'


#: (name, body) of what is no JSON text in UTF-8.
NO_JSON = [
    ("empty", b""),
    ("blank", b" \r\n\t "),
    ("HTML", b"<!doctype html><html><title>502</title></html>"),
    ("plain words", b"upstream connect error"),
    ("cut after a byte", b"{"),
    ("cut in a string", SOUND[: SOUND.index(b"COMP") + 2]),
    ("cut in a literal", b'{"status": nul'),
    ("cut before the end", SOUND[:-1]),
    ("two answers", SOUND + SOUND),
    ("trailing words", SOUND + b"x"),
    ("a trailing comma", b'{"status": "QUEUED",}'),
    ("single quotes", b"{'status': 'QUEUED'}"),
    ("a comment", b"/* ok */" + SOUND),
    ("an event stream", b"data: " + SOUND + b"\n\n"),
    ("a byte order mark alone", b"\xef\xbb\xbf"),
    ("two byte order marks", b"\xef\xbb\xbf" * 2 + SOUND),
    ("a byte order mark after a blank", b" \xef\xbb\xbf" + SOUND),
    ("half a byte order mark", b"\xef\xbb" + SOUND),
    ("UTF-16", SOUND.decode().encode("utf-16")),
    ("UTF-16 without a mark", SOUND.decode().encode("utf-16-le")),
    ("UTF-32", SOUND.decode().encode("utf-32")),
    ("Latin-1", with_extra('"é"'.encode("latin-1"))),
    ("overlong UTF-8", with_extra(b'"\xc0\xaf"')),
    ("a surrogate in UTF-8", with_extra(b'"\xed\xa0\x80"')),
    ("UTF-8 past the last plane", with_extra(b'"\xf5\x80\x80\x80"')),
    ("half a character", with_extra(b'"\xe2\x82"')),
    ("a bare control character", with_extra(b'"\x00"')),
    ("a number with a leading zero", with_created(b"01")),
    ("a hexadecimal number", with_created(b"0x1")),
    ("a bare word", with_created(b"now")),
    ("a bad escape", with_extra(b'"\\x41"')),
    ("compressed", b"\x1f\x8b\x08\x00\x00\x00\x00\x00"),
    ("zeros", bytes(1000)),
]

#: (name, body) of JSON that is not an answer of the specification, beyond wrong types.
NO_ANSWER = [
    ("null", b"null"),
    ("true", b"true"),
    ("a number", b"7"),
    ("a string", b'"COMPLETED"'),
    ("a list", b"[]"),
    ("a list of answers", b"[" + SOUND + b"]"),
    ("an empty object", b"{}"),
    ("another object", b'{"message": "Not found"}'),
    ("a duplicate of the wrong type", b'{"status": "COMPLETED", "created": 1, "model": "m", "status": 7}'),
    *(
        (f"{name} as {where}", body(text))
        for where, body in [("created", with_created), ("extra", with_extra)]
        for name, text in [
            ("NaN", b"NaN"),
            ("Infinity", b"Infinity"),
            ("-Infinity", b"-Infinity"),
            ("1e400", b"1e400"),
            ("-1e400", b"-1e400"),
            ("400 digits", b"9" * 400),
            ("5,000 digits", b"9" * 5_000),
            ("minus 5,000 digits", b"-" + b"9" * 5_000),
            ("100,000 digits and a fraction", b"9" * 100_000 + b".5"),
        ]
    ),
    *(
        (f"{name} for a status", json.dumps({**example(), "status": status}).encode())
        for name, status in [
            ("nothing", ""),
            ("65 letters", "S" * 65),
            ("900 kB", "S" * 900_000),
            ("a line break", "QUEUED\n"),
            ("a steered terminal", "\x1b[31mQUEUED"),
            ("a lone surrogate", "\ud800"),
            ("a zero character", "QUEUED\x00"),
        ]
    ),
    ("65 levels", with_extra(b"[" * 64 + b"]" * 64)),
    ("1,000 levels", with_extra(b"[" * 1_000 + b"]" * 1_000)),
    ("100,000 levels", with_extra(b"[" * 100_000 + b"]" * 100_000)),
    ("100,000 levels of objects", with_extra(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
    ("100,000 brackets", b"[" * 100_000),
    ("1,001 choices", json.dumps({**example(), "choices": example()["choices"] * 1_001}).encode()),
    ("100,000 choices", _HEAD + b'"choices": [' + b",".join([b"{}"] * 100_000) + b"]}"),
    (
        "1,001 tool calls",
        json.dumps(replaced(example(), ("choices", 0, "message", "tool_calls"), [{}] * 1_001)).encode(),
    ),
]  # fmt: skip

#: (name, body) of answers that look odd and are sound all the same.
ODD = [
    ("as it should be", SOUND),
    ("blanks around", b" \r\n\t" + SOUND + b" \n"),
    ("a byte order mark", b"\xef\xbb\xbf" + SOUND),
    ("a byte order mark and blanks", b"\xef\xbb\xbf \r\n" + SOUND),
    ("a byte order mark and a lone surrogate", b"\xef\xbb\xbf" + with_extra(b'"\\ud800"')),
    ("a lone surrogate", with_extra(b'"\\ud800"')),
    ("a lone surrogate for a name", _HEAD + b'"choices": [], "\\udfff": 1}'),
    ("a pair of surrogates", with_extra(b'"\\ud83d\\ude00"')),
    ("a zero character", with_extra(b'"\\u0000"')),
    ("duplicates, the last one sound", b'{"created": "x", "status": 7,' + SOUND[1:]),
    ("a new status", json.dumps({**example(), "status": "ARCHIVED", "finished": 1}).encode()),
    ("a long status", json.dumps({**example(), "status": "é" * 64, "finished": 1}).encode()),
    ("64 levels", with_extra(b"[" * 63 + b"]" * 63)),
    ("1,000 choices", json.dumps({**example(), "choices": example()["choices"] * 1_000}).encode()),
    ("1,000 tool calls", json.dumps(
        replaced(example(), ("choices", 0, "message", "tool_calls"),
                 example()["choices"][0]["message"]["tool_calls"] * 1_000)).encode()),
    ("a string of 900 kB", with_extra(b'"' + b"x" * 900_000 + b'"')),
    ("900 kB of content", json.dumps(
        replaced(example(), ("choices", 0, "message", "content"), "y" * 900_000)).encode()),
    ("10,000 unknown fields", json.dumps({**{f"f{n}": n for n in range(10_000)}, **example()}).encode()),
    ("64 bits", with_extra(b"[18446744073709551615, -9223372036854775808]")),
    ("more than 64 bits", with_extra(b"[18446744073709551616, -9223372036854775809, 1" + b"0" * 300 + b"]")),
    ("tiny numbers", with_extra(b"[1e-400, 5e-324, -0.0, -0, 1E5]")),
    ("the largest double", with_created(b"1.7976931348623157e308")),
]  # fmt: skip


def _dense(choice: str) -> bytes:
    """A thousand such choices, in just under a mebibyte."""
    return (_HEAD.decode() + '"choices":[' + ",".join([choice] * 1_000) + "]}").encode()


def _dense_calls(call: str) -> bytes:
    start, end = '{"finish_reason":"","index":0,"message":{"content":null,"role":"","tool_calls":[', "]}}"
    return _dense(start + ",".join([call] * min(1_000, (1_040 - len(start + end)) // (len(call) + 1))) + end)


def _filled(unit: str) -> bytes:
    """An answer of just under a mebibyte with a list of such units in an unknown field."""
    return with_extra(b"[" + ",".join([unit] * (1_048_400 // (len(unit) + 1))).encode() + b"]")


#: (name, body) of answers just under the default `Limits.max_body_bytes` with as much as possible to decode: in what
#: the specification names, …
DENSE = [
    ("sound tool calls", _dense_calls('{"id":"","type":"","function":{"name":"","arguments":""}}')),
    ("numbers for tool calls", _dense_calls("0")),
    ("lists for tool calls", _dense_calls("[]")),
    ("empty tool calls", _dense_calls("{}")),
    ("empty functions", _dense_calls('{"function":{}}')),
]

#: … and in what it doesn't.
FILLED = [
    ("empty lists", _filled("[]")),
    ("empty objects", _filled("{}")),
    ("numbers", _filled("0")),
    ("lists of 60 levels", _filled("[" * 60 + "]" * 60)),
    ("short names", json.dumps({**{f"{n:x}": 0 for n in range(90_000)}, **example()}).encode()),
]
