"""The request log. Used by `_site`, which writes it, and by whoever reads `Emulator.requests`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field

from distribute_async.emulator import _checks
from distribute_async.emulator._checks import RefusedError

# An emulator on the command line may run for days.
_KEPT_REQUESTS = 100_000
_KEPT_BODIES = 64 << 20  # bytes


@define(kw_only=True)
class RecordedRequest:
    """One request that the emulator took."""

    #: Loop time, in seconds, at which it had come as a whole.
    time: float
    method: str
    #: As it was sent, without the query; "***" where the key is in it.
    path: str
    #: The id that it named; None where it named none that can be read.
    task_id: str | None
    #: Whether it carried the right key, in the way that the service wants it. (The key itself is not kept.)
    authorized: bool
    #: Whether the key is anywhere in its URL or in its headers.
    has_key: bool
    #: By name in lower case. The values of `authorization`, and of whatever else has the key in it, are "***".
    headers: Mapping[str, str]
    #: The status code of the answer; None until it is answered, and for ever where a fault left nothing to answer.
    status: int | None = None
    #: The body's bytes, from which `body` is read: far smaller than the values in them.
    content: bytes | None = field(default=None, repr=False)

    @property
    def body(self) -> Any:
        """What it said: the JSON value; the bytes where they are none; None where there was no body, or it is let go.

        Where the key was in it there is "***".
        """
        if not self.content:
            return None
        try:
            return _checks.read(self.content)
        except RefusedError:
            return self.content


@define(kw_only=True, eq=False)
class Log:
    """The requests of one site. Their list is the reader's as well, who may clear it at any time."""

    records: list[RecordedRequest] = field(factory=list)
    #: Of the bodies since the last time that some were let go; those that were cleared count too.
    _bytes: int = field(init=False, default=0)

    def add(self, record: RecordedRequest) -> None:
        """Keep a request. A full log loses its older half; of too many bytes in bodies, the oldest bodies go."""
        if len(self.records) >= _KEPT_REQUESTS:
            del self.records[: _KEPT_REQUESTS // 2]
        self.records.append(record)
        self._bytes += len(record.content or b"")
        if self._bytes > _KEPT_BODIES:
            self._let_bodies_go()

    def _let_bodies_go(self) -> None:
        self._bytes = sum(len(record.content or b"") for record in self.records)
        for record in self.records:
            if self._bytes <= _KEPT_BODIES // 2:
                return
            self._bytes -= len(record.content or b"")
            record.content = None
