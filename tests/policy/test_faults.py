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
)
from distribute_async._policy.faults import (
    RULES,
    UNUSABLE,
    Action,
    Evidence,
    creation_rule_for,
    has_surely_done_nothing,
    pause_of,
    rule_for,
)
from distribute_async._wire.codec import status_error_type

REASONS = {
    "stale": (Action.RETRY_NOW, Evidence.DOWN),
    "connect": (Action.CONNECT, Evidence.DOWN),
    "dns": (Action.CONNECT, Evidence.DOWN),
    "tls": (Action.CONNECT, Evidence.DOWN),
    "connect_timeout": (Action.CONNECT, Evidence.DOWN),
    "cancelled": (Action.BACK_OFF, Evidence.UNCLEAR),
    "certificate": (Action.END, Evidence.UNCLEAR),
    "proxy": (Action.CONNECT, Evidence.DOWN),
    "disconnected": (Action.BACK_OFF, Evidence.DOWN),
    "body": (Action.BACK_OFF, Evidence.DOWN),
    "protocol": (Action.BACK_OFF, Evidence.DOWN),
    "timeout": (Action.BACK_OFF, Evidence.DOWN),
    "unexpected": (Action.BACK_OFF, Evidence.UNCLEAR),
    "code": (Action.STRIKE, Evidence.UNCLEAR),
    "not_json": (Action.BACK_OFF, Evidence.UNCLEAR),
    "shape": (Action.STRIKE, Evidence.UNCLEAR),
    "too_large": (Action.END, Evidence.UNCLEAR),
}
CODES = {
    **dict.fromkeys(range(300, 500), (Action.END, Evidence.UP)),
    **dict.fromkeys(range(500, 600), (Action.BACK_OFF, Evidence.UNCLEAR)),
    **dict.fromkeys((408, 409, 425), (Action.BACK_OFF, Evidence.UP)),
    **dict.fromkeys((502, 504), (Action.BACK_OFF, Evidence.DOWN)),
    404: (Action.GRACE, Evidence.UP),
    429: (Action.HOLD, Evidence.UP),
    503: (Action.HOLD, Evidence.DOWN),
}


def error_with(code: int, retry_after: float | None = None) -> APIStatusError:
    kind = status_error_type(code)
    assert kind is not None
    return kind(code, None, None, retry_after)


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_has_its_row(reason: str) -> None:
    """A fault without a status code of its own means what is promised, whatever error carries it."""
    for error in (APIConnectionError("x", reason), APIResponseValidationError("x", reason)):
        assert (rule_for(error).action, rule_for(error).evidence) == REASONS[reason]


def test_each_code_has_its_row() -> None:
    """Each status code of an error means what is promised."""
    assert {code: (rule_for(error_with(code)).action, rule_for(error_with(code)).evidence) for code in CODES} == CODES


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
    assert all(isinstance(member.value, str) for member in [*Action, *Evidence])
    assert (len(Action), len(Evidence)) == (7, 4)


@pytest.mark.parametrize("error", [ClientClosedError("x"), ConfigurationError("x"), DistributeError("x")])
def test_what_was_never_sent_ends_the_wait_and_says_nothing_of_the_service(error: DistributeError) -> None:
    """A closed session or an address that can't be used is the end, and no evidence."""
    assert (rule_for(error).action, rule_for(error).evidence) == (Action.END, Evidence.CUT)


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
    assert has_surely_done_nothing(error_with(code)) == ((code < 500 and code != 303) or code == 503)


@pytest.mark.parametrize("code", CODES)
def test_a_creation_that_was_sent_is_repeated_after_429_and_503_alone(code: int) -> None:
    """With these the service turned it away; all else ends it. The evidence for the service is the same as ever."""
    error = error_with(code)
    rule = creation_rule_for(error, was_sent=True)
    assert rule.evidence is rule_for(error).evidence
    assert rule.action is (Action.HOLD if code in {429, 503} else Action.END)


@pytest.mark.parametrize("reason", REASONS)
def test_a_creation_that_was_not_sent_is_like_any_request(reason: str) -> None:
    """Where nothing left there is nothing to fear; where something did, no lost answer is asked for again."""
    kind = APIConnectionError if REASONS[reason][0] is not Action.STRIKE else APIResponseValidationError
    error = kind("x", reason)
    assert creation_rule_for(error, was_sent=False) is rule_for(error)
    assert creation_rule_for(error, was_sent=True).action is Action.END
    assert not has_surely_done_nothing(error)
