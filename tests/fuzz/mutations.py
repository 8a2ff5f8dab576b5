"""Random changes of an answer, for the fuzzer and its slice in the tests: of its bytes, or of the JSON in it."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from tests.fuzz import bodies
from tests.fuzz.corpus import packed, unpacked

#: What JSON, the specification and HTTP are made of, and what breaks them.
TOKENS = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"NaN", b"-", b"1e400", b"9" * 30, b"0.5"),
    *(b"\\ud800", b"\\u0000", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff", b"\x00", b"\n", b"\n\n", b" ", b"GMT"),
    *(b'"status"', b'"choices"', b'"message"', b'"usage"', b'"tool_calls"', b'"extra"', b"retry-after: ", b"date: "),
]
#: Values to put anywhere.
SCRAPS: list[Any] = [
    *(None, True, False, 0, 1, -1, 7.5, 1e308, 5e-324, -0.0, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400),
    *("", "x", "COMPLETED", "ERROR", "ARCHIVED", "\ud800", "\x00", "\x1b[31m", "é", "x" * 2_000),
    *([], {}, [[]], [{}], {"": None}, {"extra": {}}, float("nan"), float("inf")),
]


def garbled(chance: random.Random, data: bytes) -> bytes:
    """The input with a few of its bytes removed, replaced, added or repeated."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(changed))
        until = min(len(changed), at + chance.choice([1, 1, 2, 4, 8, 64]))
        match chance.randrange(5):
            case 0:
                changed[at:until] = b""
            case 1:
                changed[at:at] = chance.choice(TOKENS)
            case 2:
                changed[at:until] = chance.choice(TOKENS)
            case 3:
                changed[at:until] = chance.randbytes(until - at)
            case _:
                changed[at:at] = changed[at:until] * chance.choice([1, 2, 100])
    return bytes(changed)


def reshaped(chance: random.Random, data: bytes) -> bytes:
    """The input with a few of its JSON values removed, replaced, added or moved; JSON still, where it was."""
    code, headers, body = unpacked(data)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        value = bodies.example()
    try:
        for _ in range(chance.randint(1, 4)):
            _change(chance, value)
        return packed(code, headers, json.dumps(value).encode())
    except RecursionError:
        return data


def _change(chance: random.Random, value: Any) -> None:
    places = _places(value)
    if not places:
        return
    holder, key = chance.choice(places)
    match chance.randrange(5):
        case 0:
            del holder[key]
        case 1:
            other, other_key = chance.choice(places)
            holder[key] = copy.deepcopy(other[other_key])
        case 2 if isinstance(holder, list):
            holder += copy.deepcopy(holder)
        case 3 if isinstance(holder, dict):
            names = ["extra", "status", "finished", "usage", "choices", "id", "name", "\ud800"]
            holder[chance.choice(names)] = copy.deepcopy(chance.choice(SCRAPS))
        case _:
            holder[key] = copy.deepcopy(chance.choice(SCRAPS))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each (list or object, index or name) in a JSON value; of a large one the first thousand."""
    found: list[tuple[Any, Any]] = []
    holders = [value]
    for holder in holders:
        for key in range(len(holder)) if isinstance(holder, list) else holder:
            found.append((holder, key))
            if isinstance(holder[key], list | dict):
                holders.append(holder[key])
        if len(found) > 1_000:
            break
    return found
