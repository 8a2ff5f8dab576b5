"""What a client counts, logs and reports to its `Observer`. It changes nothing. Used by the engine and by `_api`.

`Telemetry` counts and logs: all that a client without an observer has. `ObserverTelemetry` calls the observer, too.
Whatever an observer raises is logged once for each of its methods, and goes no further.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar
from weakref import WeakKeyDictionary

from distribute_async._engine.credentials import checked_headers
from distribute_async._engine.observer import ObservedEnding, ObservedExchange, ObservedWait, Observer, WaitOutcome, log
from distribute_async._engine.subscription import Exchange, Subscription
from distribute_async._policy.faults import Fault, Good, Reply
from distribute_async._policy.task_state import SubmissionState
from distribute_async._wire.errors import APIStatusError, DistributeError
from distribute_async._wire.models import Transition

P = ParamSpec("P")
T = TypeVar("T")


class Span:
    """One wait, reported to the observer. This one reports nothing: the null object.

    Used around each suspension (`with`); `end` says how the wait ended.
    """

    __slots__ = ()

    #: Whether it ended without an end of its own, so that another one may begin.
    is_interrupted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def end(self, outcome: WaitOutcome, error: DistributeError | None = None) -> None:
        """The wait is over. Harmless the second time."""


NO_SPAN = Span()


class Telemetry:
    """The counters and log records of one client."""

    def __init__(self) -> None:
        #: Good responses to polls so far.
        self.polls = 0
        #: Submissions that ended so far, by how they did.
        self.creates: dict[str, int] = {}
        #: HTTP exchanges so far, by what they came to.
        self.outcomes: dict[str, int] = {}

    def span(self, subscription: Subscription[Any], task_id: str | None) -> Span:  # noqa: ARG002 - for overriding
        """A wait begins, for the id as its caller gave it."""
        return NO_SPAN

    def sending(self, subscription: Subscription[Any], now: float) -> Mapping[str, str] | None:  # noqa: ARG002 - likewise
        """A request is about to be sent; returns headers to add."""
        return None

    def exchange_ended(self, exchange: Exchange, reply: Reply[Any] | None, now: float) -> None:  # noqa: ARG002 - likewise
        """An HTTP exchange ended; without a reply it was cut."""
        word = word_of(reply) or "200"
        self.outcomes[word] = self.outcomes.get(word, 0) + 1
        lifecycle = exchange.subscription.lifecycle
        if isinstance(reply, Good):
            self.polls += lifecycle.is_idempotent
        else:
            attempt = lifecycle.attempts.count + 1
            _debug("an exchange failed: %s", word, exchange.subscription, fault=word, attempt=attempt)

    def submission_ended(self, subscription: Subscription[Any], submission: SubmissionState) -> None:
        """Nobody waits for a submission any longer, however it ended."""
        ending = submission.ending
        self.creates[ending] = self.creates.get(ending, 0) + 1
        if ending == "uncertain":
            log.warning(
                "a create may have made a task, and nobody knows its id",
                extra={
                    "distribute_kind": subscription.endpoint.name,
                    "distribute_attempt": submission.attempts.count,
                },
            )
        elif submission.result is not None:
            _debug("a create made the task %s", submission.result, subscription, task_id=submission.result)

    def moved(self, subscription: Subscription[Any], transition: Transition[Any]) -> None:
        """The task has a new status."""
        _debug("a task is %s", transition.status, subscription, status=str(transition.status))

    def paused(self, asked: float, obeyed: float) -> None:  # noqa: ARG002 - likewise
        """The service asks for a pause of so many seconds, of which so many will be obeyed."""
        log.info("the service asks for a pause of %.1f s", asked, extra={"distribute_pause": asked})

    def outage_began(self) -> None:
        """The circuit breaker opened."""
        log.warning("the service is down: one probe at a time from now on")

    def outage_ended(self, lasted: float) -> None:
        """A probe succeeded, so many seconds after the first failure."""
        log.info("the service is back after %.1f s", lasted, extra={"distribute_outage": lasted})

    def broke(self, bug: BaseException) -> None:
        """A mistake in this library, logged with where it happened."""
        log.error("an exchange broke in an unexpected way", exc_info=bug)


class ObserverTelemetry(Telemetry):
    """The same, and everything is reported to an observer."""

    def __init__(self, observer: Observer, server_address: str, server_port: int) -> None:
        super().__init__()
        self.observer = observer
        self.server = server_address, server_port
        self._broken: set[str] = set()
        self._traces: WeakKeyDictionary[Subscription[Any], Trace] = WeakKeyDictionary()

    def call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call a method of the observer's; None where it raises."""
        try:
            return method(*args, **kwargs)
        except (Exception, asyncio.CancelledError):  # a mistake in somebody's telemetry must not cost them a result
            name = getattr(method, "__name__", type(method).__name__)
            if name not in self._broken:
                self._broken.add(name)
                log.exception("the observer broke in %s; further failures there are not logged", name)
            return None

    def trace(self, subscription: Subscription[Any]) -> Trace:
        """What is kept of a subscription for its spans."""
        return self._traces.get(subscription) or self._traces.setdefault(subscription, Trace())

    def span(self, subscription: Subscription[Any], task_id: str | None) -> Span:
        """A wait begins."""
        return ObservedSpan(self, subscription, task_id)

    def sending(self, subscription: Subscription[Any], now: float) -> Mapping[str, str] | None:
        """The headers that the observer adds to a request."""
        trace = self.trace(subscription)
        trace.sent_at = now
        given = self.call(self.observer.request_headers, tuple(trace.waits))
        return self.call(checked_headers, given) if given else None

    def exchange_ended(self, exchange: Exchange, reply: Reply[Any] | None, now: float) -> None:
        """Report the exchange."""
        super().exchange_ended(exchange, reply, now)
        subscription = exchange.subscription
        lifecycle, trace = subscription.lifecycle, self.trace(subscription)
        is_good = isinstance(reply, Good)
        error = reply.error if isinstance(reply, Fault) else None
        observed = ObservedExchange(
            kind=subscription.endpoint.name,
            task_id=lifecycle.task_id,
            is_create=exchange.is_create,
            attempt=lifecycle.attempts.count + 1,
            status_code=200 if is_good else error.status_code if isinstance(error, APIStatusError) else None,
            fault=word_of(reply),
            seconds=now - trace.sent_at,
            is_probe=exchange.is_probe,
            is_last=isinstance(reply, Good) and not lifecycle.is_call and reply.result.is_over,
            interval=trace.responded(now) if is_good else None,
        )
        self.call(self.observer.exchange_ended, observed)

    def moved(self, subscription: Subscription[Any], transition: Transition[Any]) -> None:
        """Report the transition to each wait."""
        super().moved(subscription, transition)
        for wait in list(self.trace(subscription).waits):
            self.call(self.observer.wait_moved, wait, transition)

    def paused(self, asked: float, obeyed: float) -> None:
        """Report the pause."""
        super().paused(asked, obeyed)
        self.call(self.observer.paused, obeyed)

    def outage_began(self) -> None:
        """Report the outage."""
        super().outage_began()
        self.call(self.observer.outage_began)

    def outage_ended(self, lasted: float) -> None:
        """Report its end."""
        super().outage_ended(lasted)
        self.call(self.observer.outage_ended, lasted)


class Trace:
    """What is kept of a subscription for its spans."""

    __slots__ = ("interval", "polls", "responded_from", "sent_at", "waits")

    def __init__(self) -> None:
        #: The running waits on it, the oldest first.
        self.waits: dict[ObservedWait, None] = {}
        #: Good responses so far.
        self.polls = 0
        #: When the newest request was sent.
        self.sent_at = -math.inf
        #: When the request was sent to which the newest good response came; None before the first.
        self.responded_from: float | None = None
        #: From the `responded_from` before to the newest good response, which was true at some time within.
        self.interval: float | None = None

    def responded(self, now: float) -> float | None:
        """A good response came; returns the `interval`."""
        self.polls += 1
        self.interval = None if self.responded_from is None else now - self.responded_from
        self.responded_from = self.sent_at
        return self.interval


class ObservedSpan(Span):
    """A wait that is reported to the observer. `Wait` alone refers to it, so that one that is dropped was left."""

    __slots__ = (
        "_attempts", "_is_over", "_loop", "_polls", "_subscription", "_suspended", "_telemetry", "_trace", "_wait",
        "is_interrupted",
    )  # fmt: skip

    def __init__(self, telemetry: ObserverTelemetry, subscription: Subscription[Any], task_id: str | None) -> None:
        lifecycle = subscription.lifecycle
        self._is_over = False
        self.is_interrupted = False
        self._loop = asyncio.get_running_loop()
        self._telemetry = telemetry
        self._subscription = subscription
        self._suspended = 0
        self._trace = telemetry.trace(subscription)
        self._attempts, self._polls = lifecycle.attempts.count, self._trace.polls
        address, port = telemetry.server
        self._wait = ObservedWait(
            kind=subscription.endpoint.name,
            task_id=task_id,
            is_fetch=lifecycle.is_call and lifecycle.is_idempotent,
            is_create=not lifecycle.is_idempotent,
            started=self._loop.time(),
            server_address=address,
            server_port=port,
        )
        self._trace.waits[self._wait] = None
        telemetry.call(telemetry.observer.wait_started, self._wait)
        for newest in subscription.history[-1:]:
            telemetry.call(telemetry.observer.wait_moved, self._wait, newest)

    def __enter__(self) -> Self:
        self._suspended += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._suspended -= 1
        # A wait that several callers are suspended in goes on until the last of them leaves.
        if kind is not None and not issubclass(kind, DistributeError) and not self._suspended:
            self.is_interrupted = True
            self.end("cancelled" if issubclass(kind, asyncio.CancelledError) else "left")

    def end(self, outcome: WaitOutcome, error: DistributeError | None = None) -> None:
        """The wait is over. Harmless the second time."""
        if self._is_over:
            return
        self._is_over = True
        self._trace.waits.pop(self._wait, None)
        lifecycle = self._subscription.lifecycle
        submission = lifecycle if isinstance(lifecycle, SubmissionState) else None
        ending = ObservedEnding(
            outcome=outcome,
            task_id=self._wait.task_id if submission is None else submission.result,
            error=error,
            is_uncertain=submission is not None and submission.ending == "uncertain",
            result=lifecycle.result if submission is None else None,
            elapsed=self._loop.time() - self._wait.started,
            attempts=lifecycle.attempts.count - self._attempts,
            polls=self._trace.polls - self._polls,
            interval=self._trace.interval,
        )
        self._telemetry.call(self._telemetry.observer.wait_ended, self._wait, ending)

    def __del__(self) -> None:
        # The garbage collector may come at any time and in any thread, within a lock of the observer's too.
        if not self._is_over:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits on it any longer
                self._loop.call_soon_threadsafe(self.end, "left")


def word_of(reply: Reply[Any] | None) -> str | None:
    """One word for what an exchange came to: "cut" without a reply, None for a good response."""
    if reply is None:
        return "cut"
    return reply.word if isinstance(reply, Fault) else None


def _debug(text: str, word: object, subscription: Subscription[Any], **more: object) -> None:
    """Log a record about a subscription, which costs nothing where nobody reads it."""
    if log.isEnabledFor(logging.DEBUG):
        about = {"task_id": subscription.lifecycle.task_id, "kind": subscription.endpoint.name, **more}
        # Prefixed, because a name that an application's records have already is an error.
        log.debug(text, word, extra={f"distribute_{name}": value for name, value in about.items()}, stacklevel=2)
