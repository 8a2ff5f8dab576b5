"""The fault table, row by row against what is promised: written down a second time, so that no slip goes unnoticed."""

from __future__ import annotations

import pytest

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    DistributeError,
    Pacing,
    Retry,
)
from distribute_async._policy.adaptive import PacingMemory
from distribute_async._policy.attempts import RequestPolicy
from distribute_async._policy.faults import (
    RULES,
    UNUSABLE,
    Action,
    Fault,
    HealthSignal,
    pause_of,
    rule_for,
)
from distribute_async._policy.pacing import retry_steps
from distribute_async._policy.task_state import SubmissionState
from distribute_async._wire.codec import status_error_type

REASONS = {
    "stale": (Action.RETRY_NOW, HealthSignal.DOWN),
    "connect": (Action.CONNECT, HealthSignal.DOWN),
    "dns": (Action.CONNECT, HealthSignal.DOWN),
    "tls": (Action.CONNECT, HealthSignal.DOWN),
    "connect_timeout": (Action.CONNECT, HealthSignal.DOWN),
    "cancelled": (Action.BACK_OFF, HealthSignal.UNCLEAR),
    "certificate": (Action.END, HealthSignal.UNCLEAR),
    "proxy": (Action.CONNECT, HealthSignal.DOWN),
    "disconnected": (Action.BACK_OFF, HealthSignal.DOWN),
    "body": (Action.BACK_OFF, HealthSignal.DOWN),
    "protocol": (Action.BACK_OFF, HealthSignal.DOWN),
    "timeout": (Action.BACK_OFF, HealthSignal.DOWN),
    "unexpected": (Action.BACK_OFF, HealthSignal.UNCLEAR),
    "code": (Action.MALFORMED, HealthSignal.UNCLEAR),
    "not_json": (Action.BACK_OFF, HealthSignal.UNCLEAR),
    "shape": (Action.MALFORMED, HealthSignal.UNCLEAR),
    "too_large": (Action.END, HealthSignal.UNCLEAR),
}
CODES = {
    **dict.fromkeys(range(300, 500), (Action.END, HealthSignal.UP)),
    **dict.fromkeys(range(500, 600), (Action.BACK_OFF, HealthSignal.UNCLEAR)),
    **dict.fromkeys((408, 409, 425), (Action.BACK_OFF, HealthSignal.UP)),
    **dict.fromkeys((502, 504), (Action.BACK_OFF, HealthSignal.DOWN)),
    404: (Action.GRACE, HealthSignal.UP),
    429: (Action.HOLD, HealthSignal.UP),
    503: (Action.HOLD, HealthSignal.DOWN),
}


def error_with(code: int, retry_after: float | None = None) -> APIStatusError:
    kind = status_error_type(code)
    assert kind is not None
    return kind(code, None, None, retry_after)


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_has_its_row(reason: str) -> None:
    """A fault without a status code of its own means what is promised, whatever error carries it."""
    for error in (APIConnectionError("x", reason), APIResponseValidationError("x", reason)):
        assert (rule_for(error).action, rule_for(error).signal) == REASONS[reason]


def test_each_code_has_its_row() -> None:
    """Each status code of an error means what is promised."""
    assert {code: (rule_for(error_with(code)).action, rule_for(error_with(code)).signal) for code in CODES} == CODES


def test_the_table_holds_nothing_else() -> None:
    """Each code and each reason stands in exactly one row, and each row but the last has some."""
    reasons = [reason for rule in RULES for reason in rule.reasons]
    codes = [code for rule in RULES for code in rule.codes]
    assert sorted(reasons) == sorted(REASONS)
    assert sorted(codes) == sorted(CODES)
    assert [rule for rule in RULES if not (rule.reasons or rule.codes)] == [UNUSABLE] == [RULES[-1]]
    assert all(bool(rule.reasons) != bool(rule.codes) for rule in RULES[:-1])
    assert len({rule.fault for rule in RULES}) == len(RULES)
    assert all(isinstance(rule.fault, str) for rule in RULES)


def test_each_action_and_each_evidence_says_what_it_is() -> None:
    """The documentation shows these in words, each its own."""
    assert all(isinstance(member.value, str) for member in [*Action, *HealthSignal])
    assert (len(Action), len(HealthSignal)) == (7, 4)


@pytest.mark.parametrize("error", [ClientClosedError("x"), ConfigurationError("x"), DistributeError("x")])
def test_what_was_never_sent_ends_the_wait_and_says_nothing_of_the_service(error: DistributeError) -> None:
    """A closed session or an address that can't be used is the end, and no evidence."""
    assert (rule_for(error).action, rule_for(error).signal) == (Action.END, HealthSignal.CUT)


def test_a_timeout_is_its_own_row() -> None:
    """An exchange that took too long is told from a connection that couldn't be made."""
    assert rule_for(APITimeoutError("x")).reasons == {"timeout"}
    assert rule_for(APIConnectionError("x")).reasons == {"connect"}
    assert rule_for(APIResponseValidationError("x")).reasons == {"shape"}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (error_with(429, 7.5), 7.5),
        (error_with(503, 7.5), 7.5),
        (error_with(429, 0.0), 0.0),
        (error_with(429), 0.0),
        (error_with(503), 0.0),
        (error_with(500, 7.5), 0.0),
        (error_with(404, 7.5), 0.0),
        (error_with(403, 7.5), 0.0),
        (error_with(302, 7.5), 0.0),
        (APIConnectionError("x"), 0.0),
        (APIResponseValidationError("x"), 0.0),
        (ClientClosedError("x"), 0.0),
    ],
)
def test_only_429_and_503_may_ask_for_a_pause(error: DistributeError, seconds: float) -> None:
    """The pause is what Retry-After says on those two codes, and nothing otherwise."""
    assert pause_of(error) == seconds
    assert isinstance(pause_of(error), float)


@pytest.mark.parametrize("code", CODES)
def test_which_answers_say_that_nothing_was_done(code: int) -> None:
    """A refusal and 503 do; a 303 says that it is done, and any other 5xx says nothing."""
    assert Fault.of(error_with(code)).surely_did_nothing == ((code < 500 and code != 303) or code == 503)


def submission(*, was_sent: bool) -> SubmissionState:
    policy = RequestPolicy(Pacing(), Retry(), retry_steps(Retry()), PacingMemory(Pacing()))
    state = SubmissionState(b"{}", policy, 0.0)
    if was_sent:
        state.before_sending()
    return state


@pytest.mark.parametrize("code", CODES)
def test_a_creation_that_was_sent_is_repeated_after_429_and_503_alone(code: int) -> None:
    """With these the service turned it away; all else ends it. The signal for the service is the same as ever."""
    fault = Fault.of(error_with(code))
    assert fault.signal is rule_for(fault.error).signal
    assert submission(was_sent=True).action_for(fault) is (Action.HOLD if code in {429, 503} else Action.END)


@pytest.mark.parametrize("reason", REASONS)
def test_a_creation_that_was_not_sent_is_like_any_request(reason: str) -> None:
    """Where nothing left there is nothing to fear; where something did, no lost answer is asked for again."""
    kind = APIConnectionError if REASONS[reason][0] is not Action.MALFORMED else APIResponseValidationError
    fault = Fault.of(kind("x", reason))
    assert submission(was_sent=False).action_for(fault) is fault.rule.action
    assert submission(was_sent=True).action_for(fault) is Action.END
    assert not fault.surely_did_nothing
