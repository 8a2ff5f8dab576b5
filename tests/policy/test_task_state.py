"""What is known of a task, a fetch and a submission, without a clock and without a socket."""

from __future__ import annotations

import itertools

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    ChatResult,
    ClientClosedError,
    InternalServerError,
    NotFoundError,
    Pacing,
    RateLimitError,
    Retry,
    SubmitUncertainError,
    TaskStatus,
    Transition,
    WaitTimeoutError,
)
from distribute_async._policy.adaptive import PacingMemory
from distribute_async._policy.attempts import Patience, RequestPolicy
from distribute_async._policy.faults import Fault, rule_for
from distribute_async._policy.pacing import Steps, retry_steps
from distribute_async._policy.task_state import FetchState, Lifecycle, SubmissionState, TaskState
from distribute_async._wire.errors import DistributeError
from distribute_async._wire.models import Created


def half(span: float) -> float:
    return span / 2


def new_policy(retry: Retry | None = None) -> RequestPolicy:
    retry, pacing = retry or Retry(), Pacing(jitter=half)
    return RequestPolicy(pacing, retry, retry_steps(retry), PacingMemory(pacing))


def new_state(retry: Retry | None = None) -> TaskState[ChatResult]:
    return TaskState("task", new_policy(retry), 0.0)


def new_fetch(retry: Retry | None = None) -> FetchState[ChatResult]:
    return FetchState("task", new_policy(retry), 0.0)


def answer(status: str, *, finished: float | None = None) -> ChatResult:
    return ChatResult(status=TaskStatus(status), created=1, model="m", finished=finished)


@frozen
class Reader:
    """Somebody who waits for a task, by default from its beginning."""

    since: float = 0.0
    prior: tuple[int, float] = (0, 0.0)


def fail(state: Lifecycle, error: DistributeError, now: float) -> None:
    state.on_fault(Fault.of(error), now)


def fail_for(state: TaskState[ChatResult], waits: list[Reader], error: DistributeError, now: float) -> list[Reader]:
    """A fault, for those who wait; gives those whose wait it ends."""
    fail(state, error, now)
    return state.out_of_patience(waits, state.policy.patience(rule_for(error).action, had_response=True), now)


def answered(state: Lifecycle, result: ChatResult, now: float) -> Transition[ChatResult] | None:
    transition = state.on_good(result, now)
    state.plan_next(result, now)
    return transition


@pytest.mark.parametrize(("finished", "over"), [(None, False), (5.0, True)])
def test_an_unknown_status_is_over_once_finished_is_set(finished: float | None, over: bool) -> None:
    """A status that the library doesn't know ends the state exactly where the answer says `finished`."""
    state = new_state()
    answered(state, answer("ARCHIVED", finished=finished), 0.0)
    assert state.is_over is over
    assert state.result is not None
    assert state.result.is_failed is over


def test_the_pace_starts_afresh_at_each_change() -> None:
    """Intervals grow while nothing changes and are the first again after a change."""
    state = new_state()
    intervals = []
    now = 0.0
    for status in ["QUEUED", "QUEUED", "QUEUED", "PROCESSING", "PROCESSING"]:
        answered(state, answer(status), now)
        intervals.append(state.next_request - now)
        now = state.next_request
    first, second, third = 0.75 * 0.5, 0.75 * 0.5 * 1.3, 0.75 * 0.5 * 1.3**2
    assert intervals == pytest.approx([first, second, third, first, second])


def test_no_interval_is_below_the_floor() -> None:
    """However small the span, polls are at least `floor` seconds apart."""
    assert Pacing(initial=0.01, factor=1, max=0.01, floor=0.2).interval(0) == 0.2


def test_faults_without_an_end_end_a_wait_on_time() -> None:
    """Faults go on until exactly `max_outage` after the first one, and a poll is planned for that moment."""
    state = new_state(retry=Retry(max_outage=20))
    now, polls = 3.0, 1
    while not fail_for(state, [Reader()], APIStatusError(500 + polls), now):
        polls += 1
        now = state.next_request
    assert now == 3.0 + 20
    assert polls > 3
    assert not state.is_over


def test_three_failures_at_least_end_a_wait() -> None:
    """One or two failures never end a wait, however long it slept between them."""
    state = new_state(retry=Retry(max_outage=1))
    reader = Reader()
    assert fail_for(state, [reader], APIConnectionError("x"), 0.0) == []
    assert fail_for(state, [reader], APIConnectionError("x"), 1000.0) == []
    assert fail_for(state, [reader], APIConnectionError("x"), state.next_request) == [reader]


def test_a_wait_is_ended_by_faults_of_its_own_only() -> None:
    """Whoever joins while polls fail has `max_outage` from then on, and three failures that it saw itself."""
    state = new_state(retry=Retry(max_outage=10))
    first = Reader()
    for now in (0.0, 3.0, 6.0, 9.5):
        assert fail_for(state, [first], APIStatusError(500), now) == []
    late = Reader(since=9.9, prior=state.attempts.so_far(now))
    ended = {now: fail_for(state, [late], APIStatusError(500), now) for now in (10.0, 15.0, 19.8, 19.9)}
    assert ended == {10.0: [], 15.0: [], 19.8: [], 19.9: [late]}
    seldom = Reader(since=20.0, prior=state.attempts.so_far(now))
    ended = {now: fail_for(state, [seldom], APIStatusError(500), now) for now in (21.0, 100.0, 101.0)}
    assert ended == {21.0: [], 100.0: [], 101.0: [seldom]}
    assert fail_for(state, [first, Reader(101.0, state.attempts.so_far(101.0))], APIStatusError(500), 102.0) == [first]


def test_a_poll_is_planned_for_each_end_of_a_wait() -> None:
    """Of several waits whose ends differ, the next poll comes in time for the earliest."""
    state = new_state(retry=Retry(max_outage=10, initial=30.0))
    waits = [Reader(3.0), Reader(1.0), Reader(2.0, prior=(-9, 0.0))]
    fail_for(state, waits, APIStatusError(500), 0.5)
    assert state.next_request == 0.5 + 22.5
    fail_for(state, waits, APIStatusError(500), 1.0)
    assert state.next_request == 11.0


def test_a_good_answer_begins_the_faults_of_a_wait_anew() -> None:
    """`max_outage` counts from the first fault after the last good response."""
    state, reader = new_state(retry=Retry(max_outage=10)), Reader()
    for start in (0.0, 100.0):
        for step in (0.0, 1.0, 2.0, 9.9):
            assert fail_for(state, [reader], APIConnectionError("x"), start + step) == []
        answered(state, answer("QUEUED"), start + 9.95)


@pytest.mark.parametrize("had_response", [False, True])
@pytest.mark.parametrize(
    "error", [APIConnectionError("x", "dns"), APITimeoutError("x", "connect_timeout"), APIConnectionError("x", "body")]
)
def test_before_any_response_a_wrong_address_is_told_soon(error: APIConnectionError, had_response: bool) -> None:
    """`first_contact` is for faults of connecting, and only until the client has had a response."""
    policy = new_policy(Retry(max_outage=100, first_contact=7, attempts=5))
    is_soon = error.reason != "body" and not had_response
    assert policy.patience(rule_for(error).action, had_response=had_response) == (
        Patience(7, 5) if is_soon else Patience(100, 3)
    )


def test_a_good_answer_starts_the_count_afresh() -> None:
    """After a good answer the outage clock, the strikes and the 404 grace begin anew."""
    state = new_state(retry=Retry(max_outage=10))
    for start in (0.0, 100.0):
        for step in range(4):
            fail(state, APIConnectionError("x"), start + step)
        fail(state, NotFoundError(404), start + 5)
        answered(state, answer("QUEUED"), start + 6)
    assert not state.is_over


def test_404_is_believed_after_its_grace() -> None:
    """A 404 ends the state once it has been the only answer for `not_found_grace`, asked at that very moment."""
    state = new_state()
    now = 7.0
    while not state.is_over:
        fail(state, NotFoundError(404), now)
        last, now = now, state.next_request
    assert last == 10.0


def test_another_answer_restarts_the_404_grace() -> None:
    """A 404 that alternates with other answers was not the only one."""
    state = new_state()
    for now in range(20):
        fail(state, NotFoundError(404) if now % 2 else APIStatusError(502), float(now))
    assert not state.is_over


def test_a_fetch_ends_at_its_first_good_answer() -> None:
    """The first good response is the end, whatever its status."""
    state = new_fetch()
    answered(state, answer("QUEUED"), 0.0)
    assert state.is_over


def test_a_fetch_ends_after_its_attempts() -> None:
    """It ends at the `attempts`-th fault."""
    state = new_fetch(retry=Retry(attempts=2))
    ends = []
    for now in (0.0, 1.0):
        fail(state, APIStatusError(502), now)
        ends.append(state.is_over)
    assert ends == [False, True]


def test_a_fetch_ends_at_a_fault_that_stays() -> None:
    """A refusal ends it at the first attempt, and the third malformed response in a row does, whatever `attempts`."""
    fetch = new_fetch()
    fail(fetch, AuthenticationError(401), 0.0)
    assert fetch.is_over
    patient = new_fetch(retry=Retry(attempts=9))
    ends = []
    for now in (0.0, 1.0, 2.0):
        fail(patient, BROKEN, now)
        ends.append(patient.is_over)
    assert ends == [False, False, True]


def test_a_fetch_knows_what_others_knew() -> None:
    """Its status is what others knew of the task until its own response comes."""
    fetch: FetchState[ChatResult] = FetchState("task", new_policy(), 5.0, TaskStatus.QUEUED)
    assert (fetch.task_id, fetch.status, fetch.result, fetch.next_request) == ("task", "QUEUED", None, 5.0)
    assert fetch.request() == b'{"id": "task"}'
    working = answer("PROCESSING")
    assert answered(fetch, working, 7.0) == Transition(
        task_id="task", previous=None, status=TaskStatus.PROCESSING, result=working, elapsed=2.0, polls=1
    )
    assert (fetch.status, fetch.result, fetch.is_over, fetch.error) == ("PROCESSING", working, True, None)
    assert new_fetch().status is None


def test_the_letters_of_an_id_may_be_of_either_case() -> None:
    """What fails is counted once for an id, however it is written, and for each submission by itself."""
    one: TaskState[ChatResult] = TaskState("AB", new_policy(), 0.0)
    other: FetchState[ChatResult] = FetchState("ab", new_policy(), 0.0)
    assert one.key == other.key
    assert len({new_submission().key, new_submission().key, one.key}) == 3


def test_how_a_submission_ends() -> None:
    """Without an id it is uncertain where a request may have arrived, and failed where none did."""
    submission = new_submission()
    assert (submission.task_id, submission.status, submission.result) == (None, None, None)
    assert (submission.next_request, submission.ending) == (0.0, "failed")
    assert submission.before_sending()
    assert submission.ending == "uncertain"
    submission.on_good(Created(id=GOOD_ID), 1.0)
    assert submission.ending == "created"
    refused = new_submission()
    ended(refused, APIStatusError(400), is_sent=True)
    assert refused.ending == "failed"
    unfit = new_submission()
    unfit.before_sending()
    unfit.on_good(Created(id="task-1"), 1.0)
    assert unfit.ending == "uncertain"
    assert "is no version 4 UUID" in str(unfit.error)


def test_what_is_a_call() -> None:
    """A fetch and a submission are waited for as one response; a task is followed for what it comes to."""
    assert (new_state().is_call, new_fetch().is_call, new_submission().is_call) == (False, True, True)
    assert (new_state().is_idempotent, new_fetch().is_idempotent) == (True, True)


@pytest.mark.parametrize("state", [new_state(), new_fetch()], ids=["task", "fetch"])
def test_a_wait_that_times_out_says_how_to_go_on(state: Lifecycle) -> None:
    """The error names the seconds, says that the task goes on, and has the newest fault."""
    early = state.timed_out(2.5)
    assert isinstance(early, WaitTimeoutError)
    assert early.last_error is None
    assert str(early) == "no end within 2.5 s; the task goes on: to go on waiting, wait for the same id again"
    fault = APIConnectionError("x")
    fail(state, fault, 0.0)
    late = state.timed_out(2.5)
    assert isinstance(late, WaitTimeoutError)
    assert late.last_error is fault


def test_a_retry_after_counts_only_where_it_may_hold() -> None:
    """A `Retry-After` past the longest, on a code that can't ask for a pause, changes nothing."""
    state, fetch = new_state(), new_fetch(retry=Retry(attempts=1))
    fail(fetch, APIStatusError(500, retry_after=1e6), 0.0)
    assert fetch.is_over
    fail(state, NotFoundError(404, retry_after=1e6), 0.0)
    assert not state.is_over
    fail(state, NotFoundError(404, retry_after=1e6), 3.0)
    assert state.is_over


def test_a_fetch_has_no_grace() -> None:
    """A 404 is the end at once."""
    state = new_fetch()
    fail(state, NotFoundError(404), 0.0)
    assert state.is_over


def test_time_without_a_reader_moves_the_clocks() -> None:
    """While nobody waits no limit comes nearer, and nothing that was counted is forgotten."""
    state, reader = new_state(retry=Retry(max_outage=10)), Reader()
    for now in (0.0, 1.0, 5.0):
        assert fail_for(state, [reader], APIConnectionError("x"), now) == []
    due = state.next_request
    state.attempts.suspend(6.0)
    state.resume(1006.0)
    assert state.next_request == 1006.0 >= due
    assert fail_for(state, [reader], APIConnectionError("x"), 1009.9) == []
    assert state.next_request == 1010.0
    assert fail_for(state, [reader], APIConnectionError("x"), 1010.0) == [reader]


def test_a_wait_that_begins_first_has_nothing_before_it() -> None:
    """Before any fault, and without time in which nobody waited, a wait has nothing to know of."""
    attempts = new_state().attempts
    assert attempts.so_far(5.0) == (0, 0.0)
    attempts.suspend(6.0)
    assert attempts.so_far(8.5) == (0, 2.5)
    attempts.resume(9.0)
    assert attempts.so_far(20.0) == (0, 3.0)
    attempts.suspend(20.0)
    attempts.resume(24.0)
    assert attempts.so_far(30.0) == (0, 7.0)


def test_a_wait_that_begins_after_faults_knows_their_number() -> None:
    """What failed before a wait began is known to it, and counted on."""
    state = new_state()
    fail(state, APIConnectionError("x"), 1.0)
    assert state.attempts.so_far(2.0) == (1, 0.0)
    answered(state, answer("QUEUED"), 3.0)
    fail(state, APIConnectionError("x"), 4.0)
    assert state.attempts.so_far(5.0) == (2, 0.0)


def test_time_away_moves_the_first_fault() -> None:
    """`max_outage` counts from the first fault, without the time in which nobody waited."""
    state, reader = new_state(retry=Retry(max_outage=10)), Reader()
    for now in (3.0, 4.0, 5.0):
        assert fail_for(state, [reader], APIConnectionError("x"), now) == []
    state.attempts.suspend(6.0)
    state.resume(1006.0)
    ended = {now: fail_for(state, [reader], APIConnectionError("x"), now) for now in (1007.0, 1012.9, 1013.0)}
    assert ended == {1007.0: [], 1012.9: [], 1013.0: [reader]}


def test_time_away_moves_the_beginning_of_a_wait_too() -> None:
    """A wait that began while polls failed has all of its time, however long nobody was there in between."""
    state, first = new_state(retry=Retry(max_outage=10)), Reader()
    for now in (0.0, 1.0, 2.0):
        assert fail_for(state, [first], APIConnectionError("x"), now) == []
    state.attempts.suspend(2.5)
    late = Reader(since=3.0, prior=state.attempts.so_far(3.0))
    state.resume(3.0)
    state.attempts.suspend(4.0)
    state.resume(104.0)
    ended = {now: fail_for(state, [late], APIConnectionError("x"), now) for now in (105.0, 106.0, 112.9, 113.0)}
    assert ended == {105.0: [], 106.0: [], 112.9: [], 113.0: [late]}


def test_time_without_a_reader_moves_the_grace_and_keeps_the_malformed_count() -> None:
    """A reader that leaves and comes back meets the 404's end and the third malformed answer all the same."""
    state = new_state()
    for start in (0.0, 100.0, 200.0):
        fail(state, NotFoundError(404), start)
        assert not state.is_over
        state.attempts.suspend(start + 1.0)
        state.resume(start + 100.0)
    fail(state, NotFoundError(404), 300.0)
    assert state.is_over
    state = new_state()
    for start in (0.0, 100.0, 200.0):
        assert not state.is_over
        fail(state, BROKEN, start)
        state.attempts.suspend(start + 1.0)
        state.resume(start + 100.0)
    assert state.is_over


def test_a_new_walk_knows_nothing_and_polls_at_once() -> None:
    """Before the first answer there is no status, result or fault, and the first poll is due when the state begins."""
    state: TaskState[ChatResult] = TaskState("task", new_policy(), 5.0)
    assert (state.task_id, state.started, state.next_request, state.attempts.count) == ("task", 5.0, 5.0, 0)
    assert (state.status, state.result, state.attempts.streak, state.error, state.is_over) == (
        None,
        None,
        None,
        None,
        False,
    )
    answered(state, answer("QUEUED"), 6.0)
    assert not state.is_over


def test_a_transition_holds_all_that_is_known() -> None:
    """A transition names the task, both statuses and the answer, and counts seconds and polls from the start."""
    state: TaskState[ChatResult] = TaskState("task", new_policy(), 5.0)
    fail(state, APIConnectionError("x"), 5.0)
    queued, ready = answer("QUEUED"), answer("COMPLETED")
    assert answered(state, queued, 7.0) == Transition(
        task_id="task", previous=None, status=TaskStatus.QUEUED, result=queued, elapsed=2.0, polls=2
    )
    assert answered(state, queued, 8.0) is None
    assert answered(state, ready, 9.5) == Transition(
        task_id="task", previous=TaskStatus.QUEUED, status=TaskStatus.COMPLETED, result=ready, elapsed=4.5, polls=4
    )
    assert state.result is ready


def test_the_newest_answer_counts_even_without_a_change() -> None:
    """An answer with the same status replaces the one before it."""
    state = new_state()
    answered(state, answer("QUEUED"), 0.0)
    newer = answer("QUEUED", finished=1.0)
    assert answered(state, newer, 1.0) is None
    assert state.result is newer


def test_faults_are_counted_and_kept_until_a_good_answer() -> None:
    """The newest fault stands until a good answer, and each fault is an attempt."""
    state = new_state()
    for n, error in enumerate([APIConnectionError("x"), APIStatusError(500)]):
        fail(state, error, float(n))
        assert state.attempts.streak is not None
        assert state.attempts.streak.fault.error is error
        assert (state.attempts.count, state.error) == (n + 1, None)
    answered(state, answer("QUEUED"), 2.0)
    assert (state.attempts.streak, state.attempts.count) == (None, 3)


def test_waits_after_faults_grow_and_start_afresh() -> None:
    """The waits after faults are 0.5 s, doubling to 30 s, half of each random; a good answer starts them anew."""
    state = new_state(retry=Retry(max_outage=1000))
    for _ in range(2):
        waits, now = [], 0.0
        for _ in range(8):
            fail(state, APIConnectionError("x"), now)
            waits.append(state.next_request - now)
            now = state.next_request
        assert waits == [0.375, 0.75, 1.5, 3.0, 6.0, 12.0, 22.5, 22.5]
        answered(state, answer("QUEUED"), 0.0)


BROKEN = APIResponseValidationError("x")


def test_three_strikes_in_a_row_end_a_walk() -> None:
    """The third broken answer in a row is the end, and anything else between them starts their count afresh."""
    state = new_state()
    for between in (None, APIConnectionError("x"), NotFoundError(404), APIResponseValidationError("x", "not_json")):
        for now in (0.0, 0.1):
            fail(state, BROKEN, now)
        assert not state.is_over
        if between is None:
            answered(state, answer("QUEUED"), 0.2)
        else:
            fail(state, between, 0.2)
    for n in range(3):
        assert not state.is_over
        fail(state, BROKEN, 0.3 + n)
    assert state.is_over
    assert state.error is BROKEN


def test_an_end_for_good_is_one() -> None:
    """A fault that another attempt can't better ends the state at once, with that fault."""
    state = new_state()
    error = AuthenticationError(401)
    fail(state, error, 0.0)
    assert state.is_over
    assert state.error is error


@pytest.mark.parametrize("single", [False, True])
def test_a_retry_after_past_the_longest_is_the_end(single: bool) -> None:
    """A pause of exactly `max_retry_after` is waited for; a longer one ends the state."""
    state = (new_fetch if single else new_state)(retry=Retry(max_retry_after=20.0, attempts=9))
    fail(state, RateLimitError(429, retry_after=20.0), 0.0)
    assert not state.is_over
    fail(state, RateLimitError(429, retry_after=20.1), 1.0)
    assert state.is_over


def test_a_404_is_believed_exactly_after_its_grace() -> None:
    """Just before the grace is over a 404 is not believed, and the next poll is due when it is."""
    state = new_state(retry=Retry(not_found_grace=5.0))
    fail(state, NotFoundError(404), 1.0)
    assert state.next_request == 1.375
    fail(state, NotFoundError(404), 5.9)
    assert not state.is_over
    assert state.next_request == 6.0
    fail(state, NotFoundError(404), 6.0)
    assert state.is_over


def test_a_limit_is_met_on_time_from_the_third_failure_on() -> None:
    """The poll that may end a wait is due exactly at `max_outage`, but not before two failures, and never in the past."""  # noqa: E501
    state, reader = new_state(retry=Retry(max_outage=0.25)), Reader()
    for now, due in ((1.0, 1.375), (1.375, 1.375)):
        assert fail_for(state, [reader], APIConnectionError("x"), now) == []
        assert state.next_request == due
    assert fail_for(state, [reader], APIConnectionError("x"), 1.375) == [reader]
    later = new_state(retry=Retry(max_outage=1.0))
    for now in (1.0, 1.5):
        assert fail_for(later, [reader], APIConnectionError("x"), now) == []
    assert later.next_request == 2.0
    assert fail_for(later, [reader], APIConnectionError("x"), 1.99) == []
    assert fail_for(later, [reader], APIConnectionError("x"), 2.0) == [reader]


def test_a_fetch_backs_off_in_full() -> None:
    """No outage shortens a wait: the attempts are the limit."""
    state = new_fetch(retry=Retry(max_outage=0.1, attempts=4))
    waits, now = [], 0.0
    for _ in range(2):
        fail(state, APIConnectionError("x"), now)
        waits.append(state.next_request - now)
        now = state.next_request
    assert waits == [0.375, 0.75]


def test_waking_keeps_the_next_request_in_the_future() -> None:
    """After a sleep the next poll is due now, or when it was due anyway; nothing that was known is forgotten."""
    state = new_state()
    answered(state, answer("QUEUED"), 0.0)
    due = state.next_request
    state.resume(0.1)
    assert state.next_request == due
    state.resume(7.0)
    assert state.next_request == 7.0
    assert state.status == TaskStatus.QUEUED


def test_a_walk_that_is_over_stays_as_it_ended() -> None:
    """Waking a state that ended changes nothing of how it ended."""
    state = new_state()
    error = AuthenticationError(401)
    fail(state, error, 0.0)
    due = state.next_request
    state.resume(9.0)
    assert (state.is_over, state.error, state.next_request) == (True, error, due)


statuses = st.sampled_from(["CREATED", "QUEUED", "POSTPONED", "ASSIGNED_CONNECTIONS", "PROCESSING", "NEW_WORD"])


@given(
    lives=st.lists(statuses, max_size=12),
    ending=st.sampled_from(["COMPLETED", "ERROR"]),
    polls_each=st.lists(st.integers(0, 3), min_size=13, max_size=13),
)
def test_each_visible_change_is_reported_once_in_order(lives: list[str], ending: str, polls_each: list[int]) -> None:
    """Over random timelines and poll times, the state reports each visible change once, in order, and ends exactly at the first terminal status."""  # noqa: E501
    polled = [status for status, times in zip(lives, polls_each, strict=False) for _ in range(times)] + [ending]
    state = new_state()
    reported: list[TaskStatus | None] = []
    for now, status in enumerate(polled):
        assert not state.is_over
        transition = answered(state, answer(status), float(now))
        if transition is not None:
            assert transition.previous == (reported[-1] if reported else None)
            assert (transition.elapsed, transition.polls) == (now, now + 1)
            reported.append(transition.status)
        assert state.is_over or state.next_request > now
    assert reported == [status for status, _ in itertools.groupby(polled)]
    assert state.is_over
    assert state.error is None


@given(initial=st.floats(0.001, 10), factor=st.floats(1, 4), cap=st.floats(0.001, 100), n=st.integers(0, 10_000))
def test_backoff_waits_stay_in_their_bounds(initial: float, factor: float, cap: float, n: int) -> None:
    """Each wait lies between half its span and all of it, spans grow, and none passes the cap."""
    steps = Steps.exponential(initial, factor, cap)
    assert list(steps.spans) == sorted(steps.spans)
    assert steps.spans[-1] <= cap
    span = steps.spans[min(n, len(steps.spans) - 1)]
    assert span <= min(cap, initial * factor ** min(n, 50) * (1 + 1e-9)) or n > 50
    assert steps.wait(n, lambda _: 0.0) == span / 2
    assert steps.wait(n, lambda part: part) == span


# Learned pacing.


def test_a_walk_is_paced_by_what_was_learned() -> None:
    """With a course the polls come where tasks of this kind end, and each state teaches the next one."""
    pacing = Pacing.learned(10, jitter=half)
    policy = RequestPolicy(pacing, Retry(), retry_steps(Retry()), PacingMemory(pacing))

    def polls(kind: str, end: float) -> list[float]:
        state: TaskState[ChatResult] = TaskState("task", policy, 100.0, policy.pacer(kind, 100.0))
        times = []
        while not state.is_over:
            times.append(state.next_request - 100.0)
            answered(state, answer("PROCESSING" if times[-1] < end else "COMPLETED"), state.next_request)
        return times

    plain = polls("chat", 20.0)
    for n in range(60):
        polls("chat", 19.5 + n / 60)
    assert len([time for time in polls("chat", 20.0) if 19 < time < 21]) > len(
        [time for time in plain if 19 < time < 21]
    )
    assert polls("images", 20.0) == plain
    assert new_policy().pacer("chat", 0.0) is None


# The submission of a task.


GOOD_ID = "0b7dbd53-71f5-4d2b-9c0e-4dd3a2f7d6f1"


def new_submission() -> SubmissionState:
    return SubmissionState(b"{}", new_policy(), 0.0)


def ended(submission: SubmissionState, error: DistributeError, *, is_sent: bool) -> DistributeError | None:
    """What one fault ends a submission in; None where it goes on."""
    if is_sent:
        assert submission.before_sending()
    fail(submission, error, 1.0)
    return submission.error


def test_a_creation_ends_with_the_id() -> None:
    """The first good answer is all, and the body is the one that was given."""
    submission = new_submission()
    assert (submission.request(), submission.is_idempotent, new_state().is_idempotent) == (b"{}", False, True)
    assert submission.before_sending()
    submission.on_good(Created(id=GOOD_ID), 1.0)
    assert (submission.is_over, submission.error) == (True, None)
    assert submission.result == GOOD_ID


@pytest.mark.parametrize("wrong", ["", "task-1", GOOD_ID + "\n"])
def test_an_id_that_nobody_can_ask_for_is_no_id(wrong: str) -> None:
    """A task exists then, perhaps, and nobody can follow it."""
    submission = new_submission()
    assert submission.before_sending()
    submission.on_good(Created(id=wrong), 1.0)
    assert isinstance(submission.error, SubmitUncertainError)
    assert isinstance(submission.error.last_error, APIResponseValidationError)
    assert submission.attempts.count == 1


@pytest.mark.parametrize(
    "fault",
    [
        *(
            APIConnectionError("x", reason)
            for reason in ("disconnected", "body", "protocol", "stale", "tls", "unexpected")
        ),
        *(APIResponseValidationError("x", reason) for reason in ("not_json", "shape", "code", "too_large")),
        *(InternalServerError(code) for code in (500, 502, 504, 520)),
        *(APITimeoutError("x"), APIStatusError(303)),
    ],
    ids=repr,
)
def test_what_was_sent_and_not_answered_may_exist(fault: DistributeError) -> None:
    """Where the request may have arrived and no answer says that it did nothing, it ends at once in not knowing."""
    error = ended(new_submission(), fault, is_sent=True)
    assert isinstance(error, SubmitUncertainError)
    assert error.last_error is fault


@pytest.mark.parametrize("code", [301, 400, 401, 402, 403, 404, 408, 409, 413, 422, 425])
def test_a_refusal_is_raised_as_it_is(code: int) -> None:
    """An answer that says that nothing was done ends the submission at once, as itself."""
    fault = APIStatusError(code)
    assert ended(new_submission(), fault, is_sent=True) is fault


@pytest.mark.parametrize(
    ("fault", "is_sent"),
    [
        *((APIConnectionError("x", reason), False) for reason in ("connect", "dns", "tls", "proxy", "stale")),
        *((APITimeoutError("x"), False), (RateLimitError(429), True), (InternalServerError(503), True)),
    ],
    ids=repr,
)
def test_what_surely_never_arrived_is_sent_again(fault: DistributeError, is_sent: bool) -> None:
    """It is tried `Retry.attempts` times, and ends in what went wrong then: no task exists."""
    submission = new_submission()
    assert ended(submission, fault, is_sent=is_sent) is None
    assert submission.next_request > 1.0
    assert ended(submission, fault, is_sent=is_sent) is None
    assert ended(submission, fault, is_sent=is_sent) is fault


def test_what_was_turned_away_is_forgotten() -> None:
    """After a 503 an attempt that isn't sent makes nothing uncertain, and one that is cut does."""
    submission = new_submission()
    assert ended(submission, InternalServerError(503), is_sent=True) is None
    assert ended(submission, APIConnectionError("x", "connect"), is_sent=False) is None
    assert isinstance(submission.timed_out(5.0), WaitTimeoutError)
    error = ended(submission, APIConnectionError("x", "disconnected"), is_sent=True)
    assert isinstance(error, SubmitUncertainError)


def test_a_creation_that_times_out() -> None:
    """The timeout ends it in not knowing only where something was sent; so does the end of the client."""
    submission = new_submission()
    early = submission.timed_out(5.0)
    assert isinstance(early, WaitTimeoutError)
    assert early.last_error is None
    fault = APIConnectionError("x", "connect")
    assert ended(submission, fault, is_sent=False) is None
    late = submission.timed_out(5.0)
    assert isinstance(late, WaitTimeoutError)
    assert late.last_error is fault
    assert "5 s" in str(late)
    assert submission.before_sending()
    uncertain = submission.timed_out(5.0)
    assert isinstance(uncertain, SubmitUncertainError)
    assert uncertain.last_error is None
    submission.end(ClientClosedError("closed"))
    assert isinstance(submission.error, SubmitUncertainError)
    unsent = new_submission()
    unsent.end(ClientClosedError("closed"))
    assert isinstance(unsent.error, ClientClosedError)
    assert not unsent.before_sending()
    assert isinstance(unsent.timed_out(5.0), WaitTimeoutError)
    state = new_state()
    assert state.before_sending()
    state.end(ClientClosedError("closed"))
    assert not state.before_sending()
