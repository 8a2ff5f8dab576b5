"""What one client follows on one event loop, and who waits for it: what `_api` uses of this room.

A caller that waits hangs a `Waiter` on a `Subscription`, and nothing else keeps polls going: without waiters a
subscription has no timer, no exchange and no place in the queue, and it is freed with the last reference to it.
All waiters of one id share one subscription. `poller` moves the subscriptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

from distribute_async._engine.kinds import Endpoint
from distribute_async._engine.observer import Stats
from distribute_async._engine.poller import Poller
from distribute_async._engine.subscription import Subscription, Waiter, closed
from distribute_async._policy.task_state import FetchState, SubmissionState, TaskState
from distribute_async._wire.errors import ConfigurationError


class Engine:
    """All that one client follows."""

    def __init__(self, poller: Poller) -> None:
        self._loop = asyncio.get_running_loop()
        self._poller = poller
        self._policy = poller.policy
        self.telemetry = poller.telemetry
        #: All ids that somebody refers to, in lower case, by kind of task.
        self._known: dict[Endpoint, WeakValueDictionary[str, Subscription[Any]]] = {}

    def time(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def check_loop(self) -> None:
        """Raises `ConfigurationError` where the running event loop is not this engine's."""
        if self._loop is not asyncio.get_running_loop():
            raise ConfigurationError("a client belongs to the event loop on which it was first used: make another one")

    @property
    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return self._poller.is_closed

    # What there is to wait for.

    def follow(self, endpoint: Endpoint, task_id: str) -> Subscription[Any]:
        """The subscription for an id: the one that others have already, else a new one."""
        self._check_usable()
        others = self._known.setdefault(endpoint, WeakValueDictionary())
        key = task_id.lower()
        key = task_id if key == task_id else key  # usually it is, and one text for both saves 85 bytes
        known = others.get(key)
        if known is not None and known.lifecycle.error is None:
            return known
        now = self.time()
        state: TaskState[Any] = TaskState(task_id, self._policy, now, self._policy.pacer(endpoint.name, now))
        subscription: Subscription[Any] = Subscription(endpoint, state)
        others[key] = subscription
        return subscription

    def fetch(self, endpoint: Endpoint, task_id: str) -> Subscription[Any]:
        """A subscription for one good response."""
        self._check_usable()
        others = self._known.get(endpoint)
        known = None if others is None else others.get(task_id.lower())
        status = None if known is None else known.lifecycle.status
        state: FetchState[Any] = FetchState(task_id, self._policy, self.time(), status)
        return Subscription(endpoint, state)

    def submit(self, endpoint: Endpoint, body: bytes) -> Subscription[str]:
        """A subscription for the creation of one task."""
        self._check_usable()
        return Subscription(endpoint, SubmissionState(body, self._policy, self.time()))

    def _check_usable(self) -> None:
        self.check_loop()
        if self.is_closed:
            raise closed()

    # Who waits.

    @property
    def callers(self) -> int:
        """Callers that are suspended now: each in a wait of its own, or in a step of a stream."""
        return self._poller.callers

    @callers.setter
    def callers(self, count: int) -> None:
        self._poller.callers = count

    def join(self, subscription: Subscription[Any], waiter: Waiter, *, is_new: bool) -> None:
        """From now on `waiter` waits on `subscription`; `is_new`: its wait has just begun."""
        self._poller.activate(subscription)
        subscription.enter(waiter)
        if is_new and not subscription.was_polled:
            self._poller.refuse_before_opening(subscription, [waiter], self.time())
        self.resume([subscription])

    def resume(self, subscriptions: Iterable[Subscription[Any]]) -> None:
        """Send what is due of these: somebody who was away when it came due is suspended there again."""
        self._poller.resume(subscriptions)

    def drop(self, subscription: Subscription[Any], waiter: Waiter) -> asyncio.Task[None] | None:
        """`waiter` waits no longer. The last one to leave cuts the exchange; returns its task, to be awaited."""
        subscription.leave(waiter)
        if subscription.waiters:
            return None
        exchange = self._poller.deactivate(subscription)
        if exchange is None:
            return None
        exchange.cut()
        return exchange.task

    async def leave(self, subscription: Subscription[Any], waiter: Waiter) -> None:
        """What `drop` does, until the exchange has ended and what should be closed is closed."""
        cut = self.drop(subscription, waiter)
        try:
            if cut is not None:
                await asyncio.wait([cut])
        finally:
            await self.settle()

    async def settle(self) -> None:
        """Close the session if nobody needs it any longer: see `Poller.settle`."""
        await self._poller.settle()

    async def close(self, grace: float = 0.0) -> None:
        """End all waits with `ClientClosedError`, and close the session where it was made here.

        Submissions whose request is under way have `grace` seconds to come to their own end.
        """
        await self._poller.close(grace)
        await self._poller.http.close()

    # What is going on.

    def stats(self) -> Stats:
        """What is going on, and what has been."""
        now = self.time()
        down_since = self._poller.throttle.down_since
        return Stats(
            waiting=self.callers,
            tasks=self._poller.active_count,
            exchanges=self._poller.throttle.running,
            paused_for=self._poller.throttle.paused_for(now),
            outage_for=None if down_since is None else now - down_since,
            polls=self.telemetry.polls,
            creates=dict(self.telemetry.creates),
            outcomes=dict(self.telemetry.outcomes),
        )

    def diagnostics(self) -> dict[str, int]:
        """How much is held, by what it is; all of it is 0 once nobody waits. For tests and debugging."""
        known = sum(map(len, self._known.values()))
        return {"known": known, "exchanges": self._poller.throttle.running, **self._poller.diagnostics()}
