"""The request log. Used by `_site`, which writes it, and by whoever reads `Emulator.requests`."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define

# An emulator on the command line may run for days.
_KEPT_REQUESTS = 100_000


@define(kw_only=True)
class RecordedRequest:
    """One request that the emulator took."""

    #: Loop time, in seconds, at which it had come as a whole.
    time: float
    method: str
    #: As it was sent, without the query.
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


def keep(log: list[RecordedRequest], record: RecordedRequest) -> None:
    """Add to a log, which loses its older half when it is full."""
    if len(log) >= _KEPT_REQUESTS:
        del log[: _KEPT_REQUESTS // 2]
    log.append(record)
