"""What telemetry can hear: `Observer`, what it is told, and `Stats`. Does nothing by itself, and knows no telemetry.

Users subclass `Observer`. Those who poll and wait tell it through `Telemetry`, and only where a client has one.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, ParamSpec, Protocol, Self, TypeVar

from attrs import define, field, frozen

from distribute_async._engine.credentials import checked_headers
from distribute_async._wire.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    DistributeError,
)
from distribute_async._wire.models import Created, TaskResult, Transition

log = logging.getLogger("distribute_async")
log.addHandler(logging.NullHandler())  # quiet where the application sets up no logging

P = ParamSpec("P")
T = TypeVar("T")

#: How a wait may end: "error" is any `DistributeError`, `TaskFailedError` too where nothing raises it (an `async for`).
#: "left" is an `async for` that was not finished, noticed when its `Watch` is dropped.
Outcome = Literal["result", "error", "cancelled", "left"]


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

    outcome: Outcome
    #: The task: for a create the one that it made, None where there is none, or nobody knows.
    task_id: str | None
    #: What it ended in, beside the outcome "error".
    error: DistributeError | None
    #: Whether it is a create that may have made a task whose id nobody knows; so is one cancelled after it was sent.
    is_uncertain: bool
    #: The newest answer, None before the first and for a create. It holds what the model said.
    result: TaskResult | None
    #: Seconds of loop time since it began.
    elapsed: float
    #: HTTP exchanges counted during this wait, for whichever of the waits on its task.
    attempts: int
    #: Those of them that brought a good answer.
    polls: int
    #: See `ObservedExchange.interval`; of the newest good answer.
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
    #: 200 for a good answer, or an error's code; None where no answer came, or none that the API can mean.
    status_code: int | None
    #: None for a good answer, else one word: the status code, or the `reason` of `APIConnectionError` or
    #: `APIResponseValidationError`, "cut" where nobody waited for it any longer, "unusable" where nothing was sent.
    fault: str | None
    #: Seconds from its start to its end, waiting for a connection included.
    seconds: float
    #: Whether it was the probe of an outage.
    is_probe: bool
    #: Whether its answer showed that the task is over. (Never for a fetch, which follows nothing.)
    is_last: bool
    #: Seconds from the start of the good poll before to this good answer; None where there is none. Of the last one
    #: it bounds how long the end of the task went unnoticed.
    interval: float | None


class Observer:
    """Hears what a client does: subclass it and give it as `DistributeClient(observer=…)`. Each method does nothing.

    All methods are called on the client's event loop, while it waits for them: be quick, and never block. What
    they raise (`Exception`) is logged once for each method, and breaks no wait. One observer may serve many clients.
    """

    def wait_started(self, wait: ObservedWait) -> None:
        """A wait begins. Called in the context (`contextvars`) of whoever waits, and nothing else here is."""

    def wait_moved(self, wait: ObservedWait, transition: Transition[Any]) -> None:
        """The task has a new status. One that joins others is told the newest known status first."""

    def wait_ended(self, wait: ObservedWait, ending: ObservedEnding) -> None:
        """A wait is over; nothing more is told of it."""

    def exchange_ended(self, exchange: ObservedExchange) -> None:
        """An HTTP exchange is over."""

    def request_headers(self, waits: tuple[ObservedWait, ...]) -> Mapping[str, str]:  # noqa: ARG002 - for overriding
        """Headers to send with the next request, which serves these waits, the oldest first. None by default.

        Those that the client sets itself (the key above all) can't be set here.
        """
        return {}

    def paused(self, seconds: float) -> None:
        """The service asked for a pause, and nothing is sent for so many seconds. One within another isn't told."""

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
    #: Good answers to polls so far.
    polls: int = 0
    #: Creates that ended so far: "created", "failed" (surely without a task) and "uncertain" (nobody knows; what is
    #: cancelled or cut after it was sent is that, too).
    creates: Mapping[str, int] = field(factory=dict)
    #: All HTTP exchanges so far, by what they came to: "200", or the words of `ObservedExchange.fault`.
    outcomes: Mapping[str, int] = field(factory=dict)


def fault_word(error: DistributeError) -> str:
    """One word of few for what an exchange came to, fit for a label: nothing that the service said is in it."""
    if isinstance(error, APIStatusError):
        return str(error.status_code)
    return error.reason if isinstance(error, APIConnectionError | APIResponseValidationError) else "unusable"


class Trace:
    """What is kept of a task that is followed for those who listen."""

    __slots__ = ("answer_from", "interval", "polls", "sent_at", "waits")

    def __init__(self) -> None:
        #: The running waits on it, the oldest first.
        self.waits: dict[ObservedWait, None] = {}
        #: Good answers so far.
        self.polls = 0
        #: When the newest request was sent.
        self.sent_at = -math.inf
        #: When the request was sent to which the newest good answer came; None before the first.
        self.answer_from: float | None = None
        #: From the `answer_from` before to the newest good answer: it was true at some time within.
        self.interval: float | None = None

    def answered(self, now: float) -> float | None:
        """A good answer came; gives the `interval`."""
        self.polls += 1
        self.interval = None if self.answer_from is None else now - self.answer_from
        self.answer_from = self.sent_at
        return self.interval


class Followed(Protocol):
    """What is known of a task that is followed."""

    trace: Trace | None

    @property
    def history(self) -> Sequence[Transition[Any]]:
        """The transitions seen."""

    @property
    def attempts(self) -> int:
        """HTTP exchanges counted so far."""

    @property
    def result(self) -> TaskResult | None:
        """The newest answer."""

    @property
    def is_uncertain(self) -> bool:
        """Whether it is a create that may have made a task whose id nobody knows."""


class Telemetry:
    """An observer, told with care: whatever it raises is logged once for each of its methods, and goes no further."""

    def __init__(self, observer: Observer, server_address: str, server_port: int) -> None:
        self.observer = observer
        self._server_address = server_address
        self._server_port = server_port
        self._broken: set[str] = set()

    def tell(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call a method of the observer's; None where it raises."""
        try:
            return method(*args, **kwargs)
        except (Exception, asyncio.CancelledError):  # a mistake in somebody's telemetry must not cost them a result
            name = getattr(method, "__name__", type(method).__name__)
            if name not in self._broken:
                self._broken.add(name)
                log.exception("the observer broke in %s; further failures there are not logged", name)
            return None

    def request_headers(self, trace: Trace) -> Mapping[str, str] | None:
        """What the observer adds to the headers of a request."""
        given = self.tell(self.observer.request_headers, tuple(trace.waits))
        return self.tell(checked_headers, given) if given else None

    def hear(self, task: Followed, *, kind: str, task_id: str, is_fetch: bool, is_create: bool = False) -> Hearing:
        """A wait begins."""
        wait = ObservedWait(
            kind=kind,
            task_id=None if is_create else task_id,
            is_fetch=is_fetch,
            is_create=is_create,
            started=asyncio.get_running_loop().time(),
            server_address=self._server_address,
            server_port=self._server_port,
        )
        return Hearing(self, wait, task)


class Hearing:
    """One wait of one watch, told to the observer. Its watch alone holds it: if it is dropped unended, it was left.

    Used around each suspension (`with`), and told the ending with `end`.
    """

    def __init__(self, telemetry: Telemetry, wait: ObservedWait, task: Followed) -> None:
        self.is_over = False
        #: It ended without having come to an end of its own, so that another one may begin.
        self.is_interrupted = False
        self._loop = asyncio.get_running_loop()
        self._telemetry = telemetry
        self._wait = wait
        self._task = task
        self._suspended = 0
        self._trace = task.trace or Trace()
        self._attempts, self._polls = task.attempts, self._trace.polls
        self._trace.waits[wait] = None
        telemetry.tell(telemetry.observer.wait_started, wait)
        for newest in task.history[-1:]:
            telemetry.tell(telemetry.observer.wait_moved, wait, newest)

    def __enter__(self) -> Self:
        self._suspended += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._suspended -= 1
        # A watch that is awaited by several at once goes on until the last of them leaves.
        if kind is not None and not issubclass(kind, DistributeError) and not self._suspended:
            self.is_interrupted = True
            self.end("cancelled" if issubclass(kind, asyncio.CancelledError) else "left")

    def end(self, outcome: Outcome, error: DistributeError | None = None) -> None:
        """The wait is over. Harmless the second time."""
        if self.is_over:
            return
        self.is_over = True
        self._trace.waits.pop(self._wait, None)
        result, task_id = self._task.result, self._wait.task_id
        if isinstance(result, Created):
            task_id, result = result.id, None
        ending = ObservedEnding(
            outcome=outcome,
            task_id=task_id,
            error=error,
            is_uncertain=self._task.is_uncertain,
            result=result,
            elapsed=self._loop.time() - self._wait.started,
            attempts=self._task.attempts - self._attempts,
            polls=self._trace.polls - self._polls,
            interval=self._trace.interval,
        )
        self._telemetry.tell(self._telemetry.observer.wait_ended, self._wait, ending)

    def __del__(self) -> None:
        # The garbage collector may come at any time and in any thread, within a lock of the observer's too.
        if not self.is_over:
            with suppress(RuntimeError):  # the loop is closed, so there is nobody left to tell
                self._loop.call_soon_threadsafe(self.end, "left")
