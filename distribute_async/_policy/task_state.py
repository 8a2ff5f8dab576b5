"""What is known of a task, a fetch or a submission, and when to send its next request. Pure: no clock, no socket.

Three kinds of `Lifecycle`: `TaskState` follows a task to its end, `FetchState` wants one good response,
`SubmissionState` one new task. Each has its `Attempts`, which count faults and tell when a wait has outlived enough of
them. `now` is always the event loop's time, in seconds. Driven by `_engine/poller`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from attrs import frozen

from distribute_async._policy.adaptive import AdaptivePacer, PacingMemory
from distribute_async._policy.faults import Action, Fault
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

#: Malformed responses in a row that end a wait: one may be a proxy's mistake, three are an API that changed.
MALFORMED_LIMIT = 3
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


W = TypeVar("W", bound=Wait)


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


class Lifecycle:
    """What requests are sent for. Once `is_over`, `error` says why it failed, and nothing changes any more."""

    __slots__ = ("attempts", "error", "is_over", "next_request", "policy")

    #: Whether sending a request twice changes nothing at the service. One that isn't is never a probe, and is not
    #: hurried for a deadline: what is sent at the last moment ends in not knowing what became of it.
    is_idempotent: ClassVar[bool] = True
    #: Whether the caller waits for this one response, and not for what a task comes to.
    is_call: ClassVar[bool] = True

    #: What tells it from others that fail.
    key: Hashable
    #: None where there is no task yet.
    task_id: str | None
    #: The newest status known.
    status: TaskStatus | None
    #: What the newest good response brought; None before the first.
    result: Any

    def __init__(self, policy: RequestPolicy, now: float) -> None:
        self.policy = policy
        self.attempts = Attempts()
        #: Loop time of the next request.
        self.next_request = now
        self.is_over = False
        self.error: DistributeError | None = None

    def resume(self, now: float) -> None:
        """Somebody waits again after nobody did."""
        self.attempts.resume(now)
        if not self.is_over:
            self.next_request = max(self.next_request, now)

    def request(self) -> bytes:
        """The body to send."""
        raise NotImplementedError

    def before_sending(self) -> bool:
        """A request is about to leave: whether it is still wanted."""
        return not self.is_over

    def action_for(self, fault: Fault) -> Action:
        """What to do about a fault."""
        return fault.rule.action

    def on_good(self, result: Any, now: float) -> Transition[Any] | None:
        """Take a good response; returns the transition that it shows, if any."""
        raise NotImplementedError

    def plan_next(self, result: Any, now: float) -> None:
        """Plan the next request after this good response. Draws the random part: may raise."""

    def on_fault(self, fault: Fault, now: float) -> None:
        """Take a fault: it ends the lifecycle where no further attempt can help; else the next request is planned.

        Here after `Retry.attempts` faults, or a 404.
        """
        action = self.action_for(fault)
        streak = self.attempts.failed(fault, now)
        self._retry(action, now, is_last=action is Action.GRACE or streak.failures >= self.policy.retry.attempts)

    def _retry(self, action: Action, now: float, *, is_last: bool) -> None:
        """Plan another attempt after a fault, unless this was the last one or no other can help."""
        streak, retry = self.attempts.streak, self.policy.retry
        assert streak is not None  # noqa: S101 - there was a fault
        is_final = action is Action.END or streak.malformed >= MALFORMED_LIMIT
        if is_last or is_final or streak.fault.pause > retry.max_retry_after:
            self.end(streak.fault.error)
        else:
            self.next_request = now + self.policy.backoff(streak.failures)

    def end(self, error: DistributeError) -> None:
        """End it in this error."""
        self.is_over = True
        self.error = self.refusal(error)

    def refusal(self, error: DistributeError) -> DistributeError:
        """What ends a wait that the client gives up for this reason."""
        return error

    def timed_out(self, timeout: float) -> DistributeError:
        """What ends a wait whose `timeout` has passed."""
        return WaitTimeoutError(
            f"no end within {timeout:g} s; the task goes on: to go on waiting, wait for the same id again",
            self.attempts.last_error,
        )


class _StatusPolls(Lifecycle, Generic[R]):
    """What is asked about one task."""

    __slots__ = ("result", "started", "task_id")

    def __init__(self, task_id: str, policy: RequestPolicy, now: float) -> None:
        super().__init__(policy, now)
        self.task_id: str = task_id
        self.started = now
        self.result: R | None = None

    @property
    def key(self) -> Hashable:  # type: ignore[override]
        """The id: it is one id whatever the case of its letters."""
        return self.task_id.lower()

    def request(self) -> bytes:
        """The body to send."""
        return f'{{"id": "{self.task_id}"}}'.encode()  # an id has no character that JSON would escape

    def _transition(self, previous: TaskStatus | None, result: R, now: float) -> Transition[R]:
        return Transition(
            task_id=self.task_id,
            previous=previous,
            status=result.status,
            result=result,
            elapsed=now - self.started,
            polls=self.attempts.count,
        )


class TaskState(_StatusPolls[R]):
    """A task that is followed to its end. `status` and `result` are the newest good response's."""

    __slots__ = ("pacer", "polls_since_change", "status")

    is_call: ClassVar[bool] = False

    def __init__(self, task_id: str, policy: RequestPolicy, now: float, pacer: AdaptivePacer | None = None) -> None:
        super().__init__(task_id, policy, now)
        self.status: TaskStatus | None = None
        self.polls_since_change = 0
        self.pacer = pacer

    def on_good(self, result: R, now: float) -> Transition[R] | None:
        """Take a good response; returns the transition that it shows, if any."""
        self.attempts.succeeded()
        self.result = result
        previous, self.status = self.status, result.status
        self.is_over = result.is_over
        if result.status == previous:
            self.polls_since_change += 1
            return None
        self.polls_since_change = 0
        return self._transition(previous, result, now)

    def plan_next(self, result: R, now: float) -> None:
        """Plan the next poll, and learn from this one."""
        if self.pacer is not None:
            self.next_request = now + self.pacer.interval(result, self.polls_since_change, now)
        elif not self.is_over:
            self.next_request = now + self.policy.pacing.interval(self.polls_since_change)

    def on_fault(self, fault: Fault, now: float) -> None:
        """Back off, until a limit that holds for all waits on the task is reached."""
        streak = self.attempts.failed(fault, now)
        grace_ends = math.inf
        if streak.missing_since is not None:
            grace_ends = streak.missing_since + self.policy.retry.not_found_grace
        self._retry(fault.rule.action, now, is_last=now >= grace_ends)
        # A limit is met on time, not at the first poll after it.
        self.next_request = min(self.next_request, grace_ends)

    def out_of_patience(self, waits: Iterable[W], patience: Patience, now: float) -> list[W]:
        """Which of the waits on this task are over for its faults. The next poll comes in time for the others' ends."""
        over = [wait for wait in waits if self.attempts.patience_ends(wait, patience, 0) <= now]
        others = (wait for wait in waits if wait not in over)
        ends = min((self.attempts.patience_ends(wait, patience, 1) for wait in others), default=math.inf)
        self.next_request = min(self.next_request, max(now, ends))
        return over


class FetchState(_StatusPolls[R]):
    """One good response is wanted, whatever the status of the task. `known`: the status that others know already."""

    __slots__ = ("_known",)

    def __init__(self, task_id: str, policy: RequestPolicy, now: float, known: TaskStatus | None = None) -> None:
        super().__init__(task_id, policy, now)
        self._known = known

    @property
    def status(self) -> TaskStatus | None:  # type: ignore[override]
        """The response's, else what others knew of the task as the fetch began."""
        return self._known if self.result is None else self.result.status

    def on_good(self, result: R, now: float) -> Transition[R]:
        """It is over with the first good response."""
        self.attempts.succeeded()
        self.result = result
        self.is_over = True
        return self._transition(None, result, now)


class SubmissionState(Lifecycle):
    """One task is to be created. Its request is never sent again where it may have arrived. `result` is the new id."""

    __slots__ = ("_body", "_may_exist", "key", "result")

    is_idempotent: ClassVar[bool] = False
    task_id: ClassVar[None] = None  # type: ignore[misc]
    status: ClassVar[None] = None  # type: ignore[misc]

    def __init__(self, body: bytes, policy: RequestPolicy, now: float) -> None:
        super().__init__(policy, now)
        self.result: str | None = None
        self.key: Hashable = object()  # two submissions are never the same one
        self._body = body
        #: A request has left, and no response says that it had no effect.
        self._may_exist = False

    def request(self) -> bytes:
        """The body to send."""
        return self._body

    def before_sending(self) -> bool:
        """Whether the request is still wanted. From now on the service may have received it."""
        self._may_exist = self._may_exist or not self.is_over
        return not self.is_over

    def action_for(self, fault: Fault) -> Action:
        """The fault table's where nothing was sent or the request was turned away; else it ends."""
        return fault.rule.action if fault.was_turned_away or not self._may_exist else Action.END

    def on_good(self, result: Created, now: float) -> None:  # noqa: ARG002 - as for the others
        """The task exists, unless nobody could poll for such an id."""
        self.attempts.succeeded()
        if is_task_id(result.id):
            self.result = result.id
            self.is_over = True
        else:
            self.end(APIResponseValidationError("the id in the answer is no version 4 UUID"))

    def on_fault(self, fault: Fault, now: float) -> None:
        """Try again where the request had no effect."""
        action = self.action_for(fault)
        self._may_exist = self._may_exist and not fault.surely_did_nothing
        streak = self.attempts.failed(fault, now)
        self._retry(action, now, is_last=action is Action.GRACE or streak.failures >= self.policy.retry.attempts)

    @property
    def ending(self) -> str:
        """How it ended: "created", "failed" (surely without a task), or "uncertain"."""
        if self.result is not None:
            return "created"
        return "uncertain" if self._may_exist else "failed"

    def refusal(self, error: DistributeError) -> DistributeError:
        """The reason, unless a task may have been created."""
        return SubmitUncertainError(error) if self._may_exist else error

    def timed_out(self, timeout: float) -> DistributeError:
        """What ends a submission whose `timeout` has passed."""
        if self._may_exist:
            return SubmitUncertainError()
        return WaitTimeoutError(
            f"no task was created within {timeout:g} s: it may be submitted again", self.attempts.last_error
        )
