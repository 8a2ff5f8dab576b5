"""What our errors are to those on the other side of an application."""

from __future__ import annotations

import logging
from http import HTTPStatus

import pytest

import distribute_async
from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ChatResult,
    ClientClosedError,
    ConfigurationError,
    DistributeError,
    InternalServerError,
    InvalidRequestError,
    InvalidTaskIdError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SubmitUncertainError,
    TaskFailedError,
    TaskStatus,
    WaitTimeoutError,
)
from distribute_async.integrations import _problems
from distribute_async.integrations._problems import logged_problem_of, problem_of

SECRET = "5ec2e7c0ffee5ec2e7c0ffee5ec2e7c0 https://inner.example"

FAILED = ChatResult(status=TaskStatus.ERROR, created=1.0, model=SECRET)
CASES: list[tuple[DistributeError, int]] = [
    (InvalidTaskIdError(SECRET), 400),
    (InvalidRequestError(SECRET, "messages"), 422),
    (BadRequestError(400, SECRET), 400),
    (BadRequestError(422, SECRET), 400),
    (NotFoundError(404, SECRET), 404),
    (NotFoundError(410, SECRET), 404),
    (ConfigurationError(SECRET), 500),
    (AuthenticationError(401, SECRET), 500),
    (PermissionDeniedError(402, SECRET), 500),
    (DistributeError(SECRET), 500),
    (TaskFailedError(FAILED), 502),
    (SubmitUncertainError(InternalServerError(503, SECRET)), 502),
    (APIConnectionError(SECRET), 502),
    (APIResponseValidationError(SECRET), 502),
    (InternalServerError(500, SECRET), 502),
    (APIStatusError(307, SECRET), 502),
    (APIStatusError(418, SECRET), 502),
    (RateLimitError(429, SECRET), 503),
    (InternalServerError(503, SECRET), 503),
    (ClientClosedError(SECRET), 503),
    (WaitTimeoutError(SECRET), 504),
    (APITimeoutError(SECRET), 504),
    (InternalServerError(504, SECRET), 504),
]


@pytest.mark.parametrize(("error", "status"), CASES, ids=lambda case: type(case).__name__)
def test_each_error_has_its_answer(error: DistributeError, status: int) -> None:
    """Each error is a fitting status code and words of ours, none of the service's and nothing of the wait."""
    told = error.with_context(task_id=SECRET, last_status=TaskStatus(SECRET), attempts=7, elapsed=1.0)
    problem = problem_of(told)
    assert problem.status == status
    assert problem.to_dict()["error"] == type(error).__name__
    assert not any(word in problem.body.decode() for word in SECRET.split())
    assert problem.headers == {}


def test_no_error_is_forgotten() -> None:
    """The table above has each error that the library exports."""
    exported = [getattr(distribute_async, name) for name in distribute_async.__all__]
    errors = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, DistributeError)}
    assert errors == {type(error) for error, _ in CASES}


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (RateLimitError(429, None, None, 7.2), "8"),
        (InternalServerError(503, None, None, 30.0), "30"),
        (WaitTimeoutError("", InternalServerError(503, None, None, 5.0)), "5"),
    ],
)
def test_a_known_pause_is_passed_on(error: DistributeError, retry_after: str) -> None:
    """Where the service says when to come back, so do we, in whole seconds."""
    assert problem_of(error).headers == {"Retry-After": retry_after}


@pytest.mark.parametrize(("status", "named"), [(422, {"parameter": "messages"}), (400, {}), (500, {})])
def test_the_field_that_is_not_right_is_named(
    monkeypatch: pytest.MonkeyPatch, status: int, named: dict[str, str]
) -> None:
    """Where a request can't be right its answer names the field; no other answer names what an error does."""

    class FieldError(DistributeError):
        parameter = "messages"

    row = FieldError, (HTTPStatus(status), "Words of ours.")
    monkeypatch.setattr(_problems, "_PROBLEMS", [row, *_problems._PROBLEMS])  # noqa: SLF001
    told = problem_of(FieldError(SECRET)).to_dict()
    assert {name: told[name] for name in told.keys() & {"parameter"}} == named
    assert (told["status"], told["detail"]) == (status, "Words of ours.")


def test_what_is_no_mistake_of_a_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log has a line for answers from 500 on, and the name of a wrong field, but nobody's words."""
    with caplog.at_level(logging.INFO, "distribute_async.integrations"):
        logged_problem_of(NotFoundError(404, SECRET))
        logged_problem_of(AuthenticationError(401, SECRET))
        logged_problem_of(InvalidRequestError(SECRET, "max\ntokens"))
    assert caplog.messages == [
        "AuthenticationError 401 for task None, told as 500",
        r"InvalidRequestError: field 'max\ntokens', told as 422",
    ]
