"""Who goes next when requests must wait for their turn. Pure; used by `poller`.

Weighted fair queueing by stride scheduling (C. A. Waldspurger, W. E. Weihl: "Stride Scheduling", MIT/LCS/TM-528, 1995):
while several classes wait, each gets its share of the turns, and one that comes to an idle class waits for one turn
at most. So a call that somebody waits for doesn't stand behind ten thousand polls, and no flood of calls stops them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Priority(Enum):
    """A class of requests; its value is its share of the turns while all of them wait."""

    #: A create or a fetch: somebody waits for this one response.
    CALL = 8
    #: The first poll of a wait: its caller knows nothing yet.
    FIRST_POLL = 4
    #: All further polls.
    POLL = 1


class FairQueue(Generic[T]):
    """What waits for its turn: first come, first served within a class."""

    def __init__(self) -> None:
        self._waiting: dict[Priority, OrderedDict[T, None]] = {priority: OrderedDict() for priority in Priority}
        #: What each class has used up: a turn costs the more the smaller its share is.
        self._used = dict.fromkeys(Priority, 0.0)
        self._turn = 0.0
        #: The classes, the one that `take_evenly` served last at the end.
        self._served = list(Priority)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __contains__(self, item: T) -> bool:
        for waiting in self._waiting.values():  # noqa: SIM110 - a generator would cost more than the look-ups
            if item in waiting:
                return True
        return False

    def __iter__(self) -> Iterator[T]:
        for waiting in self._waiting.values():
            yield from waiting

    def add(self, item: T, priority: Priority) -> None:
        """Put it at the end of its class."""
        waiting = self._waiting[priority]
        if not len(self):  # where nobody waits nobody owes anything
            self._turn, self._used = 0.0, dict.fromkeys(Priority, 0.0)
        elif not waiting:  # an idle class saves nothing up
            self._used[priority] = max(self._used[priority], self._turn)
        waiting[item] = None

    def discard(self, item: T) -> None:
        """It waits no longer, if it did."""
        for waiting in self._waiting.values():
            waiting.pop(item, None)

    def take(self) -> T:
        """Whose turn it is, taken out. Raises `ValueError` where nothing waits."""
        priority = self._class()
        self._turn = self._used[priority]
        self._used[priority] += 1 / priority.value
        return self._waiting[priority].popitem(last=False)[0]

    def take_evenly(self, fits: Callable[[T], bool]) -> T | None:
        """The first that fits, taken out of the class that was served longest ago; None where nothing fits."""
        for priority in self._served:
            item = next(filter(fits, self._waiting[priority]), None)
            if item is not None:
                self._waiting[priority].pop(item)
                self._served.remove(priority)
                self._served.append(priority)
                return item
        return None

    def _class(self) -> Priority:
        return min((priority for priority in Priority if self._waiting[priority]), key=self._used.__getitem__)
