"""Writes down what happens in a run. Used by `run`, and what it wrote by the judges.

Three seams of the library are listened to, and nothing about them is changed: which track a wait follows
(`Poller.track`), when it is polled (`Poller._poll`), and what is exchanged (`Session.post`, the lowest layer; a
simulated service may stand in its place).
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
from distribute_async._codec import decode
from distribute_async._endpoints import Endpoint
from distribute_async._poller import Poller
from distribute_async._session import Answer, Session
from distribute_async._track import Exchange, Track
from tests.machine.plan import Plan
from tests.machine.service import Service
from tests.waiting import now


class Quiet(Enum):
    """The ends of a step that are neither a value nor an error."""

    STOPPED = "the iteration stops"
    CANCELLED = "cancelled"


@define(eq=False)
class Post:
    """One HTTP exchange. `outcome`: a result, an error, None where it was cut."""

    log: TrackLog
    start: float
    order: int
    #: It follows a failed one within the same poll.
    again: bool
    end: float | None = None
    end_order: int = 0
    outcome: ChatResult | DistributeError | None = None


@define(eq=False)
class TrackLog:
    """What was exchanged for one track."""

    task_id: str
    single: bool
    created: float
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
        self.poller: Poller | None = None

    def log_of(self, watch: Watch[Any] | None, task_id: str) -> TrackLog | None:
        """The track that a watch follows; without one, the last of this id that the running asyncio task followed."""
        if watch is not None:
            return None if watch._track is None else self._tracks[watch._track]
        task = asyncio.current_task()
        return None if task is None else self._followed.get(task, {}).get(task_id)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """As long as the context lasts."""
        track, poll, post = Poller.track, Poller._poll, Session.post

        def heard_track(poller: Poller, endpoint: Endpoint[Any], task_id: str, *, single: bool = False) -> Track[Any]:
            followed = track(poller, endpoint, task_id, single=single)
            self.poller = poller
            log = self._tracks.setdefault(followed, TrackLog(task_id, single, now()))
            task = asyncio.current_task()
            assert task is not None
            self._followed.setdefault(task, {})[task_id] = log
            return followed

        def heard_poll(poller: Poller, exchange: Exchange[Any]) -> Any:
            self._tracks[exchange.track].polls += 1
            return poll(poller, exchange)

        async def heard_post(
            session: Session, path: str, content: bytes, extra: Any, may_send: Callable[[], bool]
        ) -> Answer | DistributeError:
            entry, exchange = self._entry()
            try:
                if self._service is None:
                    heard = await post(session, path, content, extra, may_send)
                else:
                    heard = await self._service.post(content, may_send)
                entry.outcome = (
                    decode(heard.status_code, heard.headers, heard.body, ChatResult)
                    if isinstance(heard, Answer)
                    else heard
                )
                return heard
            except asyncio.CancelledError:
                entry.outcome = exchange.fault
                raise
            except RuntimeError:  # scripted: a mistake in this library
                entry.outcome = APIConnectionError("the exchange broke with RuntimeError", "unexpected")
                raise
            finally:
                self._order += 1
                entry.end, entry.end_order = now(), self._order

        with (
            mock.patch.object(Poller, "track", heard_track),
            mock.patch.object(Poller, "_poll", heard_poll),
            mock.patch.object(Session, "post", heard_post),
        ):
            yield

    def _entry(self) -> tuple[Post, Exchange[Any]]:
        task = asyncio.current_task()
        assert task is not None
        exchange, log = next(
            (track.exchange, log)
            for track, log in self._tracks.items()
            if track.exchange is not None and track.exchange.worker is task
        )
        again, log.posted = log.posted == log.polls, log.polls
        self._order += 1
        post = Post(log, now(), self._order, again)
        log.posts.append(post)
        self._run.posts.append(post)
        return post, exchange
