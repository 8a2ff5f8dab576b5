"""Writes down what happens in a run. Used by `run`, and what it wrote by the judges.

It is the `Listener` of `tests.seams`: it hears what is followed and what each exchange comes to, and carries the
requests, over sockets or to a simulated service.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, field

from distribute_async import APIConnectionError, ChatResult, DistributeError, TaskStatus, Watch
from distribute_async._engine.engine import Engine
from distribute_async._engine.subscription import Exchange, Subscription
from distribute_async._wire.codec import decode
from distribute_async._wire.models import Created
from tests import seams
from tests.machine.plan import PROBE_ID, Plan
from tests.machine.service import Service
from tests.waiting import now

#: What the library says of a cancellation that it didn't cause.
_CANCELLED = (
    "the exchange was cancelled by something else than this client, such as a middleware or a trace hook "
    "of the aiohttp session"
)


class Quiet(Enum):
    """The ends of a step that are neither a value nor an error."""

    STOPPED = "the iteration stops"
    CANCELLED = "cancelled"


@define(eq=False)
class Post:
    """One HTTP exchange. `outcome`: a result, an error, None where it was cut.

    `sent`: when the request left, None where it surely didn't. `stands_in`: it asks for no task of anybody's, because
    what its track wants to send must not be a probe.
    """

    log: TrackLog
    start: float
    order: int
    #: It follows a failed one within the same poll.
    again: bool
    end: float | None = None
    end_order: int = 0
    outcome: ChatResult | Created | DistributeError | None = None
    sent: float | None = None
    stands_in: bool = False


@define(eq=False)
class TrackLog:
    """What was exchanged for one track, whose id is written in lower case; a task that is created has none yet."""

    task_id: str
    single: bool
    created: float
    creates: bool = False
    posts: list[Post] = field(factory=list)


@define(eq=False)
class WatchLog:
    """One watch, or one call that has a watch of its own. Infinite `timeout` for none."""

    task_id: str
    single: bool
    timeout: float
    started: float
    log: TrackLog | None = None
    creates: bool = False
    history: tuple[TaskStatus | None, ...] = ()


@define(eq=False)
class Step:
    """One time that somebody waited: `op` is "next" or "await"; `quits`, the times at which it was told to leave."""

    actor: int
    op: str
    watch: WatchLog
    asked: float
    ended: float = 0.0
    ending: Any = None
    quits: list[float] = field(factory=list)


@define(eq=False)
class Run:
    """All that happened."""

    plan: Plan
    posts: list[Post] = field(factory=list)
    steps: list[Step] = field(factory=list)
    closed_at: float | None = None
    #: When the last one that closes it gave what is under way no more time.
    cut_at: float | None = None
    ended_at: float = 0.0
    #: What shouldn't be, noticed on the way.
    complaints: list[str] = field(factory=list)
    #: All text that the run produced.
    texts: list[str] = field(factory=list)


class Recorder:
    """Writes down what a run's client follows and exchanges."""

    def __init__(self, run: Run, service: Service | None) -> None:
        self._run = run
        self._service = service
        self._logs: WeakKeyDictionary[Subscription[Any], TrackLog] = WeakKeyDictionary()
        self._followed: WeakKeyDictionary[asyncio.Task[Any], dict[str, TrackLog]] = WeakKeyDictionary()
        self._order = 0
        self._submissions = 0
        #: The exchanges under way that came so far as to send something.
        self._carried: set[Exchange] = set()
        self.engine: Engine | None = None

    def log_of(self, watch: Watch[Any] | None, task_id: str) -> TrackLog | None:
        """What a watch follows; without one, the last of this id that the running asyncio task followed."""
        if watch is not None:
            subscription = seams.subscription_of(watch)
            return None if subscription is None else self._logs[subscription]
        task = asyncio.current_task()
        return None if task is None else self._followed.get(task, {}).get(task_id.lower())

    def subscribed(self, engine: Engine, subscription: Subscription[Any]) -> None:
        """Somebody is about to wait on this."""
        self.engine = engine
        lifecycle, key = subscription.lifecycle, None
        if lifecycle.is_idempotent:
            log = TrackLog(str(lifecycle.task_id).lower(), lifecycle.is_call, now())
        else:
            self._submissions += 1
            log, key = TrackLog(f"creation {self._submissions}", True, now(), creates=True), ""
        task = asyncio.current_task()
        assert task is not None
        log = self._logs.setdefault(subscription, log)
        self._followed.setdefault(task, {})[log.task_id if key is None else key] = log

    def replied(self, exchange: Exchange, error: DistributeError | None) -> None:
        """An exchange has ended; one whose asyncio task something else cancelled before its first step sent nothing."""
        if error is not None and exchange not in self._carried:
            self._end(self._new_post(exchange), error)
        self._carried.discard(exchange)

    async def carry(
        self, exchange: Exchange, send: seams.Send, content: bytes, may_send: seams.MaySend
    ) -> seams.ResponseOrError:
        """Carry a request, and write down when it left and what it came to."""
        post = self._new_post(exchange)

        def noted_may_send() -> bool:
            may = may_send()
            post.sent = now() if may else None
            return may

        try:
            if self._service is None:
                heard = await send(noted_may_send)
            else:
                heard = await self._service.post(content, noted_may_send)
        except asyncio.CancelledError:
            self._end(post, _error_of_cut(exchange))
            raise
        except RuntimeError:  # scripted: a mistake in this library
            self._end(post, APIConnectionError("the exchange broke with RuntimeError", "unexpected"))
            raise
        self._end(post, heard)
        return heard

    def _new_post(self, exchange: Exchange) -> Post:
        log = self._logs[exchange.subscription]
        again = exchange in self._carried
        self._carried.add(exchange)
        self._order += 1
        post = Post(log, now(), self._order, again, stands_in=exchange.stands_in)
        log.posts.append(post)
        self._run.posts.append(post)
        return post

    def _end(self, post: Post, heard: seams.ResponseOrError | None) -> None:
        self._order += 1
        post.end, post.end_order = now(), self._order
        if heard is None or isinstance(heard, DistributeError):
            post.outcome = heard
        elif post.stands_in:
            post.outcome = Created(id=PROBE_ID)
        else:
            decoded: Any = decode(
                heard.status_code, heard.headers, heard.body, Created if post.log.creates else ChatResult
            )
            post.outcome = decoded


def _error_of_cut(exchange: Exchange) -> DistributeError | None:
    """What an exchange that was cancelled comes to; None where nobody waited for it any longer."""
    if not exchange.is_cut:
        return APIConnectionError(_CANCELLED, "cancelled")
    return None if exchange.cut_fault is None else exchange.cut_fault.error
