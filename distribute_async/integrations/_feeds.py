"""What browsers are told of tasks: one feed for each task, shared by all its streams. Used by the frameworks' modules.

A feed has one watch and keeps what it told, so that a browser that comes back gets what was seen while its connection
was dying. It follows its task as long as it has a stream: where no browser is connected nothing is polled.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self
from weakref import WeakValueDictionary

from distribute_async import (
    ChatResult,
    ClientClosedError,
    DistributeClient,
    DistributeError,
    TaskFailedError,
    TaskStatus,
    Watch,
)
from distribute_async.integrations._problems import logged_problem_of
from distribute_async.integrations.sse import HEARTBEAT, HEARTBEAT_INTERVAL, RETRY, Event, Mark, encode

_log = logging.getLogger("distribute_async.integrations")

#: Feeds without a stream that are kept, the newest ones.
KEPT_FEEDS = 1_000
#: Events of one feed that are kept, the newest ones: a task may go back and forth for days.
KEPT_EVENTS = 1_000


def unix_time() -> int:
    """In milliseconds. Not the loop's clock: other servers and browsers go by it."""
    return time.time_ns() // 1_000_000


class Feeds:
    """All feeds of one application."""

    def __init__(self, client: DistributeClient) -> None:
        self.client = client
        self.is_stopping = False
        #: Held by their streams, and by `_recent` for a while after the last one has gone.
        self._known: WeakValueDictionary[str, Feed] = WeakValueDictionary()
        self._recent: OrderedDict[str, Feed] = OrderedDict()

    def open(self, task_id: str, last_event_id: str | None) -> Stream | None:
        """A stream for a browser that was told all up to `last_event_id`; None where there is nothing more to tell.

        Raises `InvalidTaskIdError`, and `ClientClosedError` once the client is closed.
        """
        mark = Mark.parse(last_event_id)
        if mark is not None and mark.kind == "done":
            return None
        feed = self._known.get(task_id)
        if feed is None or feed.has_failed or feed.is_behind(mark):
            feed = self._known[task_id] = Feed(self, task_id, self.client.watch(task_id, timeout=None))
        self.keep(feed)
        return Stream(feed, mark)

    def keep(self, feed: Feed) -> None:
        """Keep a feed for who may come back."""
        if self._known.get(feed.task_id) is feed:
            self._recent[feed.task_id] = feed
            self._recent.move_to_end(feed.task_id)
            if len(self._recent) > KEPT_FEEDS:
                self._recent.popitem(last=False)

    def stop(self) -> None:
        """End all streams, as a lost connection does: browsers come back, to the server that follows this one."""
        self.is_stopping = True
        for feed in list(self._known.values()):
            feed.wake()


class Feed:
    """What is told of one task."""

    def __init__(self, feeds: Feeds, task_id: str, watch: Watch[ChatResult]) -> None:
        self.feeds = feeds
        self.task_id = task_id
        #: Whether all is told, `done` too.
        self.is_over = False
        #: Whether following the task ended before the task did; who asks again is to get another try.
        self.has_failed = False
        self._watch = watch
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

    def join(self, stream: Stream) -> None:
        """From now on the stream wants what comes."""
        self._streams.add(stream)
        if self._following is None and not self.has_stopped:
            # It serves many streams: it must not carry the context variables of the request that came first.
            self._following = asyncio.create_task(self._follow(), context=contextvars.Context())
            self._following.add_done_callback(self._followed)

    def leave(self, stream: Stream) -> None:
        """The stream wants nothing any more; with the last one the polls end."""
        self._streams.discard(stream)
        if not self._streams and self._following is not None:
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
        if not self.is_over:
            return mark.at
        # Whatever a clock says, the end is not to be missed.
        return min(mark.at, max(event.mark.at for event in self._events if event.mark.kind == "status") - 1)

    def events_after(self, at: int) -> list[Event]:
        """What was told after this time."""
        return self._events[bisect_right(self._events, at, key=lambda event: event.mark.at) :]

    @property
    def _newest_at(self) -> int:
        return self._events[-1].mark.at if self._events else 0

    async def _follow(self) -> None:
        async with self._turn:  # the one before this may still be on its way out
            try:
                async for status in self._watch:
                    self._tell("status", status)
                result = await self._watch
            except ClientClosedError:
                self.has_failed = True  # the browser is to come back, not to hear of it
                return
            except DistributeError as error:
                self.has_failed = not isinstance(error, TaskFailedError)
                self._tell("error", self._watch.status, error=logged_problem_of(error).to_dict())
            else:
                self._tell("result", result.status, result=result.to_dict())
            self._tell("done", self._watch.status)
            self.is_over = True

    def _tell(self, kind: str, status: TaskStatus | None, **more: Mapping[str, Any]) -> None:
        at = max(unix_time(), self._newest_at + 1)
        text = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
        data = {"task_id": self.task_id, "at": text, "status": status, **more}
        self._events.append(Event.of(Mark.of(at, kind, status), data))
        if len(self._events) >= KEPT_EVENTS + 100:
            del self._events[:100]
        self.wake()

    def _followed(self, following: asyncio.Task[None]) -> None:
        if following.cancelled():
            return
        bug = following.exception()
        if bug is not None:
            self.has_failed = True
            _log.error("the events of task %s broke off", self.task_id, exc_info=bug)
        self.wake()


class Stream:
    """The bytes for one browser, as an asynchronous iterator; close it, whatever happens, when the browser has gone.

    An object, not an asynchronous generator: nothing is yielded inside a timeout, and a heartbeat only passes the
    time, without a word to the watch behind it.
    """

    def __init__(self, feed: Feed, mark: Mark | None) -> None:
        self._feed = feed
        self._after = feed.start_for(mark)
        #: What need not be told again, until the first event that is something else.
        self._told: frozenset[tuple[str, str]] = frozenset() if mark is None else mark.tells
        self._has_begun = False
        #: Whether it has ended, or was closed.
        self.is_closed = False
        self._waiter: asyncio.Future[bool] | None = None

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
                self.close()
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
        events = self._feed.events_after(self._after)
        if events:
            self._after = events[-1].mark.at
        while events and events[0].mark.says in self._told:
            del events[0]
        if events:
            self._told = frozenset()
        return b"".join(event.wire for event in events)


def _let_go(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
