"""The attempts of one lifecycle: how many, what failed, when to make the next one and for how long to outlive faults.

Pure; used by `task_state`. `now` is always the event loop's time, in seconds.
"""

from __future__ import annotations

import math
from typing import Protocol

from attrs import frozen

from distribute_async._policy.adaptive import AdaptivePacer, PacingMemory
from distribute_async._policy.faults import Action, Fault
from distribute_async._policy.pacing import Pacing, Steps
from distribute_async._policy.settings import Retry
from distribute_async._wire.errors import DistributeError

#: Failed polls of its own, at least, before `Retry.max_outage` ends a wait: one poll after a long sleep proves nothing.
LEAST_FAILURES = 3


@frozen
class Patience:
    """For how long a wait outlives faults without a good response between them, and how many at least."""

    seconds: float
    least_failures: int


#: Failed polls of a task, and seconds in which nobody waited for it.
Prior = tuple[int, float]
_NOTHING: Prior = 0, 0.0


class Wait(Protocol):
    """One caller's wait for a task."""

    @property
    def since(self) -> float:
        """Loop time at which this wait began."""

    @property
    def prior(self) -> Prior:
        """`Attempts.so_far` as it began: what failed before is not counted against it."""


@frozen(eq=False)
class RequestPolicy:
    """When the lifecycles of one client send their requests, and when they give up."""

    pacing: Pacing
    retry: Retry
    retry_steps: Steps
    learning: PacingMemory

    def patience(self, action: Action, *, had_response: bool) -> Patience:
        """For a fault of a client that has had some response of the service before, or none yet."""
        if action is Action.CONNECT and not had_response:
            return Patience(self.retry.first_contact, self.retry.attempts)
        return Patience(self.retry.max_outage, LEAST_FAILURES)

    def pacer(self, kind: str, now: float) -> AdaptivePacer | None:
        """What paces the polls of a task by what was learned of its kind; None for plain backoff."""
        return None if self.pacing.polls_per_task is None else AdaptivePacer(self.learning, kind, now)

    def backoff(self, failures: int) -> float:
        """Seconds to the next attempt after so many faults in a row."""
        return self.retry_steps.wait(failures - 1, self.pacing.jitter)


class FaultStreak:
    """The faults since the last good response."""

    __slots__ = ("failures", "fault", "malformed", "missing_since", "since")

    #: The newest fault.
    fault: Fault

    def __init__(self, now: float) -> None:
        self.since = now
        self.failures = 0
        #: Malformed responses in a row.
        self.malformed = 0
        #: Since when a 404 has been the only response.
        self.missing_since: float | None = None

    def add(self, fault: Fault, now: float) -> None:
        """One more fault."""
        action = fault.rule.action
        self.fault = fault
        self.failures += 1
        self.malformed = self.malformed + 1 if action is Action.MALFORMED else 0
        if action is not Action.GRACE:
            self.missing_since = None
        elif self.missing_since is None:
            self.missing_since = now

    def shift(self, seconds: float) -> None:
        """Leave so much time out: nobody waited, so nothing was requested."""
        self.since += seconds
        if self.missing_since is not None:
            self.missing_since += seconds


class Attempts:
    """The HTTP exchanges of one lifecycle: how many, what failed, and for how long nobody waited for them."""

    __slots__ = ("count", "failures", "idle", "left_at", "streak")

    def __init__(self) -> None:
        self.count = 0
        #: Failed ones so far, also those before the last good response.
        self.failures = 0
        #: Loop time since which nobody waits; None while somebody does.
        self.left_at: float | None = None
        #: Seconds in all in which nobody waited.
        self.idle = 0.0
        #: None while the newest response is a good one.
        self.streak: FaultStreak | None = None

    @property
    def last_error(self) -> DistributeError | None:
        """The newest fault since the last good response."""
        return None if self.streak is None else self.streak.fault.error

    def so_far(self, now: float) -> Prior:
        """What a wait that begins now has to know of the time before it."""
        idle = self.idle if self.left_at is None else self.idle + now - self.left_at
        return (self.failures, idle) if self.failures or idle else _NOTHING  # usually one tuple for all

    def suspend(self, now: float) -> None:
        """Nobody waits any longer."""
        self.left_at = now

    def resume(self, now: float) -> None:
        """Somebody waits again after nobody did. Earlier faults still count; the time in between does not."""
        if self.left_at is not None:
            self.idle += now - self.left_at
            if self.streak is not None:
                self.streak.shift(now - self.left_at)
        self.left_at = None

    def succeeded(self) -> None:
        """A good response."""
        self.count += 1
        self.streak = None

    def failed(self, fault: Fault, now: float) -> FaultStreak:
        """A fault; returns all those since the last good response."""
        self.count += 1
        self.failures += 1
        self.streak = self.streak or FaultStreak(now)
        self.streak.add(fault, now)
        return self.streak

    def patience_ends(self, wait: Wait, patience: Patience, more_failures: int) -> float:
        """When a wait has outlived faults for long enough; infinite where too few happened, after that many more.

        Faults from before the wait began are not counted against it.
        """
        if self.streak is None:
            return math.inf
        failures_before, idle_before = wait.prior
        seen = min(self.streak.failures, self.failures - failures_before)
        if seen + more_failures < patience.least_failures:
            return math.inf
        return max(self.streak.since, wait.since + self.idle - idle_before) + patience.seconds
