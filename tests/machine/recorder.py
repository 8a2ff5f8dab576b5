"""Writes down what happens in a run. Used by `run`, and what it wrote by the judges.

A few seams of the library are listened to, and nothing about them is changed: which track a wait follows
(`Poller.track`, `Poller.creation`), when it is polled (`Poller._poll`), what is exchanged (`Session.post`, the lowest
layer; a simulated service may stand in its place), and what never came so far (`Poller._finish`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

from attrs import define, field

from distribute_async import APIConnectionError, ChatResult, DistributeError, TaskStatus, Watch
from distribute_async._engine.http import Answer, Session
from distribute_async._engine.kinds import Endpoint
from distribute_async._engine.poller import Poller
from distribute_async._engine.subscription import Exchange, Track
from distribute_async._wire.codec import decode
from distribute_async._wire.models import Created
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
    #: How often it was asked for.
    polls: int = 0
    #: The one of these that the newest post belongs to.
    posted: int = 0


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
    """Listens at the three seams."""

    def __init__(self, run: Run, service: Service | None) -> None:
        self._run = run
        self._service = service
        self._tracks: WeakKeyDictionary[Track[Any], TrackLog] = WeakKeyDictionary()
        self._followed: WeakKeyDictionary[asyncio.Task[Any], dict[str, TrackLog]] = WeakKeyDictionary()
        self._order = 0
        self._creations = 0
        #: The exchanges under way that came so far as to send something.
        self._heard: set[Exchange[Any]] = set()
        self.poller: Poller | None = None

    def log_of(self, watch: Watch[Any] | None, task_id: str) -> TrackLog | None:
        """The track that a watch follows; without one, the last of this id that the running asyncio task followed."""
        if watch is not None:
            return None if watch._track is None else self._tracks[watch._track]
        task = asyncio.current_task()
        return None if task is None else self._followed.get(task, {}).get(task_id.lower())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """As long as the context lasts."""
        track, creation, poll, finish = Poller.track, Poller.creation, Poller._poll, Poller._finish
        post = Session.post

        def heard_track(poller: Poller, endpoint: Endpoint[Any], task_id: str, *, single: bool = False) -> Track[Any]:
            followed = track(poller, endpoint, task_id, single=single)
            self._follow(poller, followed, TrackLog(task_id.lower(), single, now()))
            return followed

        def heard_creation(poller: Poller, endpoint: Endpoint[Created], body: bytes) -> Track[Created]:
            followed = creation(poller, endpoint, body)
            self._creations += 1
            self._follow(poller, followed, TrackLog(f"creation {self._creations}", True, now(), creates=True), "")
            return followed

        def heard_poll(poller: Poller, exchange: Exchange[Any]) -> Any:
            self._tracks[exchange.track].polls += 1
            return poll(poller, exchange)

        def heard_finish(poller: Poller, exchange: Exchange[Any], heard: Any, worker: Any = None) -> None:
            if isinstance(heard, DistributeError) and exchange not in self._heard:
                # Something else cancelled the asyncio task before its first step.
                log = self._tracks[exchange.track]
                log.polls += 1
                entry = self._new_post(log, exchange)
                self._end(entry, heard)
            self._heard.discard(exchange)
            finish(poller, exchange, heard, worker)

        async def heard_post(
            session: Session, path: str, content: bytes, extra: Any, may_send: Callable[[], bool]
        ) -> Answer | DistributeError:
            entry, exchange = self._entry()

            def heard_may_send() -> bool:
                may = may_send()
                entry.sent = now() if may else None
                return may

            try:
                if self._service is None:
                    heard = await post(session, path, content, extra, heard_may_send)
                else:
                    heard = await self._service.post(content, heard_may_send)
            except asyncio.CancelledError:
                self._end(entry, exchange.fault if exchange.is_cut else APIConnectionError(_CANCELLED, "cancelled"))
                raise
            except RuntimeError:  # scripted: a mistake in this library
                self._end(entry, APIConnectionError("the exchange broke with RuntimeError", "unexpected"))
                raise
            self._end(entry, heard)
            return heard

        with (
            mock.patch.object(Poller, "track", heard_track),
            mock.patch.object(Poller, "creation", heard_creation),
            mock.patch.object(Poller, "_poll", heard_poll),
            mock.patch.object(Poller, "_finish", heard_finish),
            mock.patch.object(Session, "post", heard_post),
        ):
            yield

    def _follow(self, poller: Poller, track: Track[Any], log: TrackLog, key: str | None = None) -> None:
        self.poller = poller
        task = asyncio.current_task()
        assert task is not None
        log = self._tracks.setdefault(track, log)
        self._followed.setdefault(task, {})[log.task_id if key is None else key] = log

    def _entry(self) -> tuple[Post, Exchange[Any]]:
        task = asyncio.current_task()
        assert task is not None
        assert self.poller is not None
        exchange = self.poller._workers[task]
        return self._new_post(self._tracks[exchange.track], exchange), exchange

    def _new_post(self, log: TrackLog, exchange: Exchange[Any]) -> Post:
        self._heard.add(exchange)
        again, log.posted = log.posted == log.polls, log.polls
        self._order += 1
        post = Post(log, now(), self._order, again, stands_in=exchange.stands_in)
        log.posts.append(post)
        self._run.posts.append(post)
        return post

    def _end(self, entry: Post, heard: Answer | DistributeError | None) -> None:
        self._order += 1
        entry.end, entry.end_order = now(), self._order
        if not isinstance(heard, Answer):
            entry.outcome = heard
        elif entry.stands_in and heard.status_code == 200:
            entry.outcome = Created(id=PROBE_ID)
        elif entry.log.creates:
            entry.outcome = decode(heard.status_code, heard.headers, heard.body, Created)
        else:
            entry.outcome = decode(heard.status_code, heard.headers, heard.body, ChatResult)
