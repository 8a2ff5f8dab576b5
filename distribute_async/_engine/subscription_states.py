"""The states of a subscription, as a table that code, tests and `docs/design.md` share. Pure data."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a subscription stands."""

    IDLE = "nobody waits"
    SLEEPING = "the next request is planned"
    QUEUED = "the next request is due and waits for its turn at the throttle"
    PARKED = "the next request is due, but nobody is suspended on it now"
    IN_FLIGHT = "an exchange is under way"
    CUTTING = "an exchange is being cut, because its last waiter left"
    OVER = "it ended: no further request"


class Event(Enum):
    """What moves a subscription from one state to the next."""

    JOIN = "the first waiter comes"
    LEAVE = "the last waiter leaves"
    DUE = "the time of the next request has come"
    NOT_DUE = "its turn comes, but the waiter whose deadline it was for has left"
    PARK = "its turn comes, but nobody is suspended on it"
    RESUME = "somebody is suspended on it again"
    SEND = "an exchange starts"
    REPLY = "the exchange ended, and more are to come"
    END = "the task is over, or following it failed"


#: All moves. An event that a state has no row for is a mistake in this library.
TRANSITIONS: dict[State, dict[Event, State]] = {
    State.IDLE: {Event.JOIN: State.SLEEPING, Event.END: State.OVER},
    State.SLEEPING: {Event.DUE: State.QUEUED, Event.LEAVE: State.IDLE, Event.END: State.OVER},
    State.QUEUED: {
        Event.SEND: State.IN_FLIGHT,
        Event.NOT_DUE: State.SLEEPING,
        Event.PARK: State.PARKED,
        Event.LEAVE: State.IDLE,
        Event.END: State.OVER,
    },
    State.PARKED: {Event.RESUME: State.SLEEPING, Event.LEAVE: State.IDLE, Event.END: State.OVER},
    State.IN_FLIGHT: {Event.REPLY: State.SLEEPING, Event.LEAVE: State.CUTTING, Event.END: State.OVER},
    State.CUTTING: {Event.REPLY: State.IDLE, Event.JOIN: State.IN_FLIGHT, Event.END: State.OVER},
    State.OVER: {Event.JOIN: State.OVER, Event.LEAVE: State.OVER, Event.REPLY: State.OVER, Event.END: State.OVER},
}
