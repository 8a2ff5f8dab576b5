"""Where the fuzzing begins: answers made from the specification, in the form in which the fuzzer changes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz import bodies

#: Of one seed: a fuzzer gets nowhere with long ones.
LONGEST = 8_000

HEADERS: list[dict[str, str]] = [
    {},
    {"retry-after": "7"},
    {"retry-after": "0.5", "x-request-id": "req-1"},
    {"retry-after": "Tue, 24 Nov 2026 08:00:30 GMT", "date": "Tue, 24 Nov 2026 08:00:00 GMT"},
    {"retry-after": "Tuesday, 24-Nov-26 08:00:30 -0000", "date": "Tue Nov 24 08:00:00 2026"},
    {"retry-after": "-1", "date": "now", "x-request-id": "\x1b[31m\x00\xff"},
]


def packed(status_code: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """An answer as a fuzzer's input, any change of which is an answer again: code, headers, an empty line, body."""
    head = "\n".join([str(status_code), *(f"{name}: {value}" for name, value in headers.items())])
    return head.encode("latin-1") + b"\n\n" + body


def unpacked(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer in a fuzzer's input, whatever that is."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    digits = "".join(character for character in first[:3] if character in "0123456789")
    pairs = [line.partition(":") for line in lines]
    return int(digits or 200), {name.strip().lower(): value.strip() for name, _, value in pairs}, body


def seeds() -> list[bytes]:
    """Sound, odd, wrong and hostile answers to begin with."""
    known = [*bodies.ODD, *bodies.NULLS, *bodies.NO_JSON, *bodies.NO_ANSWER, *bodies.WRONG]
    found = [packed(200, {}, body) for _, body in known if len(body) <= LONGEST]
    statuses = bodies.SCHEMA["properties"]["status"]["enum"]
    found += [packed(200, {}, json.dumps({**bodies.example(), "status": status}).encode()) for status in statuses]
    message = b'{"message": "Not found"}'
    found += [packed(code, headers, message) for code in (202, 302, 404, 429, 500, 503) for headers in HEADERS]
    return found


def write_seeds(folder: Path) -> None:
    """Write the seeds where a fuzzer finds them, each under its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
