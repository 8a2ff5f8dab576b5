"""The request log. Used by `_app`, which writes it, and by whoever reads `Emulator.requests`."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define


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
    #: Whether it carried the right key. (The key itself is not kept.)
    authorized: bool
    #: By name in lower case, without `authorization`.
    headers: Mapping[str, str]
    #: The status code of the answer; None until it is answered, and for ever where a fault left nothing to answer.
    status: int | None = None
