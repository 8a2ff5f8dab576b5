"""The poller: moves the subscriptions of one client through its throttle and its exchanges. Used by `engine` alone.

One `Schedule` serves all subscriptions, for next requests, deadlines and exchanges that take too long; one queue holds
those that are due. `_conclude` takes what came of an exchange.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from distribute_async._engine.exchanges import PROBE_ID, Exchanges
from distribute_async._engine.http import HttpSession
from distribute_async._engine.schedule import Schedule
from distribute_async._engine.subscription import Exchange, Subscription, Waiter, closed
from distribute_async._engine.subscription_states import Event, State
from distribute_async._engine.telemetry import Telemetry
from distribute_async._policy.attempts import RequestPolicy
from distribute_async._policy.fair_queue import FairQueue
from distribute_async._policy.faults import Fault, Good, HealthSignal, Reply
from distribute_async._policy.health import ServiceHealth
from distribute_async._policy.task_state import SubmissionState
from distribute_async._policy.throttle import OutageBegan, OutageEnded, Throttle
from distribute_async._wire.errors import DistributeError


class Poller:
    """The subscriptions of one client that have waiters, and what becomes of them."""

    def __init__(
        self,
        http: HttpSession,
        throttle: Throttle,
        policy: RequestPolicy,
        telemetry: Telemetry,
        *,
        closes_when_idle: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.http = http
        self.throttle = throttle
        self.policy = policy
        self.telemetry = telemetry
        self._closes_when_idle = closes_when_idle
        self._health = ServiceHealth(policy)
        self._exchanges = Exchanges(http, throttle, telemetry)
        #: See `Engine.callers`.
        self.callers = 0
        self.is_closed = False
        #: Those that have waiters. (A dict, because a set of ten thousand is four times as large.)
        self._active: dict[Subscription[Any], None] = {}
        #: Those of them that are QUEUED.
        self._queue: FairQueue[Subscription[Any]] = FairQueue()
        self._schedule: Schedule[Subscription[Any]] = Schedule(self._loop)

    # Who has waiters.

    def activate(self, subscription: Subscription[Any]) -> None:
        """It has a waiter. Harmless the second time."""
        if subscription not in self._active:
            self._active[subscription] = None
            subscription.joined(self._loop.time())

    def deactivate(self, subscription: Subscription[Any]) -> Exchange | None:
        """It has no waiter any longer. Returns the exchange that nobody waits for."""
        if subscription not in self._active:
            return None
        del self._active[subscription]
        self._queue.discard(subscription)
        self._schedule.remove(subscription)
        if not self._active:
            self._schedule.disarm()
        if isinstance(subscription.lifecycle, SubmissionState):
            self.telemetry.submission_ended(subscription, subscription.lifecycle)
        return subscription.left(self._loop.time())

    def resume(self, subscriptions: Iterable[Subscription[Any]]) -> None:
        """Send what is due of these, PARKED ones too."""
        now = self._loop.time()
        for subscription in subscriptions:
            if subscription in self._active:
                if subscription.state is State.PARKED:
                    subscription.move(Event.RESUME)
                self._attend(subscription, now)
        self._pump()

    async def settle(self) -> None:
        """Close the session if nobody is suspended and no exchange needs it, where the client wants that.

        The connections are closed at once, even if this is cancelled; it returns when their sockets are gone.
        """
        if self._closes_when_idle and not self.callers and not self._exchanges.hold_session:
            await self.http.close()

    async def close(self, grace: float) -> None:
        """End all waits; see `Engine.close`."""
        self.is_closed = True
        submissions = self._exchanges.submissions if grace else []
        self._end_all(but={exchange.subscription for exchange in submissions})
        try:
            if submissions:
                await asyncio.wait([exchange.task for exchange in submissions], timeout=grace)
        finally:
            self._end_all()
            await self._exchanges.cut_all()
        self._schedule.disarm()

    def _end_all(self, but: Iterable[Subscription[Any]] = ()) -> None:
        spared = set(but)
        for subscription in list(self._active):
            if subscription not in spared:
                self._end(subscription, closed())

    @property
    def active_count(self) -> int:
        """How many subscriptions have waiters."""
        return len(self._active)

    def diagnostics(self) -> dict[str, int]:
        """See `Engine.diagnostics`."""
        return {
            **Counter(subscription.state.name for subscription in self._active),
            "active": len(self._active),
            "queued": len(self._queue),
            **self._schedule.diagnostics(),
        }

    # What to do about one subscription now, and when to look at it again.

    def _attend(self, subscription: Subscription[Any], now: float) -> None:
        subscription.expire(now)
        if subscription.state is State.SLEEPING and subscription.waiters:
            if subscription.is_due(now, self._health.lead):
                subscription.move(Event.DUE)
                self._queue.add(subscription, subscription.priority)
        elif subscription.exchange is not None and subscription.exchange.cut_at <= now:
            self._exchanges.cut_late(subscription.exchange)
        if subscription.state is State.QUEUED:
            self._refuse_hopeless(subscription, now)
        self._plan(subscription)

    def _plan(self, subscription: Subscription[Any]) -> None:
        down_since = self.throttle.down_since
        outage = None if down_since is None else (down_since, self._health.patience.seconds)
        when = subscription.next_event_at(self._health.lead, outage) if subscription.waiters else math.inf
        self._schedule.put(subscription, when)

    def _refuse_hopeless(self, subscription: Subscription[Any], now: float) -> None:
        """End the waits in the queue that an outage has outlasted, and the calls that can't be sent in time."""
        down_since = self.throttle.down_since
        if down_since is not None:
            for waiter in subscription.outlasted(down_since, self._health.patience.seconds, now):
                subscription.refuse(waiter, self._health.last_fault)
        if subscription.lifecycle.is_call:
            self.refuse_before_opening(subscription, subscription.waiters, now)

    def refuse_before_opening(self, subscription: Subscription[Any], waiters: Iterable[Waiter], now: float) -> None:
        """End those of the waits whose deadline comes before the throttle can let any request through."""
        closed_until = self.throttle.closed_until(now)
        if closed_until > now:
            for waiter in [waiter for waiter in waiters if waiter.deadline < closed_until]:
                subscription.refuse(waiter, self._health.why_closed(self.throttle.paused_for(now)))

    def _attend_queued(self, now: float, before: float = math.inf) -> None:
        """Attend to those in the queue again, or to those of them whose deadline comes before a time."""
        for subscription in [queued for queued in self._queue if queued.deadline <= before]:
            self._attend(subscription, now)

    def _end(self, subscription: Subscription[Any], error: DistributeError) -> None:
        if not subscription.lifecycle.is_over:
            subscription.lifecycle.end(error)
            self._finish(subscription)

    def _finish(self, subscription: Subscription[Any]) -> None:
        """Its lifecycle is over: no further request."""
        subscription.move(Event.END)
        self._queue.discard(subscription)
        self._schedule.remove(subscription)
        subscription.notify()

    def _break(self, subscription: Subscription[Any], bug: Exception) -> None:
        """Something raised that must not: a function that was passed to this library, or the library itself.

        The waits end in an error that names the cause, because no later event would end them.
        """
        self.telemetry.broke(bug)
        if subscription.lifecycle.is_over:
            subscription.notify()
        elif isinstance(bug, DistributeError):
            self._end(subscription, bug)
        else:
            self._end(subscription, DistributeError(f"following the task broke with {type(bug).__name__}: see the log"))

    # What is due, and what came of it.

    def _wake_up(self) -> None:
        now = self._loop.time()
        for subscription in self._schedule.due(now):
            try:
                self._attend(subscription, now)
            except Exception as bug:
                self._break(subscription, bug)
        self._pump()

    def _pump(self) -> None:
        """Send what is queued, as far as the throttle lets it through."""
        now = self._loop.time()
        opens_at = math.inf
        while self._queue:
            opens_at = self.throttle.opens_at(now)
            if opens_at > now:
                break
            opens_at = math.inf
            subscription = self._take_next()
            try:
                self._send(subscription, now)
            except Exception as bug:
                self._break(subscription, bug)
        self._schedule.arm(self._wake_up, opens_at)

    def _take_next(self) -> Subscription[Any]:
        """Whose turn it is, taken out of the queue: in an outage one that may be a probe, if there is any."""
        probe = None if self.throttle.down_since is None else self._queue.take_evenly(_is_idempotent)
        return probe or self._queue.take()

    def _send(self, subscription: Subscription[Any], now: float) -> None:
        if not subscription.is_due(now, self._health.lead):  # what queued for a deadline may have come too late
            subscription.move(Event.NOT_DUE)
        elif subscription.is_attended:
            self._exchanges.start(subscription, self)
        else:
            subscription.move(Event.PARK)
            for waiter in list(subscription.waiters):
                waiter.parked()
        self._plan(subscription)

    def new_limit(self, exchange: Exchange) -> None:
        """An exchange under way has a new time limit."""
        subscription = exchange.subscription
        # Where an earlier event is planned, that one plans the next.
        if subscription in self._active and (subscription.entry is None or exchange.cut_at < subscription.entry[0]):
            self._plan(subscription)
            self._schedule.arm(self._wake_up, math.inf)

    def replied(self, exchange: Exchange, reply: Reply[Any] | None) -> None:
        """An exchange has ended; without a reply it was cut, because nobody waits for it."""
        try:
            exchange.subscription.replied()
            self._conclude(exchange, reply, self._loop.time())
        except Exception as bug:
            self._break(exchange.subscription, bug)
        self._pump()

    def _conclude(self, exchange: Exchange, reply: Reply[Any] | None, now: float) -> None:
        subscription, fault = exchange.subscription, reply if isinstance(reply, Fault) else None
        outage = self._note_outage(exchange, reply, now)
        self.telemetry.exchange_ended(exchange, reply, now)
        has_new_limit = reply is not None and self._health.note(reply, now - subscription.polled_at)
        is_wanted = not (exchange.stands_in or subscription.lifecycle.is_over)
        if fault is not None:
            if is_wanted and subscription in self._active:
                self._on_fault(subscription, fault, now)
            if fault.pause:
                self._pause(subscription, fault, now)
        elif isinstance(reply, Good) and is_wanted:
            self._on_good(subscription, reply.result, now)
        if self.is_closed:
            self._end(subscription, closed())
        if subscription in self._active:
            self._attend(subscription, now)
        if isinstance(outage, OutageBegan) or (has_new_limit and self.throttle.down_since is not None):
            self._attend_queued(now)
        elif exchange.is_probe:  # the next one comes later: for some that may be too late
            self._attend_queued(now, before=self.throttle.closed_until(now))

    def _note_outage(
        self, exchange: Exchange, reply: Reply[Any] | None, now: float
    ) -> OutageBegan | OutageEnded | None:
        signal = HealthSignal.CUT if reply is None else reply.signal
        key = PROBE_ID if exchange.stands_in else exchange.subscription.lifecycle.key
        is_crowd = len(self._active) > 1
        outage = self.throttle.leave(key, signal, now, was_probe=exchange.is_probe, is_crowd=is_crowd)
        if isinstance(outage, OutageBegan):
            self.telemetry.outage_began()
        elif isinstance(outage, OutageEnded):
            self.telemetry.outage_ended(outage.seconds)
        return outage

    def _on_good(self, subscription: Subscription[Any], result: Any, now: float) -> None:
        lifecycle = subscription.lifecycle
        transition = lifecycle.on_good(result, now)
        if transition is not None:
            subscription.add(transition)
            self.telemetry.moved(subscription, transition)
        if lifecycle.is_over:
            self._finish(subscription)
        elif transition is not None:
            subscription.notify()
        lifecycle.plan_next(result, now)

    def _on_fault(self, subscription: Subscription[Any], fault: Fault, now: float) -> None:
        """What a fault means for its task, and for those who wait for it."""
        lifecycle = subscription.lifecycle
        lifecycle.on_fault(fault, now)
        if lifecycle.is_over:
            self._finish(subscription)
        elif self.throttle.down_since is not None:
            lifecycle.next_request = now  # queue for the probe: in an outage the throttle does the backing off
        else:
            patience = self._health.patience_for(fault)
            for waiter in lifecycle.out_of_patience(list(subscription.waiters), patience, now):
                subscription.refuse(waiter, fault.error)

    def _pause(self, subscription: Subscription[Any], fault: Fault, now: float) -> None:
        """The service asks to be left alone: no request of this client until then."""
        paused_for = self.throttle.paused_for(now)
        obeyed = min(fault.pause, self.policy.retry.max_retry_after)
        self.throttle.pause(now + obeyed)
        if not paused_for:
            self.telemetry.paused(fault.pause, obeyed)
        for waiter in subscription.due_before(now + fault.pause):
            subscription.refuse(waiter, fault.error)
        if obeyed > paused_for:
            self._health.paused_by(fault)
            self._attend_queued(now)


def _is_idempotent(subscription: Subscription[Any]) -> bool:
    return subscription.lifecycle.is_idempotent
