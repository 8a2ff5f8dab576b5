"""A subscription: the table of its states, its waiters, and when it is looked at next."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from distribute_async import APIConnectionError, ChatResult, DistributeError, Pacing, Retry, TaskStatus
from distribute_async._engine.kinds import CHAT
from distribute_async._engine.subscription import FEW_TRANSITIONS, FEW_WAITERS, HISTORY, Exchange, Subscription, closed
from distribute_async._engine.subscription_states import TRANSITIONS, Event, State
from distribute_async._policy.adaptive import PacingMemory
from distribute_async._policy.attempts import RequestPolicy
from distribute_async._policy.fair_queue import Priority
from distribute_async._policy.faults import Fault
from distribute_async._policy.pacing import retry_steps
from distribute_async._policy.task_state import FetchState, Lifecycle, SubmissionState, TaskState

POLICY = RequestPolicy(Pacing(), Retry(), retry_steps(Retry()), PacingMemory(Pacing()))


class FakeWaiter:
    """A waiter that writes down what it hears."""

    def __init__(self, deadline: float = math.inf, *, since: float = 0.0, is_away: bool = False) -> None:
        self.deadline = deadline
        self.since = since
        self.prior = 0, 0.0
        self.wants_all = False
        self.is_away = is_away
        self.heard: list[object] = []

    def wake(self) -> None:
        self.heard.append("wake")

    def refuse(self, error: DistributeError) -> None:
        self.heard.append(error)

    def parked(self) -> None:
        self.heard.append("parked")


def followed(*waiters: FakeWaiter, lifecycle: Lifecycle | None = None) -> Subscription[ChatResult]:
    """A subscription that began at 10 s, with these waiters."""
    state: Lifecycle = lifecycle or TaskState[ChatResult]("task", POLICY, 10.0)
    subscription: Subscription[ChatResult] = Subscription(CHAT.result, state)
    for waiter in waiters:
        if not subscription.waiters:
            subscription.joined(10.0)
        subscription.enter(waiter)
    return subscription


def in_flight(subscription: Subscription[Any], now: float, cut_at: float = math.inf) -> Exchange:
    """Move it on to IN_FLIGHT."""
    subscription.move(Event.DUE)
    exchange = Exchange(subscription, is_probe=False, cut_at=cut_at)
    subscription.sent(exchange, now)
    return exchange


# The table.


def test_every_state_can_be_reached_and_left() -> None:
    """From IDLE each state can be reached, and from each but OVER the end."""
    reached, todo = {State.IDLE}, [State.IDLE]
    while todo:
        new = set(TRANSITIONS[todo.pop()].values()) - reached
        reached |= new
        todo += new
    assert reached == set(State) == TRANSITIONS.keys()
    assert all(row[Event.END] is State.OVER for row in TRANSITIONS.values())
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)


def test_what_is_over_stays_over() -> None:
    """No event leads out of OVER."""
    assert set(TRANSITIONS[State.OVER].values()) == {State.OVER}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_subscription_moves_along_the_table(state: State, event: Event) -> None:
    """Each event moves it as the table says; one without a row is a mistake, which leaves the state as it was."""
    subscription = followed()
    subscription.state = state
    if event in TRANSITIONS[state]:
        subscription.move(event)
        assert subscription.state is TRANSITIONS[state][event]
    else:
        with pytest.raises(RuntimeError, match=f"{event.name} in state {state.name}"):
            subscription.move(event)
        assert subscription.state is state


@pytest.mark.parametrize("state", State)
def test_every_state_and_event_says_what_it_is(state: State) -> None:
    """The design page shows these words, each its own."""
    assert len({member.value for member in [*State, *Event]}) == len(State) + len(Event)
    assert isinstance(state.value, str)


def test_an_exchange_goes_its_way() -> None:
    """Sleeping, queued, in flight, and sleeping again after the reply; over once it has ended."""
    subscription = followed(FakeWaiter())
    states = [subscription.state]
    exchange = in_flight(subscription, 10.0)
    states.append(subscription.state)
    assert (subscription.exchange, subscription.polled_at) == (exchange, 10.0)
    subscription.replied()
    states.append(subscription.state)
    assert subscription.exchange is None
    subscription.move(Event.END)
    assert subscription.left(11.0) is None
    states.append(subscription.state)
    assert states == [State.SLEEPING, State.IN_FLIGHT, State.SLEEPING, State.OVER]


def test_the_exchange_that_nobody_waits_for_is_handed_out() -> None:
    """Where the last waiter leaves, the exchange under way is to be cut; whoever joins then waits for its end."""
    waiter = FakeWaiter()
    subscription = followed(waiter)
    exchange = in_flight(subscription, 10.0)
    subscription.leave(waiter)
    assert subscription.left(11.0) is exchange
    states = [subscription.state]
    subscription.joined(12.0)
    states.append(subscription.state)
    subscription.replied()
    states.append(subscription.state)
    assert states == [State.CUTTING, State.IN_FLIGHT, State.SLEEPING]
    assert subscription.lifecycle.attempts.idle == 1.0


def test_the_reply_to_what_nobody_waits_for_leaves_it_idle() -> None:
    """After a cut exchange has ended nothing is planned."""
    waiter = FakeWaiter()
    subscription = followed(waiter)
    in_flight(subscription, 10.0)
    subscription.leave(waiter)
    subscription.left(11.0)
    subscription.replied()
    assert subscription.state is State.IDLE
    assert subscription.next_event_at(0.05, None) == math.inf


def test_a_new_subscription_knows_nothing() -> None:
    """Before its first waiter nothing was requested, seen or planned."""
    subscription = Subscription[ChatResult](CHAT.result, TaskState[ChatResult]("task", POLICY, 10.0))
    assert subscription.state is State.IDLE
    assert subscription.endpoint is CHAT.result
    assert (subscription.has_led, subscription.was_polled, subscription.seen) == (False, False, 0)
    assert (subscription.deadline, len(subscription.waiters)) == (math.inf, 0)
    assert subscription.has_led is False
    assert [subscription.exchange, subscription.entry, subscription.digest] == [None, None, None]


def test_a_new_exchange_has_no_connection_yet() -> None:
    """It may use the session from the beginning, and has come to nothing."""
    subscription = followed(FakeWaiter())
    exchange = Exchange(subscription, is_probe=True, cut_at=15.0)
    assert (exchange.subscription, exchange.cut_at) == (subscription, 15.0)
    assert (exchange.is_probe, exchange.holds_session) == (True, True)
    assert exchange.has_connection is exchange.is_cut is False
    assert exchange.cut_fault is exchange.reply is None


def test_what_ends_the_waits_of_a_closed_client() -> None:
    """The error says that the tasks go on."""
    assert "tasks themselves are untouched" in str(closed())


# What is due, and when.


def test_the_next_request_is_the_next_event() -> None:
    """A sleeping subscription is looked at for its next request, or for an earlier deadline."""
    subscription = followed(FakeWaiter(deadline=50.0))
    in_flight(subscription, 10.0)
    subscription.replied()
    subscription.lifecycle.next_request = 20.0
    assert subscription.next_event_at(0.05, None) == 20.0
    subscription.lifecycle.next_request = 60.0
    assert subscription.next_event_at(1.0, None) == 49.0
    assert not subscription.is_due(48.9, 1.0)
    assert subscription.is_due(49.0, 1.0)


def test_a_deadline_gets_one_poll_of_its_own() -> None:
    """Ahead of a deadline one poll is made for each interval, and none where the interval's poll came later anyway."""
    subscription = followed(FakeWaiter(deadline=50.0))
    subscription.lifecycle.next_request = 60.0
    in_flight(subscription, 49.0)
    assert subscription.has_led
    subscription.replied()
    assert subscription.next_request_at(1.0) == 60.0
    other = followed(FakeWaiter(deadline=50.0))
    in_flight(other, 49.5)
    other.replied()
    assert not other.has_led
    other.lifecycle.next_request = 60.0
    assert other.next_request_at(1.0) == 60.0
    assert other.next_request_at(0.5) == 60.0
    assert other.next_request_at(0.4) == 49.6


def test_a_submission_is_not_hurried() -> None:
    """What is sent at the last moment ends in not knowing: a submission goes when it is due, or not at all."""
    submission = followed(FakeWaiter(deadline=12.0), lifecycle=SubmissionState(b"{}", POLICY, 10.0))
    submission.lifecycle.next_request = 20.0
    assert submission.next_request_at(1.0) == 20.0


def test_a_poll_for_a_deadline_is_not_due_without_its_waiter() -> None:
    """Where the waiter has left for whose deadline a poll would come, it is not due any more."""
    hasty, patient = FakeWaiter(deadline=15.0), FakeWaiter(deadline=100.0)
    subscription = followed(hasty, patient)
    subscription.lifecycle.next_request = 60.0
    assert subscription.next_event_at(1.0, None) == 14.0
    subscription.leave(hasty)
    assert not subscription.is_due(14.0, 1.0)
    assert subscription.deadline == 100.0


def test_an_exchange_is_looked_at_when_it_is_late() -> None:
    """While an exchange is under way the next event is a deadline, or the time at which to cut it."""
    subscription = followed(FakeWaiter(deadline=50.0))
    exchange = in_flight(subscription, 10.0, cut_at=15.0)
    assert subscription.next_event_at(0.05, None) == 15.0
    exchange.cut_at = 60.0
    assert subscription.next_event_at(0.05, None) == 50.0


def test_in_the_queue_a_deadline_or_the_outage_ends_a_wait() -> None:
    """One that queues is looked at for its deadline, and in an outage when that has outlasted its oldest wait."""
    subscription = followed(FakeWaiter(deadline=500.0, since=12.0), FakeWaiter(deadline=400.0, since=11.0))
    subscription.move(Event.DUE)
    assert subscription.next_event_at(0.05, None) == 400.0
    assert subscription.next_event_at(0.05, (5.0, 100.0)) == 111.0
    assert subscription.next_event_at(0.05, (30.0, 100.0)) == 130.0
    assert subscription.next_event_at(0.05, (30.0, 900.0)) == 400.0
    subscription.move(Event.PARK)
    assert subscription.next_event_at(0.05, (5.0, 100.0)) == 400.0


def test_an_outage_outlasts_each_wait_from_its_own_beginning() -> None:
    """A wait has all of its patience, from the outage's first failure or its own beginning."""
    early, late = FakeWaiter(since=10.0), FakeWaiter(since=50.0)
    subscription = followed(early, late)
    assert subscription.outlasted(20.0, 30.0, 49.9) == []
    assert subscription.outlasted(20.0, 30.0, 50.0) == [early]
    assert subscription.outlasted(20.0, 30.0, 80.0) == [early, late]


def test_priorities() -> None:
    """A call goes before first polls, and these before later ones."""
    subscription = followed(FakeWaiter())
    priorities = [subscription.priority]
    in_flight(subscription, 10.0)
    assert [*priorities, subscription.priority] == [Priority.FIRST_POLL, Priority.POLL]
    fetch = followed(FakeWaiter(), lifecycle=FetchState[ChatResult]("task", POLICY, 10.0))
    assert fetch.priority is Priority.CALL


# Waiters.


@pytest.mark.parametrize("count", [1, 16, 17, 48])
def test_waiters_come_and_go(count: int) -> None:
    """Each waiter is woken once its deadline has passed, at exactly that time too, and waits no longer then."""
    waiters = [FakeWaiter(deadline=20.0 + n) for n in range(count)]
    subscription = followed(*waiters)
    assert list(subscription.waiters) == waiters
    assert isinstance(subscription.waiters, dict) == (count > FEW_WAITERS)
    assert subscription.deadline == 20.0
    subscription.expire(19.9)
    assert [waiter.heard for waiter in waiters] == [[]] * count
    subscription.expire(20.0)
    assert waiters[0].heard == ["wake"]
    assert list(subscription.waiters) == waiters[1:]
    assert subscription.deadline == (21.0 if count > 1 else math.inf)
    assert subscription.due_before(21.0) == []
    assert subscription.due_before(22.5) == waiters[1:3]
    subscription.leave(waiters[0])
    assert list(subscription.waiters) == waiters[1:]


def test_a_refused_wait_is_over_alone() -> None:
    """One wait ends in the error, the others go on."""
    one, other = FakeWaiter(), FakeWaiter()
    subscription = followed(one, other)
    error = APIConnectionError("x")
    subscription.refuse(one, error)
    assert one.heard == [error]
    assert list(subscription.waiters) == [other]


def test_only_those_who_want_all_hear_of_a_change() -> None:
    """A transition wakes those who want each of them; the end wakes everybody."""
    one, other = FakeWaiter(), FakeWaiter()
    one.wants_all = True
    subscription = followed(one, other)
    subscription.notify()
    assert (one.heard, other.heard) == (["wake"], [])
    subscription.lifecycle.end(APIConnectionError("x"))
    subscription.notify()
    assert (one.heard, other.heard) == (["wake", "wake"], ["wake"])


def test_somebody_who_is_away_attends_to_nothing() -> None:
    """It is attended while any waiter is suspended."""
    assert not followed(FakeWaiter(is_away=True)).is_attended
    assert followed(FakeWaiter(is_away=True), FakeWaiter()).is_attended


class Counted(FakeWaiter):
    """A waiter that counts how often it is compared with another one."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return self is other

    __hash__ = object.__hash__


def test_thousands_of_waits_on_one_id_come_and_go_in_constant_time() -> None:
    """Each waiter that joins or leaves is compared with a few others at most, however many there are."""
    subscription = followed()
    waiters = [Counted() for _ in range(2000)]
    for waiter in waiters:
        subscription.enter(waiter)
    for waiter in waiters[::-1]:
        subscription.leave(waiter)
    assert not subscription.waiters
    assert Counted.comparisons <= 20 * len(waiters)


# What was seen.


def test_the_newest_thousand_transitions_are_kept() -> None:
    """Older ones are dropped a hundred at a time, and a cursor counts them all the same."""
    subscription = followed()
    assert isinstance(subscription.lifecycle, TaskState)
    kept = {}
    for n in range(1, 1_251):
        result = ChatResult(status=TaskStatus.QUEUED if n % 2 else TaskStatus.PROCESSING, created=n, model="m")
        transition = subscription.lifecycle.on_good(result, 10.0 + n)
        assert transition is not None
        subscription.add(transition)
        kept[n] = len(subscription.history)
        assert isinstance(subscription.history, tuple) == (n < FEW_TRANSITIONS)
    assert [kept[n] for n in (1, 7, 8, 9, 1_099, 1_100, 1_199, 1_200)] == [1, 7, 8, 9, 1_099, 1_000, 1_099, 1_000]
    assert (HISTORY, FEW_TRANSITIONS) == (1_000, 8)
    assert subscription.seen == 1_250
    assert (subscription.forgotten, len(subscription.history)) == (200, 1_050)
    assert [change.elapsed for change in subscription.since(1_248)] == [1_249.0, 1_250.0]
    assert len(subscription.since(0)) == 1_050


def test_an_error_says_what_was_known() -> None:
    """A copy of it names the task as the caller wrote it, the newest status, the attempts and the seconds."""
    subscription = followed(FakeWaiter())
    subscription.lifecycle.on_fault(Fault.of(APIConnectionError("x")), 11.0)
    subscription.lifecycle.on_good(ChatResult(status=TaskStatus.QUEUED, created=1, model="m"), 12.0)
    error = APIConnectionError("y")
    told = subscription.with_context(error, "TASK", 7.5)
    assert (told.task_id, told.last_status, told.attempts, told.elapsed) == ("TASK", "QUEUED", 2, 7.5)
    assert error.task_id is None


async def test_a_cut_keeps_its_first_reason() -> None:
    """An exchange is cut once: what cut it first counts, and its task is cancelled each time."""
    subscription = followed(FakeWaiter())
    exchange = in_flight(subscription, 10.0, cut_at=15.0)
    task = asyncio.create_task(asyncio.sleep(100))
    exchange.task = task
    fault = Fault.of(APIConnectionError("late"))
    exchange.cut(fault)
    exchange.cut()
    assert (exchange.is_cut, exchange.cut_fault, exchange.cut_at) == (True, fault, math.inf)
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize(("is_probe", "stands_in", "is_create"), [(False, False, True), (True, True, False)])
def test_a_submission_is_never_a_probe(is_probe: bool, stands_in: bool, is_create: bool) -> None:
    """In an outage a status request stands in for it."""
    submission = followed(FakeWaiter(), lifecycle=SubmissionState(b"{}", POLICY, 10.0))
    exchange = Exchange(submission, is_probe=is_probe, cut_at=15.0)
    assert (exchange.stands_in, exchange.is_create) == (stands_in, is_create)
    poll = Exchange(followed(FakeWaiter()), is_probe=is_probe, cut_at=15.0)
    assert (poll.stands_in, poll.is_create) == (False, False)
