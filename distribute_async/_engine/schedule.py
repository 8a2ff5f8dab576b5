"""When to look at which track again: one heap and one timer of the event loop for all (a timer each is dear).

Used by `poller` alone, which says what there is to look at.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from distribute_async._engine.subscription import Entry, Track

#: The heap is rid of entries that count no longer once they are this many more than an eighth of all.
FEW = 64


class Schedule:
    """The next look at each track of one client. Times are the event loop's, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[Entry] = []
        self._dead = 0
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # uvloop's timers don't tell it where that time has come already

    def put(self, track: Track[Any], when: float) -> None:
        """Look at it then, and no longer when it was planned before; never, where `when` is infinite."""
        if track.entry is not None and track.entry[0] == when:
            return
        self.remove(track)
        if when < math.inf:
            track.entry = Entry((when, next(self._order), track))
            heapq.heappush(self._heap, track.entry)

    def remove(self, track: Track[Any]) -> None:
        """Plan no look at it."""
        if track.entry is None:
            return
        if self._heap[-1] is track.entry:  # as one that was put a moment ago mostly is
            self._heap.pop()
        else:
            track.entry[2] = None
            self._dead += 1
        track.entry = None

    def due(self, now: float) -> Iterator[Track[Any]]:
        """For the look that the timer is set for: the tracks whose time has come, each taken out as it is given."""
        self._timer = None
        while self._heap and self._heap[0][0] <= now:
            track = heapq.heappop(self._heap)[2]
            if track is None:
                self._dead -= 1
            else:
                track.entry = None
                yield track

    def arm(self, look: Callable[[], None], latest: float) -> None:
        """Have `look` called when the first track's time comes, or at `latest` if that is earlier; or a little before.

        It is not kept but in the timer: a poller that nobody knows any longer goes at once.
        """
        self._tidy()
        when = min(latest, self._heap[0][0] if self._heap else math.inf)
        # A timer that comes too early only looks and sets the next one: cheaper than to replace it each time.
        if when < math.inf and (self._timer is None or when < self._timer_at):
            self.disarm()
            self._timer_at = when
            self._timer = self._loop.call_at(when, look)

    def disarm(self) -> None:
        """No look until `arm` is called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tidy(self) -> None:
        if self._dead > FEW + len(self._heap) // 8:
            self._heap = [entry for entry in self._heap if entry[2] is not None]
            heapq.heapify(self._heap)
            self._dead = 0
        while self._heap and self._heap[0][2] is None:
            heapq.heappop(self._heap)
            self._dead -= 1
