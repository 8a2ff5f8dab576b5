"""What browsers are told of tasks: one feed for each task, shared by all its streams. Used by the frameworks' modules.

A feed has one watch and keeps what it told, so that a browser that comes back gets what was seen while its connection
was dying. It follows its task as long as it has a stream: where no browser is connected nothing is polled. Where
following ends before the task does, its streams end, so that the browsers come back, and it begins anew for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal, Self, get_args
from weakref import WeakValueDictionary

from distribute_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    DistributeClient,
    DistributeError,
    NotFoundError,
    PermissionDeniedError,
    TaskFailedError,
    TaskStatus,
    Watch,
)
from distribute_async.integrations._problems import logged_problem_of
from distribute_async.integrations.sse import HEARTBEAT, HEARTBEAT_INTERVAL, RETRY, Event, Mark, encode

_log = logging.getLogger("distribute_async.integrations")

#: The kinds of task, as `DistributeClient.tasks` knows them.
Kind = Literal["chat", "images", "speech"]

#: Feeds that are kept, with or without a stream: the newest ones.
KEPT_FEEDS = 1_000
#: Bytes of events, as they are sent, that these may hold together. A usual answer has under 10 KB, so that this is
#: three times what the feeds above usually hold; but an answer may have 1 MiB, which in JSON of ASCII can be six.
KEPT_BYTES = 32 * 1024 * 1024
#: Events of one feed that are kept, the newest ones: a task may go back and forth for days.
KEPT_EVENTS = 1_000

#: Seconds in which a stream must be written once the application stops; a browser that takes nothing is cut off.
STOP_GRACE = 1.0
#: Seconds in which creates under way may come to their own end as the application stops: to cut one is not to know
#: whether it made a task.
CREATE_GRACE = 5.0

#: Milliseconds after which a browser comes back where following its task ended before the task did. The service has
#: had its `Retry.max_outage` by then, or answers what can't be understood: there is no hurry.
RETRY_AFTER_ERROR = 30_000
#: At most, whatever the service asks for.
LONGEST_RETRY = 3_600_000
#: What won't get better by coming back: the task is unknown, or this application may not ask for it.
_FINAL = (NotFoundError, BadRequestError, AuthenticationError, PermissionDeniedError, ConfigurationError)


def unix_time() -> int:
    """In milliseconds. Not the loop's clock: other servers and browsers go by it."""
    return time.time_ns() // 1_000_000


def checked_kind(kind: str) -> str:
    """The kind of task. Raises `ConfigurationError` for one that there isn't."""
    if kind not in get_args(Kind):
        raise ConfigurationError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    return kind


@asynccontextmanager
async def opened(make_client: Callable[[], DistributeClient]) -> AsyncGenerator[Feeds, None]:
    """One client and its feeds, as long as an application runs."""
    async with make_client() as client:
        feeds = Feeds(client)
        try:
            yield feeds
        finally:
            feeds.stop()
            await client.close(grace=CREATE_GRACE)


class Feeds:
    """All feeds of one application."""

    def __init__(self, client: DistributeClient) -> None:
        self.client = client
        self.is_stopping = False
        #: By kind and id. Held by their streams, and by `_recent` for a while after the last one has gone.
        self._known: WeakValueDictionary[tuple[str, str], Feed] = WeakValueDictionary()
        self._recent: OrderedDict[tuple[str, str], Feed] = OrderedDict()
        self._recent_bytes = 0
        #: Those that have begun.
        self.streams: set[Stream] = set()

    def open(self, kind: str, task_id: str, last_event_id: str | None) -> Stream | None:
        """A stream for a browser that was told all up to `last_event_id`; None where there is nothing more to tell.

        Raises `InvalidTaskIdError`.
        """
        watch = self.client.tasks(kind).watch(task_id, timeout=None)
        mark = Mark.parse(last_event_id)
        if mark is not None and mark.kind == "done":
            return None
        key = kind, watch.task_id
        feed = self._known.get(key)
        if feed is None:
            feed = self._known[key] = Feed(self, key, watch)
        elif feed.has_failed or feed.is_behind(mark):
            feed.begin_anew(watch)
        self.keep(feed)
        return Stream(feed, mark)

    def keep(self, feed: Feed) -> None:
        """Keep a feed for who may come back."""
        if feed.key not in self._recent:
            self._recent[feed.key] = feed
            self._recent_bytes += feed.size
        self._recent.move_to_end(feed.key)
        self._forget()

    def resized(self, feed: Feed, by: int) -> None:
        """A feed holds so many bytes more than before."""
        if feed.key in self._recent:
            self._recent_bytes += by
            self._forget()

    def _forget(self) -> None:
        while len(self._recent) > KEPT_FEEDS or self._recent_bytes > KEPT_BYTES:
            _, feed = self._recent.popitem(last=False)
            self._recent_bytes -= feed.size

    def stop(self) -> None:
        """End all streams, as a lost connection does: browsers come back, to the server that follows this one."""
        self.is_stopping = True
        for stream in list(self.streams):
            stream.stop()


class Feed:
    """What is told of one task."""

    def __init__(self, feeds: Feeds, key: tuple[str, str], watch: Watch[Any]) -> None:
        self.feeds = feeds
        self.key = key
        #: Whether all is told, `done` too.
        self.is_over = False
        #: Whether following the task ended before the task did; who asks again is to get another try.
        self.has_failed = False
        #: Why it ended so, where streams are to say so as they end: an event's data, and the browsers' `retry`.
        self.setback: tuple[Mapping[str, Any], int] | None = None
        #: Bytes that its events have.
        self.size = 0
        self._watch: Watch[Any] | None = watch
        #: Of the watch's transitions, how many were told.
        self._told = 0
        self._status: TaskStatus | None = None
        self._events: list[Event] = []
        self._streams: set[Stream] = set()
        self._following: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    @property
    def has_stopped(self) -> bool:
        """Whether nothing more will come."""
        return self.is_over or self.has_failed or self.feeds.is_stopping

    def is_behind(self, mark: Mark | None) -> bool:
        """Whether a browser knows more than this feed, which slept while another server told that browser."""
        return mark is not None and not self._streams and not self.is_over and mark.at > self._newest_at

    def begin_anew(self, watch: Watch[Any]) -> None:
        """Follow the task with another watch, which begins with the status of now; what was told before stays."""
        if self._watch is not None:
            for transition in self._watch.history[self._told :]:  # others' polls saw these while this feed slept
                self._tell_status(transition.status)
        self._watch, self._told = watch, 0
        self._keep_events([event for event in self._events if event.mark.kind == "status"])
        self.is_over = self.has_failed = False
        self.setback = self._following = None
        if self._streams:
            self._follow_on()

    def join(self, stream: Stream) -> None:
        """From now on the stream wants what comes."""
        self._streams.add(stream)
        self.feeds.streams.add(stream)
        if self._following is None and not self.has_stopped:
            self._follow_on()

    def leave(self, stream: Stream) -> None:
        """The stream wants nothing any more; with the last one the polls end."""
        self.feeds.streams.discard(stream)
        if stream not in self._streams:
            return
        self._streams.discard(stream)
        if not self._streams:
            if self._following is not None:
                self._following.cancel()
                self._following = None
            self.feeds.keep(self)

    def wake(self) -> None:
        """Make all streams look again."""
        for stream in self._streams:
            stream.wake()

    def start_for(self, mark: Mark | None) -> int:
        """The time (of a mark) after which a browser that was told all up to `mark` doesn't know the events."""
        if mark is None or not self._events:
            return 0
        # Whatever a clock says, neither what is to come nor the end is to be missed.
        if not self.is_over:
            return min(mark.at, self._newest_at)
        return min(mark.at, max(event.mark.at for event in self._events if event.mark.kind == "status") - 1)

    def events_after(self, at: int) -> list[Event]:
        """What was told after this time."""
        return self._events[bisect_right(self._events, at, key=lambda event: event.mark.at) :]

    @property
    def _newest_at(self) -> int:
        return self._events[-1].mark.at if self._events else 0

    def _follow_on(self) -> None:
        # It serves many streams: it must not carry the context variables of the request that came first.
        self._following = asyncio.create_task(self._follow(), context=contextvars.Context())
        self._following.add_done_callback(self._followed)

    async def _follow(self) -> None:
        async with self._turn:  # the one before this may still be on its way out
            watch = self._watch
            assert watch is not None  # noqa: S101 - only a feed that is over has none
            try:
                async for status in watch:
                    self._tell_status(status)
                    self._told += 1
                result = await watch
            except ClientClosedError:
                self.has_failed = True  # the browser is to come back, not to hear of it
                return
            except TaskFailedError as error:
                self._tell("error", error=logged_problem_of(error).to_dict())
            except _FINAL as error:
                self.has_failed = True
                self._tell("error", error=logged_problem_of(error).to_dict())
            except DistributeError as error:
                self.has_failed = True
                problem = logged_problem_of(error).to_dict()
                self.setback = self._data(unix_time(), error=problem), _retry_after(error)
                return
            else:
                self._tell("result", result=result.to_dict())
            self._tell("done")
            self.is_over = True
            self._watch = None  # it holds the answer a second time

    def _tell_status(self, status: TaskStatus | None) -> None:
        self._status = status
        self._tell("status")

    def _tell(self, kind: str, **more: Mapping[str, Any]) -> None:
        at = max(unix_time(), self._newest_at + 1)
        event = Event.of(Mark.of(at, kind, self._status), self._data(at, **more))
        self._keep_events([*self._events[1 - KEPT_EVENTS :], event])
        self.wake()

    def _data(self, at: int, **more: Mapping[str, Any]) -> Mapping[str, Any]:
        text = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
        return {"task_id": self.key[1], "at": text, "status": self._status, **more}

    def _keep_events(self, events: list[Event]) -> None:
        before, self._events = self.size, events
        self.size = sum(len(event.wire) for event in events)
        self.feeds.resized(self, self.size - before)

    def _followed(self, following: asyncio.Task[None]) -> None:
        bug = None if following.cancelled() else following.exception()
        if following is not self._following:
            return  # the last stream has gone, or it was begun anew
        self._following = None
        if bug is not None:
            self.has_failed = True
            _log.error("the events of task %s broke off", self.key[1], exc_info=bug)
        elif following.cancelled():
            self.has_failed = True
            _log.warning("the events of task %s broke off: what follows it was cancelled from outside", self.key[1])
        self.wake()


def _retry_after(error: DistributeError) -> int:
    pause = error.retry_after if isinstance(error, APIStatusError) else None
    return min(max(math.ceil(1000 * (pause or 0)), RETRY_AFTER_ERROR), LONGEST_RETRY)


class Stream:
    """The bytes for one browser, as an asynchronous iterator; close it, whatever happens, when the browser has gone.

    An object, not an asynchronous generator: nothing is yielded inside a timeout, and a heartbeat only passes the
    time, without a word to the watch behind it.
    """

    def __init__(self, feed: Feed, mark: Mark | None) -> None:
        self._feed = feed
        self._after = feed.start_for(mark)
        #: Of what the browser was told last, and what need not be told again right after it.
        self._mark = mark
        self._told: frozenset[tuple[str, str]] = frozenset() if mark is None else mark.tells
        self._has_begun = False
        #: Whether it has ended, or was closed.
        self.is_closed = False
        self._waiter: asyncio.Future[bool] | None = None
        self._writing: asyncio.Timeout | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._has_begun and not self.is_closed:
            self._has_begun = True
            self._feed.join(self)
            return encode(retry=RETRY) + self._news()
        while not self.is_closed:
            if news := self._news():
                return news
            if self._feed.has_stopped:
                setback = self._feed.setback
                self.close()
                if setback is not None:
                    return self._told_of(*setback)
            elif not await self._is_woken(HEARTBEAT_INTERVAL):
                return HEARTBEAT
        raise StopAsyncIteration

    def close(self) -> None:
        """Stop following the task on this browser's account; what waits for the next event sees the end. Repeatable."""
        self.is_closed = True
        self._feed.leave(self)
        self.wake()

    def wake(self) -> None:
        """Look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def stop(self) -> None:
        """The application stops: say what is left to say, and end."""
        self.wake()
        if self._writing is not None and self._writing.when() is None:
            self._writing.reschedule(asyncio.get_running_loop().time() + STOP_GRACE)

    async def written(self, writing: Awaitable[None]) -> None:
        """Wait until something is written to the browser.

        Raises `TimeoutError` where it isn't within `STOP_GRACE` seconds of the application's stop: the browser is
        there, and takes nothing.
        """
        try:
            async with asyncio.timeout(STOP_GRACE if self._feed.feeds.is_stopping else None) as self._writing:
                await writing
        finally:
            self._writing = None

    async def _is_woken(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        timer = loop.call_later(seconds, _let_go, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()

    def _news(self) -> bytes:
        news: list[bytes] = []
        for event in self._feed.events_after(self._after):
            self._after = event.mark.at
            if event.mark.says not in self._told:
                self._mark, self._told = event.mark, event.mark.tells
                news.append(event.wire)
        return b"".join(news)

    def _told_of(self, setback: Mapping[str, Any], retry: int) -> bytes:
        # With the id of the event before: the browser knows no more than that, and comes back for the rest.
        return encode(setback, event="error", id=None if self._mark is None else str(self._mark), retry=retry)


def _let_go(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
