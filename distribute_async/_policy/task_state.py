"""What is known of a task, a fetch or a submission, and when to send its next request. Pure: no clock, no socket.

Three kinds of `Lifecycle`: `TaskState` follows a task to its end, `FetchState` wants one good response,
`SubmissionState` one new task. `now` is always the event loop's time, in seconds. Driven by `_engine/poller`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any, ClassVar, Generic, TypeVar

from distribute_async._policy.adaptive import AdaptivePacer
from distribute_async._policy.attempts import Attempts, Patience, RequestPolicy, Wait
from distribute_async._policy.faults import Action, Fault
from distribute_async._wire.errors import (
    APIResponseValidationError,
    DistributeError,
    SubmitUncertainError,
    WaitTimeoutError,
)
from distribute_async._wire.ids import is_task_id
from distribute_async._wire.models import Created, R, Transition
from distribute_async._wire.status import TaskStatus

W = TypeVar("W", bound=Wait)

#: Malformed responses in a row that end a wait: one may be a proxy's mistake, three are an API that changed.
MALFORMED_LIMIT = 3


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

    def out_of_patience(self, waits: Iterable[W], patience: Patience, now: float) -> list[W]:  # noqa: ARG002 - see `TaskState`
        """Which of the waits are over for the faults that they met. None here: `Retry.attempts` is the limit."""
        return []

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
            self.end(APIResponseValidationError("the id in the response is no version 4 UUID"))

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
