"""One id that is followed, a fetch, or a submission, for all who wait on it: its state, its waiters, what was seen.

Moved by `poller` alone, along `TRANSITIONS`; read by `_api` and `telemetry`. No clock, no socket: nothing happens here
by itself.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from distribute_async._engine.kinds import Endpoint
from distribute_async._engine.schedule import Entry
from distribute_async._engine.subscription_states import TRANSITIONS, Event, State
from distribute_async._policy.attempts import Wait
from distribute_async._policy.fair_queue import Priority
from distribute_async._policy.faults import Fault, Reply
from distribute_async._policy.task_state import Lifecycle
from distribute_async._wire.errors import ClientClosedError, DistributeError
from distribute_async._wire.models import Transition

T = TypeVar("T")

#: Transitions that a subscription keeps for slow readers and for `Watch.history`.
HISTORY = 1_000
#: Waiters of one subscription that are searched one by one; more are kept in a dict.
FEW_WAITERS = 16
#: Transitions of one subscription that are kept in a tuple.
FEW_TRANSITIONS = 8


class Waiter(Wait, Protocol):
    """A caller that waits on a subscription, suspended or in the body of its loop."""

    @property
    def deadline(self) -> float:
        """Loop time at which to wake it, whatever happened."""

    @property
    def wants_all(self) -> bool:
        """Whether each transition wakes it; otherwise only the end does."""

    @property
    def is_away(self) -> bool:
        """Whether it is not suspended now: then no new request is sent for this waiter alone."""

    def wake(self) -> None:
        """Look at the subscription and the clock again. Must not raise. One whose deadline passed waits no longer."""

    def refuse(self, error: DistributeError) -> None:
        """This wait alone ends in this error; the subscription goes on. It waits no longer."""

    def parked(self) -> None:
        """A request was due while it was away: it calls `Poller.resume` when it is back."""


class Exchange:
    """An HTTP exchange for a subscription, and the asyncio task that makes it."""

    __slots__ = (
        "cut_at", "cut_fault", "has_connection", "holds_session", "is_cut", "is_probe", "reply", "stands_in",
        "subscription", "task",
    )  # fmt: skip

    task: asyncio.Task[None]

    def __init__(self, subscription: Subscription[Any], *, is_probe: bool, cut_at: float) -> None:
        self.subscription = subscription
        #: Whether it is the probe of an outage.
        self.is_probe = is_probe
        #: Whether it polls for a task that nobody made, because the subscription's request must not be a probe.
        self.stands_in = is_probe and not subscription.lifecycle.is_idempotent
        #: Loop time at which to cut it: first for having no connection, then for having no whole response.
        self.cut_at = cut_at
        self.has_connection = False
        #: Whether it may still use a connection of the session.
        self.holds_session = True
        #: Whether this client cut it; a cancellation without that is somebody else's, and a fault.
        self.is_cut = False
        #: What it comes to where it was cut for being late; None where nobody waits for it.
        self.cut_fault: Fault | None = None
        #: What it came to; None before, and where it was cut.
        self.reply: Reply[Any] | None = None

    @property
    def is_create(self) -> bool:
        """Whether it creates a task, so that to cut it means not to know whether there is one."""
        return not (self.subscription.lifecycle.is_idempotent or self.stands_in)

    def cut(self, fault: Fault | None = None) -> None:
        """End it: nobody waits for it any longer, or it is too late, which is this fault."""
        if not self.is_cut:
            self.is_cut, self.cut_fault = True, fault
        self.cut_at = math.inf
        self.task.cancel()


class Subscription(Generic[T]):
    """What is followed: its lifecycle, its state, who waits, and the transitions that were seen."""

    __slots__ = (
        "__weakref__", "deadline", "digest", "endpoint", "entry", "exchange", "forgotten", "has_led", "history",
        "lifecycle", "polled_at", "state", "waiters",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, lifecycle: Lifecycle) -> None:
        self.endpoint = endpoint
        self.lifecycle = lifecycle
        self.state = State.IDLE
        #: In the order of coming. Nearly always one, which a tuple keeps in least room; but there may be thousands.
        self.waiters: tuple[Waiter, ...] | dict[Waiter, None] = ()
        #: No waiter's deadline is earlier than this.
        self.deadline = math.inf
        #: The exchange under way, while IN_FLIGHT or CUTTING, or OVER before it has ended.
        self.exchange: Exchange | None = None
        self.polled_at = -math.inf
        #: Whether a poll was made ahead of schedule, for a waiter's deadline, since the last regular one.
        self.has_led = False
        #: Of the last good response's body: an equal one is not decoded again. (64 bits, keyed by the interpreter.)
        self.digest: int | None = None
        #: A tuple while there are few, as for most tasks, because that takes least room.
        self.history: tuple[Transition[Any], ...] | list[Transition[Any]] = ()
        #: Transitions that are no longer in `history`.
        self.forgotten = 0
        #: Its place in the schedule.
        self.entry: Entry | None = None

    def move(self, event: Event) -> None:
        """Go to the state that follows. Raises `RuntimeError` where the table has none."""
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise RuntimeError(f"{event.name} in state {self.state.name}") from None

    # Who waits.

    @property
    def is_attended(self) -> bool:
        """Whether somebody is suspended here."""
        return any(not waiter.is_away for waiter in self.waiters)

    def joined(self, now: float) -> None:
        """Somebody waits here, after nobody did."""
        self.deadline = math.inf
        self.lifecycle.resume(now)
        self.move(Event.JOIN)

    def left(self, now: float) -> Exchange | None:
        """Nobody waits here any longer; returns the exchange that nobody waits for."""
        self.lifecycle.attempts.suspend(now)
        self.move(Event.LEAVE)
        return self.exchange

    def enter(self, waiter: Waiter) -> None:
        """`waiter` waits here from now on."""
        if isinstance(self.waiters, dict):
            self.waiters[waiter] = None
        elif len(self.waiters) < FEW_WAITERS:
            self.waiters = (*self.waiters, waiter)
        else:
            self.waiters = {**dict.fromkeys(self.waiters), waiter: None}
        self.deadline = min(self.deadline, waiter.deadline)

    def leave(self, waiter: Waiter) -> None:
        """`waiter` waits here no longer, if it did."""
        if isinstance(self.waiters, dict):
            self.waiters.pop(waiter, None)
        else:
            self.waiters = tuple(other for other in self.waiters if other is not waiter)

    def refuse(self, waiter: Waiter, error: DistributeError) -> None:
        """This wait alone ends in this error, or in what that means for the lifecycle."""
        self.leave(waiter)
        waiter.refuse(self.lifecycle.refusal(error))

    def expire(self, now: float) -> None:
        """Wake those whose deadline has passed; they wait no longer."""
        if self.deadline > now:
            return
        for waiter in [waiter for waiter in self.waiters if waiter.deadline <= now]:
            self.leave(waiter)
            waiter.wake()
        self._find_deadline()

    def due_before(self, time: float) -> list[Waiter]:
        """The waiters whose deadline comes before a time."""
        return [waiter for waiter in self.waiters if waiter.deadline < time]

    def outlasted(self, down_since: float, patience: float, now: float) -> list[Waiter]:
        """The waiters that have waited for so many seconds in an outage that began then."""
        return [waiter for waiter in self.waiters if max(down_since, waiter.since) + patience <= now]

    def notify(self) -> None:
        """Wake those who want to know of a new transition, or all of them of the end."""
        for waiter in list(self.waiters):
            if waiter.wants_all or self.lifecycle.is_over:
                waiter.wake()

    def _find_deadline(self) -> None:
        self.deadline = min((waiter.deadline for waiter in self.waiters), default=math.inf)

    # When something is to happen next.

    @property
    def was_polled(self) -> bool:
        """Whether any request was sent so far."""
        return self.polled_at > -math.inf

    @property
    def priority(self) -> Priority:
        """The class of its next request at the throttle."""
        if self.lifecycle.is_call:
            return Priority.CALL
        return Priority.POLL if self.was_polled else Priority.FIRST_POLL

    def is_due(self, now: float, lead: float) -> bool:
        """Whether the time of the next request has come; `lead`: see `next_request_at`."""
        if now < self.lifecycle.next_request and self.next_request_at(lead) <= now:
            # Ahead of schedule, for a deadline: but its waiter may have left meanwhile.
            self._find_deadline()
        return self.next_request_at(lead) <= now

    def next_request_at(self, lead: float) -> float:
        """The regular next request, or one `lead` seconds ahead of the earliest deadline, once for each interval."""
        regular, ahead = self.lifecycle.next_request, self.deadline - lead
        if self.has_led or ahead <= self.polled_at or not self.lifecycle.is_idempotent:
            return regular
        return min(regular, ahead)

    def next_event_at(self, lead: float, outage: tuple[float, float] | None) -> float:
        """When to look at it next; infinite where only another event can bring anything.

        `outage`: since when the service is down and for how many seconds a wait in the queue outlives that.
        """
        match self.state:
            case State.SLEEPING:
                return min(self.deadline, self.next_request_at(lead))
            case State.IN_FLIGHT if self.exchange is not None:
                return min(self.deadline, self.exchange.cut_at)
            case State.QUEUED if outage is not None:
                down_since, patience = outage
                oldest = min(waiter.since for waiter in self.waiters)
                return min(self.deadline, max(down_since, oldest) + patience)
            case State.QUEUED | State.PARKED:
                return self.deadline
            case _:
                return math.inf

    def sent(self, exchange: Exchange, now: float) -> None:
        """Its request is on its way."""
        self.move(Event.SEND)
        self.exchange = exchange
        self.has_led = now < self.lifecycle.next_request
        self.polled_at = now

    def replied(self) -> None:
        """Its exchange has ended."""
        self.exchange = None
        self.move(Event.REPLY)

    # What was seen.

    @property
    def seen(self) -> int:
        """Transitions seen so far."""
        return self.forgotten + len(self.history)

    def add(self, transition: Transition[Any]) -> None:
        """Keep a transition; drop the oldest ones, a hundred at a time, once there are too many."""
        if isinstance(self.history, tuple):
            self.history = (*self.history, transition)
            if len(self.history) == FEW_TRANSITIONS:
                self.history = list(self.history)
            return
        self.history.append(transition)
        if len(self.history) >= HISTORY + 100:
            del self.history[:100]
            self.forgotten += 100

    def since(self, cursor: int) -> Sequence[Transition[Any]]:
        """The transitions after the first `cursor` ones, as far as they are kept."""
        return self.history[max(0, cursor - self.forgotten) :]

    def with_context(self, error: DistributeError, task_id: str | None, elapsed: float) -> DistributeError:
        """A copy of an error for one wait of so many seconds, with what was known of the task."""
        lifecycle = self.lifecycle
        return error.with_context(
            task_id=task_id, last_status=lifecycle.status, attempts=lifecycle.attempts.count, elapsed=elapsed
        )


def closed() -> ClientClosedError:
    """What ends the waits of a client that is closed."""
    return ClientClosedError("the client is closed; the tasks themselves are untouched")
