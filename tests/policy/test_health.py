"""What the newest exchanges say about the service: the fault that waits end in, the patience, the usual time."""

from __future__ import annotations

import pytest

from distribute_async import APIConnectionError, InternalServerError, NotFoundError, Pacing, RateLimitError, Retry
from distribute_async._policy.adaptive import PacingMemory
from distribute_async._policy.attempts import Patience, RequestPolicy
from distribute_async._policy.faults import Fault, Good
from distribute_async._policy.health import LEAST_LEAD, ServiceHealth
from distribute_async._policy.pacing import retry_steps

RETRY = Retry(max_outage=100, first_contact=7, attempts=5)
GOOD: Good[None] = Good(None)
REFUSED = Fault.of(APIConnectionError("refused"))
DOWN = Fault.of(InternalServerError(502))


def new_health() -> ServiceHealth:
    return ServiceHealth(RequestPolicy(Pacing(), RETRY, retry_steps(RETRY), PacingMemory(Pacing())))


def test_the_usual_exchange_is_a_moving_average() -> None:
    """The first response sets what an exchange usually takes, later ones move it by a fifth."""
    health = new_health()
    assert health.usual_exchange == 0.0
    usual = []
    for took in (0.5, 1.0, 0.5):
        health.note(GOOD, took)
        usual.append(health.usual_exchange)
    assert usual == [pytest.approx(0.5), pytest.approx(0.6), pytest.approx(0.58)]


def test_only_what_says_that_the_service_is_well_counts_for_the_usual_time() -> None:
    """A 404 does, and what counts towards an outage, or is unclear, doesn't."""
    health = new_health()
    for fault in (DOWN, REFUSED, Fault.of(InternalServerError(500))):
        health.note(fault, 9.0)
    assert health.usual_exchange == 0.0
    health.note(Fault.of(NotFoundError(404)), 2.0)
    assert health.usual_exchange == 2.0


def test_the_lead_is_twice_the_usual_time_and_has_a_minimum() -> None:
    """The last poll before a deadline starts 50 ms ahead of it, or twice the usual exchange's time."""
    health = new_health()
    assert health.lead == LEAST_LEAD == 0.05
    health.note(GOOD, 0.2)
    assert health.lead == 0.4
    health.note(GOOD, 0.0)
    assert health.lead == pytest.approx(0.32)


def test_before_any_response_faults_of_connecting_have_a_patience_of_their_own() -> None:
    """`first_contact` holds until there is any response, an error's too."""
    health = new_health()
    assert health.patience == Patience(100, 3)
    assert health.note(REFUSED, 0.1)
    assert health.patience == Patience(7, 5)
    assert not health.note(REFUSED, 0.1)
    assert not health.note(Fault.of(NotFoundError(404)), 0.1)
    assert health.note(REFUSED, 0.1)
    assert health.patience == health.patience_for(REFUSED) == Patience(100, 3)


@pytest.mark.parametrize("reply", [GOOD, DOWN, Fault.of(InternalServerError(500))], ids=repr)
def test_any_response_is_contact(reply: Good[None] | Fault) -> None:
    """Whatever the service said, the address is right."""
    health = new_health()
    health.note(reply, 0.1)
    health.note(REFUSED, 0.1)
    assert health.patience == Patience(100, 3)


def test_waits_end_in_the_newest_fault_of_an_outage() -> None:
    """Only faults that count towards an outage are told to those who wait for its end."""
    health = new_health()
    assert isinstance(health.last_fault, APIConnectionError)
    health.note(DOWN, 0.1)
    health.note(Fault.of(InternalServerError(500)), 0.1)
    assert not health.note(GOOD, 0.1)
    assert health.last_fault is DOWN.error
    assert health.why_closed(0.0) is DOWN.error


def test_waits_that_a_pause_outlasts_end_in_it_with_its_rest() -> None:
    """The error is the one that asked for the pause, and says how much of it is left."""
    health = new_health()
    health.note(DOWN, 0.1)
    assert health.why_closed(5.0) is DOWN.error
    health.paused_by(Fault.of(RateLimitError(429, "slow down", "id-1", 60.0)))
    told = health.why_closed(41.5)
    assert isinstance(told, RateLimitError)
    assert (told.status_code, told.message, told.request_id, told.retry_after) == (429, "slow down", "id-1", 41.5)
    assert health.why_closed(0.0) is DOWN.error
