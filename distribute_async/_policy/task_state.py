"""One task's life as seen from here: (answer or fault, now) → transition?, end?, next poll. No clock, no socket.

Driven by `poller`; `now` is always the event loop's time, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from attrs import frozen

from distribute_async._policy.adaptive import AdaptivePacer, PacingMemory
from distribute_async._policy.faults import Action, Rule, creation_rule_for, has_surely_done_nothing, pause_of, rule_for
from distribute_async._policy.pacing import Pacing, Steps
from distribute_async._policy.settings import Retry
from distribute_async._wire.errors import (
    APIResponseValidationError,
    DistributeError,
    SubmitUncertainError,
    WaitTimeoutError,
)
from distribute_async._wire.ids import is_task_id
from distribute_async._wire.models import Created, R, Transition
from distribute_async._wire.status import TaskStatus

#: Broken answers in a row that end a walk: one may be a proxy's bad moment, three are an API that changed.
STRIKES = 3
#: Failed polls of its own, at least, before `Retry.max_outage` ends a wait: one look after a long sleep proves nothing.
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
    """Somebody who waits for a task."""

    @property
    def since(self) -> float:
        """Loop time at which this wait began."""

    @property
    def prior(self) -> Prior:
        """`Walk.so_far` as it began: what others met is none of its own."""


W = TypeVar("W", bound=Wait)


@frozen(eq=False)
class Pace:
    """How the walks of one client space their polls."""

    pacing: Pacing
    retry: Retry
    retry_steps: Steps
    learning: PacingMemory

    def patience(self, rule: Rule, *, had_response: bool) -> Patience:
        """For a fault of a client that has had some response of the service before, or none yet."""
        if rule.action is Action.CONNECT and not had_response:
            return Patience(self.retry.first_contact, self.retry.attempts)
        return Patience(self.retry.max_outage, LEAST_FAILURES)

    def course(self, kind: str, now: float) -> AdaptivePacer | None:
        """What paces the polls of a task by what was learned of its kind; None for plain backoff."""
        return None if self.pacing.polls_per_task is None else AdaptivePacer(self.learning, kind, now)


class Trouble:
    """What went wrong since the last good response."""

    __slots__ = ("failures", "fault", "missing_since", "since", "strikes")

    #: The newest fault.
    fault: DistributeError

    def __init__(self, now: float) -> None:
        self.since = now
        self.failures = 0
        #: Broken answers in a row.
        self.strikes = 0
        #: Since when a 404 has been the only answer.
        self.missing_since: float | None = None

    def add(self, fault: DistributeError, action: Action, now: float) -> None:
        """One more fault."""
        self.fault = fault
        self.failures += 1
        self.strikes = self.strikes + 1 if action is Action.STRIKE else 0
        if action is not Action.GRACE:
            self.missing_since = None
        elif self.missing_since is None:
            self.missing_since = now

    def shift(self, seconds: float) -> None:
        """Let so much time not count: nobody was there to ask."""
        self.since += seconds
        if self.missing_since is not None:
            self.missing_since += seconds


class Walk(Generic[R]):
    """What is known of one task, and when to ask for it next.

    `status` and `result` are the newest good answer's. Once `is_over`, either `result` is the task's last word or
    `error` says why following it ended; nothing changes any more. With `single` the walk is that of a fetch: the
    first good answer ends it, and `Retry.attempts` failed ones do.
    """

    __slots__ = (
        "attempts", "course", "error", "failures", "idle", "is_over", "left_at", "next_poll", "pace",
        "polls_since_change", "result", "single", "started", "status", "task_id", "trouble",
    )  # fmt: skip

    #: Whether to ask changes nothing. What creates a task isn't hurried, nor a probe where anything else can be one.
    is_read = True

    def __init__(
        self, task_id: str, pace: Pace, now: float, *, single: bool = False, course: AdaptivePacer | None = None
    ) -> None:
        self.task_id = task_id
        self.pace = pace
        self.single = single
        self.started = now
        self.next_poll = now
        self.attempts = 0
        self.status: TaskStatus | None = None
        self.result: R | None = None
        self.is_over = False
        self.error: DistributeError | None = None
        self.polls_since_change = 0
        #: Failed polls so far, also those before the last good response.
        self.failures = 0
        #: Loop time since which nobody waits; None where somebody does.
        self.left_at: float | None = None
        #: Seconds in all in which nobody waited.
        self.idle = 0.0
        #: None while the newest answer is a good one.
        self.trouble: Trouble | None = None
        self.course = course

    def so_far(self, now: float) -> Prior:
        """What a wait that begins now is to know of the time before it."""
        idle = self.idle if self.left_at is None else self.idle + now - self.left_at
        return (self.failures, idle) if self.failures or idle else _NOTHING  # mostly one for all

    def leave(self, now: float) -> None:
        """Nobody waits any longer."""
        self.left_at = now

    def resume(self, now: float) -> None:
        """Somebody waits again after nobody did. What failed before still counts; the time in between doesn't."""
        if self.left_at is not None:
            self.idle += now - self.left_at
            if self.trouble is not None:
                self.trouble.shift(now - self.left_at)
        self.left_at = None
        if not self.is_over:
            self.next_poll = max(self.next_poll, now)

    def answered(self, result: R, now: float) -> Transition[R] | None:
        """A good response; gives the transition that it shows, if any. When to ask next is for `pace_after` to say."""
        self.attempts += 1
        self.trouble = None
        self.result = result
        previous, self.status = self.status, result.status
        is_change = result.status != previous
        self.polls_since_change = 0 if is_change else self.polls_since_change + 1
        self.is_over = self.single or result.is_over
        if not is_change:
            return None
        return Transition(
            task_id=self.task_id,
            previous=previous,
            status=result.status,
            result=result,
            elapsed=now - self.started,
            polls=self.attempts,
        )

    def pace_after(self, result: R, now: float) -> None:
        """Plan the next poll after this good response, and learn from it. Draws the random part: may raise."""
        if self.course is not None:
            self.next_poll = now + self.course.interval(result, self.polls_since_change, now)
        elif not self.is_over:
            self.next_poll = now + self.pace.pacing.interval(self.polls_since_change)

    def failed(self, error: DistributeError, rule: Rule, now: float) -> None:
        """A fault: it ends the walk where no further attempt can help, and is followed by one otherwise."""
        self.attempts += 1
        self.failures += 1
        self.trouble = trouble = self.trouble or Trouble(now)
        trouble.add(error, rule.action, now)
        if self._is_hopeless(trouble, rule, now):
            self.end(error)
            return
        self.next_poll = now + self.pace.retry_steps.wait(trouble.failures - 1, self.pace.pacing.jitter)
        if trouble.missing_since is not None:  # a limit is met on time, not at the first poll after it
            self.next_poll = min(self.next_poll, trouble.missing_since + self.pace.retry.not_found_grace)

    def _is_hopeless(self, trouble: Trouble, rule: Rule, now: float) -> bool:
        retry = self.pace.retry
        if rule.action is Action.END or trouble.strikes >= STRIKES:
            return True
        if pause_of(trouble.fault) > retry.max_retry_after:
            return True
        if self.single:
            return rule.action is Action.GRACE or trouble.failures >= retry.attempts
        return trouble.missing_since is not None and now >= trouble.missing_since + retry.not_found_grace

    def given_up(self, waits: Iterable[W], patience: Patience, now: float) -> list[W]:
        """Which of the waits on this task are over for its faults. The next poll comes in time for the others' ends."""
        over = [wait for wait in waits if self._patience_ends(wait, patience, 0) <= now]
        # A limit is met on time, not at the first poll after it.
        ends = min((self._patience_ends(wait, patience, 1) for wait in waits if wait not in over), default=math.inf)
        self.next_poll = min(self.next_poll, max(now, ends))
        return over

    def _patience_ends(self, wait: Wait, patience: Patience, may_fail: int) -> float:
        """When a wait has outlived faults for long enough; infinite where it hasn't seen enough, after that many more.

        What failed before it began is none of its faults.
        """
        if self.trouble is None or self.single:
            return math.inf
        failures_before, idle_before = wait.prior
        seen = min(self.trouble.failures, self.failures - failures_before)
        if seen + may_fail < patience.least_failures:
            return math.inf
        return max(self.trouble.since, wait.since + self.idle - idle_before) + patience.seconds

    def end(self, error: DistributeError) -> None:
        """Following the task ends in this error."""
        self.is_over = True
        self.error = error

    # What a walk is to its poller; those that create a task have their own.

    def request(self) -> bytes:
        """The body to send."""
        return f'{{"id": "{self.task_id}"}}'.encode()  # an id holds nothing that JSON would escape

    def may_send(self) -> bool:
        """A request is about to leave: whether it is still wanted."""
        return not self.is_over

    def rule_for(self, error: DistributeError) -> Rule:
        """What a fault means."""
        return rule_for(error)

    def refusal(self, error: DistributeError) -> DistributeError:
        """What ends a wait that the client gives up for this reason."""
        return error

    def timed_out(self, timeout: float) -> DistributeError:
        """What ends a wait whose `timeout` has passed."""
        return WaitTimeoutError(
            f"no end within {timeout:g} s; the task goes on: to go on waiting, wait for the same id again",
            None if self.trouble is None else self.trouble.fault,
        )


class Creation(Walk[Created]):
    """The creation of a task: a walk of one good answer. Its request is never sent again where it may have arrived."""

    __slots__ = ("_body", "_may_exist")

    is_read = False  # what is sent at the last moment, or to a service that is down, ends in not knowing

    def __init__(self, body: bytes, pace: Pace, now: float) -> None:
        super().__init__("", pace, now, single=True)
        self._body = body
        #: A request has left, and no answer says that it did nothing.
        self._may_exist = False

    def request(self) -> bytes:
        """The body to send."""
        return self._body

    def may_send(self) -> bool:
        """A request is about to leave: whether it is still wanted. From then on the service may have got it."""
        self._may_exist = self._may_exist or not self.is_over
        return not self.is_over

    def rule_for(self, error: DistributeError) -> Rule:
        """What a fault means."""
        return creation_rule_for(error, was_sent=self._may_exist)

    def answered(self, result: Created, now: float) -> Transition[Created] | None:
        """A good answer, unless nobody could ask for such an id."""
        if is_task_id(result.id):
            return super().answered(result, now)
        self.attempts += 1
        self.end(APIResponseValidationError("the id in the answer is no version 4 UUID"))
        return None

    def failed(self, error: DistributeError, rule: Rule, now: float) -> None:
        """A fault."""
        self._may_exist = self._may_exist and not has_surely_done_nothing(error)
        super().failed(error, rule, now)

    def end(self, error: DistributeError) -> None:
        """It ends in this error, or in not knowing."""
        super().end(self.refusal(error))

    @property
    def ending(self) -> str:
        """How it ended: "created", "failed" (surely without a task), or "uncertain"."""
        if self.is_over and self.error is None:
            return "created"
        return "uncertain" if self._may_exist else "failed"

    def refusal(self, error: DistributeError) -> DistributeError:
        """What ends a wait that the client gives up for this reason."""
        return SubmitUncertainError(error) if self._may_exist else error

    def timed_out(self, timeout: float) -> DistributeError:
        """What ends a wait whose `timeout` has passed."""
        if self._may_exist:
            return SubmitUncertainError()
        fault = None if self.trouble is None else self.trouble.fault
        return WaitTimeoutError(f"no task was created within {timeout:g} s: it may be submitted again", fault)
