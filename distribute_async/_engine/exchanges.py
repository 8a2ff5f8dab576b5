"""Makes HTTP exchanges for subscriptions, one asyncio task for each, and classifies what each of them brings.

Used by `poller`, which decides when one starts and what follows from its reply. An exchange is sent, repeated at once
after a stale connection, decoded, and cut where it takes too long or nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import Any, Protocol

from distribute_async._engine.http import HttpSession, Response
from distribute_async._engine.subscription import Exchange, Subscription
from distribute_async._engine.telemetry import Telemetry
from distribute_async._policy.faults import Action, Fault, Good, Reply
from distribute_async._policy.throttle import Throttle
from distribute_async._wire.codec import decode
from distribute_async._wire.errors import APIConnectionError, APITimeoutError, DistributeError

#: Polled for where only submissions wait for an outage's end: they must not be its probe. No task has this id.
PROBE_ID = "ffffffff-ffff-4fff-bfff-ffffffffffff"
_PROBE = f'{{"id": "{PROBE_ID}"}}'.encode()

_CANCELLED = APIConnectionError(
    "the exchange was cancelled by something else than this client, such as a middleware or a trace hook of the "
    "aiohttp session",
    "cancelled",
)


class Driver(Protocol):
    """What is called as an exchange goes on."""

    def new_limit(self, exchange: Exchange) -> None:
        """`Exchange.cut_at` has changed."""

    def replied(self, exchange: Exchange, reply: Reply[Any] | None) -> None:
        """The exchange has ended; without a reply it was cut."""

    async def settle(self) -> None:
        """Close the session if nobody needs it any longer."""


class Exchanges:
    """The HTTP exchanges of one client that are under way."""

    def __init__(self, http: HttpSession, throttle: Throttle, telemetry: Telemetry) -> None:
        self._http = http
        self._throttle = throttle
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._under_way: set[Exchange] = set()
        # An exchange serves many waiters: it must not carry the context variables of the one who came first.
        self._context = contextvars.Context()

    def start(self, subscription: Subscription[Any], driver: Driver) -> None:
        """Send the subscription's request; `driver` is called with the reply, and is kept only until then."""
        now = self._loop.time()
        is_probe = self._throttle.enter(now)
        exchange = Exchange(subscription, is_probe=is_probe, cut_at=now + self._http.connect_timeout)
        # Not by way of the loop's task factory: an eager one (Python 3.12) would run it before it is registered.
        exchange.task = asyncio.Task(self._run(exchange, driver), loop=self._loop, context=self._context)
        self._under_way.add(exchange)
        # All endings go through this callback: a task that is cancelled before its first step runs no `finally`.
        exchange.task.add_done_callback(functools.partial(self._ended, exchange, driver))
        subscription.sent(exchange, now)

    def cut_late(self, exchange: Exchange) -> None:
        """Cut an exchange that takes too long."""
        if exchange.has_connection:
            error = APITimeoutError("no whole response in time (Limits.exchange_timeout)")
        else:
            error = APITimeoutError(
                f"no connection to {self._http.address} in time (Limits.connect_timeout): check base_url, the network "
                "and firewalls",
                "connect_timeout",
            )
        exchange.cut(Fault.of(error))

    @property
    def hold_session(self) -> bool:
        """Whether any of them may still use a connection."""
        return any(exchange.holds_session for exchange in self._under_way)

    @property
    def submissions(self) -> list[Exchange]:
        """The exchanges under way that create tasks."""
        return [exchange for exchange in self._under_way if exchange.is_create]

    async def cut_all(self) -> None:
        """Cut what is under way, and see it ended."""
        for exchange in self._under_way:
            exchange.cut()
        if self._under_way:
            await asyncio.wait([exchange.task for exchange in self._under_way])

    # One exchange.

    async def _run(self, exchange: Exchange, driver: Driver) -> None:
        try:
            exchange.reply = await self._reply(exchange, driver)
        finally:
            # The last exchange closes the session: whoever started it may be gone, and the loop about to end.
            exchange.holds_session = False
            await driver.settle()

    def _ended(self, exchange: Exchange, driver: Driver, task: asyncio.Task[None]) -> None:
        self._under_way.discard(exchange)
        bug = None if task.cancelled() else task.exception()
        reply = exchange.reply
        if bug is not None:  # no wait may hang for a mistake in this library: it counts as a fault
            self._telemetry.broke(bug)
            reply = Fault.of(APIConnectionError(f"the exchange broke with {type(bug).__name__}", "unexpected"))
        elif reply is None:
            reply = exchange.cut_fault if exchange.is_cut else Fault.of(_CANCELLED)
        driver.replied(exchange, reply)

    async def _reply(self, exchange: Exchange, driver: Driver) -> Reply[Any]:
        reply = await self._attempt(exchange, driver)
        if isinstance(reply, Fault) and self._may_repeat(exchange, reply):
            self._telemetry.exchange_ended(exchange, reply, self._loop.time())
            exchange.has_connection = False
            self._limit(exchange, self._http.connect_timeout, driver)
            reply = await self._attempt(exchange, driver)
        return reply

    def _may_repeat(self, exchange: Exchange, fault: Fault) -> bool:
        action = exchange.subscription.lifecycle.action_for(fault)
        return action is Action.RETRY_NOW and self._throttle.repeat(self._loop.time())

    async def _attempt(self, exchange: Exchange, driver: Driver) -> Reply[Any]:
        subscription = exchange.subscription
        headers = self._telemetry.sending(subscription, self._loop.time())
        path, body = subscription.endpoint.path, subscription.lifecycle.request()
        if exchange.stands_in:
            path, body = subscription.endpoint.probe_path, _PROBE
        response = await self._http.post(path, body, headers, lambda: self._before_sending(exchange, driver))
        if isinstance(response, DistributeError):
            return Fault.of(response)
        # Whatever the response to a stand-in says, the service is back.
        return Good(None) if exchange.stands_in else _decoded(response, subscription)

    def _before_sending(self, exchange: Exchange, driver: Driver) -> bool:
        """There is a connection now, and time for the response; whether the request is still wanted."""
        if exchange.is_cut:
            return False
        exchange.has_connection = True
        self._limit(exchange, self._http.exchange_timeout, driver)
        return exchange.stands_in or exchange.subscription.lifecycle.before_sending()

    def _limit(self, exchange: Exchange, seconds: float, driver: Driver) -> None:
        """From now on the exchange has so much time."""
        exchange.cut_at = self._loop.time() + seconds
        driver.new_limit(exchange)


def _decoded(response: Response, subscription: Subscription[Any]) -> Reply[Any]:
    digest = hash(response.body)
    newest = subscription.lifecycle.result
    if digest == subscription.digest and newest is not None:
        return Good(newest)
    result_type = subscription.endpoint.result_type
    result = decode(response.status_code, response.headers, response.body, result_type, is_local=response.is_local)
    if isinstance(result, DistributeError):
        return Fault.of(result)
    subscription.digest = digest
    return Good(result)
