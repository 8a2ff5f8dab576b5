"""The format of server-sent events (WHATWG HTML standard, §9.2). Pure; used by `_feeds`, and open to all.

Four kinds of event tell a task's life: `status` at each change, then `result` or `error`, then `done`. The id of
each says where a browser that comes back is to go on, from this server or from another one (see `Mark`).
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote

from attrs import frozen

CONTENT_TYPE = "text/event-stream"
#: For the response. The last one tells nginx and its kin to pass each event on at once.
HEADERS: Mapping[str, str] = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
#: Seconds without an event after which to send `HEARTBEAT`, as the standard advises for the sake of old proxies.
HEARTBEAT_INTERVAL = 15.0
#: A comment, which browsers pass over.
HEARTBEAT = b":\n\n"
#: Milliseconds after which a browser that lost its connection comes back.
RETRY = 2_000

_LINE_BREAK = re.compile("\r\n|\n|\r")
_KINDS = "status", "result", "error", "done"
#: Of a status in an id. Known ones have at most 20; what a server sends must not make a header of any length.
_LONGEST_LABEL = 60


def encode(data: object = None, *, event: str | None = None, id: str | None = None, retry: int | None = None) -> bytes:  # noqa: A002
    """One event, or one setting of the reconnection time (`retry`, in milliseconds) without an event.

    `data` is sent as it is where it is a `str`, line by line, and as JSON in ASCII where it is anything else but None.
    Raises `ValueError` for an `event` or `id` that holds a line break or NUL (it could forge fields, or be ignored),
    for a negative `retry`, and for data that is no JSON, such as NaN.
    """
    lines: list[str] = []
    if retry is not None:
        if retry < 0:
            raise ValueError("retry must not be negative")
        lines.append(f"retry: {retry:d}")
    for name, value in (("event", event), ("id", id)):
        if value is not None:
            if _LINE_BREAK.search(value) or "\0" in value:
                raise ValueError(f"{name} must not hold a line break or NUL")
            lines.append(f"{name}: {value}")
    if data is not None:
        text = data if isinstance(data, str) else json.dumps(data, allow_nan=False, separators=(",", ":"))
        lines += [f"data: {line}" for line in _LINE_BREAK.split(text)]
    return "".join(f"{line}\n" for line in [*lines, ""]).encode()


@frozen
class Mark:
    """An event's id: when a server saw what it tells, of which kind it is, and the status that was reached.

    As text, such as `1700000000123-status-QUEUED`. The same for all servers of an application, so that a browser can
    go on at another one: the time tells what it knows already of what that one saw, the status what not to repeat.
    """

    #: Unix time in milliseconds; it rises from event to event of one task on one server.
    at: int
    #: "status", "result", "error" or "done".
    kind: str
    #: The status, percent-encoded; empty where none was reached yet. A long one is cut, and ends in its checksum.
    label: str

    @classmethod
    def of(cls, at: int, kind: str, status: str | None) -> Self:
        """The mark of an event."""
        label = quote(status or "", safe="", errors="replace")
        if len(label) > _LONGEST_LABEL:
            checksum = f"~{zlib.crc32(label.encode()):08x}"
            label = label[: _LONGEST_LABEL - len(checksum)] + checksum
        return cls(at, kind, label)

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """What a `Last-Event-ID` says; None for what is no mark, as if there were none."""
        parts = re.fullmatch(r"([0-9]{1,15})-([a-z]+)-([A-Za-z0-9_.~%-]*)", text or "", re.ASCII)
        if parts is None or parts[2] not in _KINDS or len(parts[3]) > _LONGEST_LABEL:
            return None
        return cls(int(parts[1]), parts[2], parts[3])

    def __str__(self) -> str:
        return f"{self.at}-{self.kind}-{self.label}"

    @property
    def says(self) -> tuple[str, str]:
        """The kind and the status: what makes two events the same to a reader."""
        return self.kind, self.label

    @property
    def tells(self) -> frozenset[tuple[str, str]]:
        """What its reader knows: this, and that this status was reached."""
        return frozenset({self.says, ("status", self.label)})


@frozen
class Event:
    """An event of a task, encoded once for all who read it."""

    mark: Mark
    wire: bytes

    @classmethod
    def of(cls, mark: Mark, data: Mapping[str, Any]) -> Self:
        """The event with this mark and this data."""
        return cls(mark, encode(data, event=mark.kind, id=str(mark)))
