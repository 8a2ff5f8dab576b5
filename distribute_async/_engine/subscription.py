"""One id that is followed, as all who follow it see it: `Track`, and the `Waiter`s that hang on it.

Moved by `poller` alone; read by `watch`, `stream` and `telemetry`. No clock, no socket: nothing happens here by itself.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Generic, Protocol

from distribute_async._engine.kinds import Endpoint
from distribute_async._engine.observer import Trace
from distribute_async._policy.fair_queue import Priority
from distribute_async._policy.task_state import Creation, Wait, Walk
from distribute_async._wire.errors import ClientClosedError, DistributeError
from distribute_async._wire.models import R, Transition
from distribute_async._wire.status import TaskStatus

#: Transitions that a track keeps for slow readers and for `Watch.history`.
HISTORY = 1_000
#: Waiters of one track that are looked through one by one; more are kept in a dict.
FEW_WAITERS = 16


class Waiter(Wait, Protocol):
    """Somebody who waits on a track: suspended there, or away for a moment and still minding it."""

    @property
    def deadline(self) -> float:
        """Loop time at which to wake it whatever happened."""

    @property
    def wants_all(self) -> bool:
        """Whether each transition wakes it; otherwise only the end does."""

    @property
    def is_away(self) -> bool:
        """Whether nobody is suspended here now: then nothing new starts for this waiter alone."""

    def wake(self) -> None:
        """Look at the track and the clock again. Must not raise. One whose deadline passed waits no longer."""

    def refuse(self, error: DistributeError) -> None:
        """This wait alone ends in this error, the track goes on. It waits no longer."""

    def missed(self) -> None:
        """A poll was due while it was away: it says `Poller.attend` when it is back."""


class Entry(list[Any]):
    """[when, order, track] in the schedule's heap; the track is None once it counts no longer. (Compared in C.)"""

    __slots__ = ()


class Exchange(Generic[R]):
    """An HTTP exchange under way for a track, the asyncio task that makes it, and when it is cut for being late."""

    __slots__ = ("cut_at", "fault", "has_connection", "is_cut", "stands_in", "track", "was_probe", "worker")

    def __init__(self, track: Track[R], worker: asyncio.Task[None], *, was_probe: bool, cut_at: float) -> None:
        self.track = track
        self.worker = worker
        #: Whether it is the probe of an outage.
        self.was_probe = was_probe
        #: Whether it asks for a task that nobody made, because what the track wants to send must not be a probe.
        self.stands_in = was_probe and not track.walk.is_read
        #: Loop time at which it is to be cut; first for having no connection, then for having no whole answer.
        self.cut_at = cut_at
        self.has_connection = False
        #: Whether this client cut it; a cancellation without that is somebody else's, and a fault.
        self.is_cut = False
        #: What it comes to where it was cut for being late.
        self.fault: DistributeError | None = None

    @property
    def is_create(self) -> bool:
        """Whether it creates a task, so that to cut it means not to know whether there is one."""
        return not (self.track.walk.is_read or self.stands_in)

    def cut(self, fault: DistributeError | None = None) -> None:
        """End it: nobody waits for it any longer, or it is too late, which is this fault."""
        if not self.is_cut:
            self.is_cut, self.fault = True, fault
        self.cut_at = math.inf
        self.worker.cancel()


class Track(Generic[R]):
    """One id that is followed: its walk, who waits, and what was seen."""

    __slots__ = (
        "__weakref__", "deadline", "digest", "endpoint", "entry", "exchange", "forgotten", "has_led", "history",
        "known_status", "polled_at", "trace", "waiters", "walk",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint[R], walk: Walk[R], trace: Trace | None) -> None:
        self.endpoint = endpoint
        self.walk = walk
        #: What telemetry wants to know; None where there is none.
        self.trace = trace
        #: In the order of coming. Nearly always one, which a list keeps in half the room; but there may be thousands.
        self.waiters: list[Waiter] | dict[Waiter, None] = []
        #: No waiter's deadline is earlier than this.
        self.deadline = math.inf
        self.exchange: Exchange[R] | None = None
        self.polled_at = -math.inf
        #: Whether a poll was made ahead of schedule, for somebody's deadline, since the last regular one.
        self.has_led = False
        #: Of the last good answer's body: an equal one is not decoded again. (64 bits, keyed by the interpreter.)
        self.digest: int | None = None
        self.history: list[Transition[R]] = []
        #: Of a fetch: the status that others knew as it began.
        self.known_status: TaskStatus | None = None
        #: Transitions that are no longer in `history`.
        self.forgotten = 0
        #: This track's place in the schedule.
        self.entry: Entry | None = None

    @property
    def attempts(self) -> int:
        """HTTP exchanges counted so far."""
        return self.walk.attempts

    @property
    def result(self) -> R | None:
        """The newest good answer."""
        return self.walk.result

    @property
    def is_uncertain(self) -> bool:
        """Whether it is a create that may have made a task whose id nobody knows."""
        return isinstance(self.walk, Creation) and self.walk.ending == "uncertain"

    @property
    def seen(self) -> int:
        """Transitions seen so far."""
        return self.forgotten + len(self.history)

    @property
    def is_attended(self) -> bool:
        """Whether somebody is suspended here."""
        return any(not waiter.is_away for waiter in self.waiters)

    @property
    def priority(self) -> Priority:
        """Before whom its next request goes."""
        if self.walk.single:
            return Priority.CALL
        return Priority.FIRST_POLL if self.polled_at == -math.inf else Priority.POLL

    def enter(self, waiter: Waiter) -> None:
        """`waiter` waits here from now on."""
        if isinstance(self.waiters, dict):
            self.waiters[waiter] = None
        elif len(self.waiters) < FEW_WAITERS:
            self.waiters = [*self.waiters, waiter]  # without room to spare: there may be ten thousand such lists
        else:
            self.waiters = {**dict.fromkeys(self.waiters), waiter: None}
        self.deadline = min(self.deadline, waiter.deadline)

    def leave(self, waiter: Waiter) -> None:
        """`waiter` waits here no longer, if it did."""
        if isinstance(self.waiters, dict):
            self.waiters.pop(waiter, None)
        elif waiter in self.waiters:
            self.waiters.remove(waiter)

    def add(self, transition: Transition[R]) -> None:
        """Keep a transition; drop the oldest ones, a hundred at a time, once there are too many."""
        if not self.history:
            self.history = [transition]  # has no room to spare, as what is appended to has: most stay at one for long
            return
        self.history.append(transition)
        if len(self.history) >= HISTORY + 100:
            del self.history[:100]
            self.forgotten += 100

    def since(self, cursor: int) -> list[Transition[R]]:
        """The transitions after the first `cursor` ones, as far as they are kept."""
        return self.history[max(0, cursor - self.forgotten) :]

    def told(self, error: DistributeError, task_id: str, elapsed: float) -> DistributeError:
        """A copy of an error for one wait of so many seconds, which says what was known of the task it gave so."""
        walk = self.walk
        status = walk.status or self.known_status
        return error.with_context(task_id=task_id or None, last_status=status, attempts=walk.attempts, elapsed=elapsed)


def closed() -> ClientClosedError:
    """What ends the waits of a client that is closed."""
    return ClientClosedError("the client is closed; the tasks themselves are untouched")
