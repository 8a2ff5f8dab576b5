"""The order in which queued requests are sent. Pure; used by `poller`.

Weighted fair queueing by stride scheduling (C. A. Waldspurger, W. E. Weihl: "Stride Scheduling", MIT/LCS/TM-528, 1995).
While several classes have requests queued, each gets its share of the turns. A request that joins an idle class waits
for one turn at most. So a call doesn't wait for ten thousand queued polls, and many calls don't stop the polls.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Priority(Enum):
    """A class of requests. The value is its weight: its share of the turns while all classes have requests queued."""

    #: A create or a fetch: a caller waits for this one response.
    CALL = 8
    #: The first poll of a wait: its caller has no status yet.
    FIRST_POLL = 4
    #: All further polls.
    POLL = 1


class FairQueue(Generic[T]):
    """A queue of requests with weighted fair turns between the classes; first in, first out within a class."""

    def __init__(self) -> None:
        self._waiting: dict[Priority, OrderedDict[T, None]] = {priority: OrderedDict() for priority in Priority}
        #: The virtual time of each class: a turn adds 1 / weight to it, and the class with the least is next.
        self._virtual_time = dict.fromkeys(Priority, 0.0)
        #: The virtual time of the class that had the last turn.
        self._turn = 0.0
        #: The classes in the order in which `take_evenly` served them, the latest last.
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
        """Append an item to its class."""
        waiting = self._waiting[priority]
        if not len(self):  # an empty queue starts anew
            self._turn, self._virtual_time = 0.0, dict.fromkeys(Priority, 0.0)
        elif not waiting:  # an idle class doesn't accumulate turns
            self._virtual_time[priority] = max(self._virtual_time[priority], self._turn)
        waiting[item] = None

    def discard(self, item: T) -> None:
        """Remove an item, if it is queued."""
        for waiting in self._waiting.values():
            waiting.pop(item, None)

    def take(self) -> T:
        """Remove and return the next item. Raises `ValueError` if the queue is empty."""
        priority = min((one for one in Priority if self._waiting[one]), key=self._virtual_time.__getitem__)
        self._turn = self._virtual_time[priority]
        self._virtual_time[priority] += 1 / priority.value
        return self._waiting[priority].popitem(last=False)[0]

    def take_evenly(self, fits: Callable[[T], bool]) -> T | None:
        """Remove and return the first item that `fits`, of the class served longest ago; None if no item fits."""
        for priority in self._served:
            item = next(filter(fits, self._waiting[priority]), None)
            if item is not None:
                self._waiting[priority].pop(item)
                self._served.remove(priority)
                self._served.append(priority)
                return item
        return None
