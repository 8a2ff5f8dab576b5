"""The public side of telemetry: `Observer`, which users subclass, the values that it is given, and `Stats`.

`telemetry` calls the observer; nothing here does anything by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from attrs import define, field, frozen

from distribute_async._wire.errors import (
    DistributeError,
)
from distribute_async._wire.models import TaskResult, Transition

log = logging.getLogger("distribute_async")
log.addHandler(logging.NullHandler())  # quiet where the application sets up no logging

#: How a wait may end: "error" is any `DistributeError`, `TaskFailedError` too where nothing raises it (an `async for`).
#: "left" is an `async for` that was not finished, noticed when its `Watch` is dropped.
WaitOutcome = Literal["result", "error", "cancelled", "left"]


@frozen(kw_only=True, eq=False)
class ObservedWait:
    """One wait: from the first `await` or iteration of a `Watch` to its ending, one `fetch`, or one create.

    A cancelled wait has ended; where its `Watch` is awaited again, another one begins. Compared by identity, so
    that an observer may keep what belongs to it in a dict.
    """

    #: The kind of task: "chat".
    kind: str
    #: None for a create, whose task has no id yet: see `ObservedEnding.task_id`.
    task_id: str | None
    #: Whether it is a `fetch`, which is a wait of one poll.
    is_fetch: bool
    #: Whether it waits for a task to be created (`submit`) and not for what a task comes to.
    is_create: bool = False
    #: Loop time at which it began, in seconds.
    started: float
    #: Of the client's base URL.
    server_address: str
    server_port: int


@frozen(kw_only=True, eq=False)
class ObservedEnding:
    """How a wait ended."""

    outcome: WaitOutcome
    #: The task: for a create the one that it made, None where there is none, or nobody knows.
    task_id: str | None
    #: What it ended in, beside the outcome "error".
    error: DistributeError | None
    #: Whether it is a create that may have made a task whose id nobody knows; so is one cancelled after it was sent.
    is_uncertain: bool
    #: The newest response; None before the first and for a create. It has what the model said.
    result: TaskResult | None
    #: Seconds of loop time since it began.
    elapsed: float
    #: HTTP exchanges counted during this wait, for whichever of the waits on its task.
    attempts: int
    #: Those of them that brought a good response.
    polls: int
    #: See `ObservedExchange.interval`; of the newest good response.
    interval: float | None


@define(kw_only=True, eq=False)  # not frozen, which would treble what it costs to make: one is made for each poll
class ObservedExchange:
    """One HTTP exchange that ended. It serves all waits on its task. Read it only."""

    #: The kind of task: "chat".
    kind: str
    #: None for a create, and for the probe of an outage that is sent because a create must not be one.
    task_id: str | None
    #: Whether it was to create a task.
    is_create: bool
    #: Which attempt for this task it was, from 1. One that is repeated at once has the number of its repetition.
    attempt: int
    #: 200 for a good response, or an error's code; None where none came, or one that the API doesn't promise.
    status_code: int | None
    #: None for a good response, else one word: the status code, or the `reason` of `APIConnectionError` or
    #: `APIResponseValidationError`, "cut" where nobody waited for it any longer, "unusable" where nothing was sent.
    fault: str | None
    #: Seconds from its start to its end, waiting for a connection included.
    seconds: float
    #: Whether it was the probe of an outage.
    is_probe: bool
    #: Whether its response showed that the task is over. (Never for a fetch, which follows nothing.)
    is_last: bool
    #: Seconds from the start of the good poll before to this good response; None without one. Of the last one
    #: it bounds how long the end of the task went unnoticed.
    interval: float | None


class Observer:
    """Is called with what a client does: subclass it and pass it as `DistributeClient(observer=…)`.

    Each method does nothing here.

    All methods are called on the client's event loop, while it waits for them: be quick, and never block. What
    they raise (`Exception`) is logged once for each method, and breaks no wait. One observer may serve many clients.
    """

    def wait_started(self, wait: ObservedWait) -> None:
        """A wait begins. Called in the context (`contextvars`) of whoever waits, and nothing else here is."""

    def wait_moved(self, wait: ObservedWait, transition: Transition[Any]) -> None:
        """The task has a new status. For one that joins others this is called with the newest known status first."""

    def wait_ended(self, wait: ObservedWait, ending: ObservedEnding) -> None:
        """A wait is over; no more calls about it follow."""

    def exchange_ended(self, exchange: ObservedExchange) -> None:
        """An HTTP exchange is over."""

    def request_headers(self, waits: tuple[ObservedWait, ...]) -> Mapping[str, str]:  # noqa: ARG002 - for overriding
        """Headers to send with the next request, which serves these waits, the oldest first. None by default.

        Those that the client sets itself (the key above all) can't be set here.
        """
        return {}

    def paused(self, seconds: float) -> None:
        """The service asked for a pause: nothing is sent for so many seconds. A pause within another makes no call."""

    def outage_began(self) -> None:
        """Too many exchanges in a row failed: from now on one probe at a time is sent."""

    def outage_ended(self, seconds: float) -> None:
        """A probe succeeded, so many seconds after the outage's first failure."""


@frozen(kw_only=True)
class Stats:
    """What a client is doing, and what it has done since its first use. A snapshot: see `DistributeClient.stats`."""

    #: Callers that are suspended in an `await` or an iteration now.
    waiting: int = 0
    #: Tasks that are followed for them now.
    tasks: int = 0
    #: HTTP exchanges under way now.
    exchanges: int = 0
    #: Seconds for which the service still wants to be left alone; 0 where it doesn't.
    paused_for: float = 0.0
    #: Seconds since the outage's first failure; None where there is none.
    outage_for: float | None = None
    #: Good responses to polls so far.
    polls: int = 0
    #: Creates that ended so far: "created", "failed" (surely without a task) and "uncertain" (nobody knows; what is
    #: cancelled or cut after it was sent is that, too).
    creates: Mapping[str, int] = field(factory=dict)
    #: All HTTP exchanges so far, by what they came to: "200", or the words of `ObservedExchange.fault`.
    outcomes: Mapping[str, int] = field(factory=dict)
