"""When to look at which subscription again: one heap and one timer of the event loop for all (a timer each is dear).

Used by `poller` alone.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

#: The heap is rid of entries that count no longer once they are this many more than an eighth of all.
FEW = 64


class Entry(list[Any]):
    """[when, order, item] in the heap; the item is None once the entry no longer counts. (Lists are compared in C.)"""

    __slots__ = ()


class Scheduled(Protocol):
    """What has a place in a schedule."""

    entry: Entry | None


S = TypeVar("S", bound=Scheduled)


class Schedule(Generic[S]):
    """The next event of each subscription of one client. Times are the event loop's, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[Entry] = []
        self._dead = 0
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # uvloop's timers don't tell it where that time has come already

    def put(self, item: S, when: float) -> None:
        """Plan its next event, in the place of the one planned before; none, where `when` is infinite."""
        if item.entry is not None and item.entry[0] == when:
            return
        self.remove(item)
        if when < math.inf:
            item.entry = Entry((when, next(self._order), item))
            heapq.heappush(self._heap, item.entry)

    def remove(self, item: S) -> None:
        """Plan no event for it."""
        if item.entry is None:
            return
        if self._heap[-1] is item.entry:  # as one that was put a moment ago usually is
            self._heap.pop()
        else:
            item.entry[2] = None
            self._dead += 1
        item.entry = None

    def due(self, now: float) -> Iterator[S]:
        """For the callback of the timer: the items whose time has come, each taken out as it is yielded."""
        self._timer = None
        while self._heap and self._heap[0][0] <= now:
            item = heapq.heappop(self._heap)[2]
            if item is None:
                self._dead -= 1
            else:
                item.entry = None
                yield item

    def arm(self, wake_up: Callable[[], None], latest: float) -> None:
        """Have `wake_up` called when the first item's time comes, or at `latest` if that is earlier; perhaps too early.

        Only the timer keeps it, so that a poller that nobody refers to any longer is freed at once.
        """
        self._tidy()
        when = min(latest, self._heap[0][0] if self._heap else math.inf)
        # A timer that rings too early sets the next one: cheaper than to replace it each time.
        if when < math.inf and (self._timer is None or when < self._timer_at):
            self.disarm()
            self._timer_at = when
            self._timer = self._loop.call_at(when, wake_up)

    def disarm(self) -> None:
        """No call until `arm` is called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def diagnostics(self) -> dict[str, int]:
        """How many events are planned, and whether the timer is set."""
        planned = sum(entry[2] is not None for entry in self._heap)
        return {"planned": planned, "timer": int(self._timer is not None)}

    def _tidy(self) -> None:
        if self._dead > FEW + len(self._heap) // 8:
            self._heap = [entry for entry in self._heap if entry[2] is not None]
            heapq.heapify(self._heap)
            self._dead = 0
        while self._heap and self._heap[0][2] is None:
            heapq.heappop(self._heap)
            self._dead -= 1
