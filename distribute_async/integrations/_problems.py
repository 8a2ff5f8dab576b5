"""What an error of this library is to somebody on the other side of the application. Pure; used by this package.

Bodies are problem details (RFC 9457) in fixed words. What the service said, the key, the URL and the attempts stay in
the application: they are in the error itself, for its log.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from http import HTTPStatus

from attrs import field, frozen

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    DistributeError,
    InvalidRequestError,
    InvalidTaskIdError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SubmitUncertainError,
    TaskFailedError,
    WaitTimeoutError,
)

CONTENT_TYPE = "application/problem+json"

_log = logging.getLogger("distribute_async.integrations")

_OUR_FAULT = HTTPStatus.INTERNAL_SERVER_ERROR, "This application can't use the inference service at the moment."
_BUSY = HTTPStatus.SERVICE_UNAVAILABLE, "The inference service is busy; try again later."
_LATE = HTTPStatus.GATEWAY_TIMEOUT, "The inference service takes too long to answer."
_ILL = HTTPStatus.BAD_GATEWAY, "The inference service didn't answer as it should."

# The first that fits counts.
_PROBLEMS: list[tuple[type[DistributeError], tuple[HTTPStatus, str]]] = [
    (InvalidTaskIdError, (HTTPStatus.BAD_REQUEST, "This is not the id of a task.")),
    (InvalidRequestError, (HTTPStatus.UNPROCESSABLE_ENTITY, "This can't be a task: a field of it isn't right.")),
    (NotFoundError, (HTTPStatus.NOT_FOUND, "There is no such task (any more).")),
    (BadRequestError, (HTTPStatus.BAD_REQUEST, "The inference service refuses this request.")),
    (TaskFailedError, (HTTPStatus.BAD_GATEWAY, "The task failed; the inference service gives no reason.")),
    (WaitTimeoutError, (HTTPStatus.GATEWAY_TIMEOUT, "The task takes longer than this; it goes on.")),
    (
        SubmitUncertainError,
        (HTTPStatus.BAD_GATEWAY, "The task may have been created, or not; trying again may make two."),
    ),
    (APITimeoutError, _LATE),
    (APIConnectionError, (HTTPStatus.BAD_GATEWAY, "The inference service can't be reached.")),
    (RateLimitError, _BUSY),
    (ClientClosedError, (HTTPStatus.SERVICE_UNAVAILABLE, "This application is stopping; try again later.")),
    (AuthenticationError, _OUR_FAULT),
    (PermissionDeniedError, _OUR_FAULT),
    (ConfigurationError, _OUR_FAULT),
    (APIResponseValidationError, _ILL),
    (APIStatusError, _ILL),
    (DistributeError, _OUR_FAULT),
]
# Status codes of the service that say as much of the application behind which it is.
_AS_THEY_ARE = {503: _BUSY, 504: _LATE}


@frozen(kw_only=True)
class Problem:
    """An error, as the answer to a request."""

    error: str
    status: HTTPStatus
    detail: str
    #: The field of the request that isn't right, where it is known.
    parameter: str | None = None
    headers: Mapping[str, str] = field(factory=dict[str, str])

    def to_dict(self) -> dict[str, object]:
        """The JSON object: RFC 9457's `title`, `status` and `detail`, and the name of the error's class as `error`.

        Also the field that isn't right as `parameter`, where it is known.
        """
        told: dict[str, object] = {"title": self.status.phrase, "status": self.status.value, "detail": self.detail}
        told["error"] = self.error
        if self.parameter is not None:
            told["parameter"] = self.parameter
        return told

    @property
    def body(self) -> bytes:
        """The same, as the body of a response."""
        return json.dumps(self.to_dict()).encode()


def problem_of(error: DistributeError) -> Problem:
    """What to answer where a request ends in `error`."""
    status, detail = next(problem for kind, problem in _PROBLEMS if isinstance(error, kind))
    if isinstance(error, APIStatusError):
        status, detail = _AS_THEY_ARE.get(error.status_code, (status, detail))
    told = error.last_error if isinstance(error, WaitTimeoutError) else error
    pause = told.retry_after if isinstance(told, APIStatusError) else None
    headers = {} if pause is None else {"Retry-After": str(math.ceil(pause))}
    # Of other errors it may be a setting of this application, which is nobody else's business.
    parameter = getattr(error, "parameter", None) if status == HTTPStatus.UNPROCESSABLE_ENTITY else None
    return Problem(error=type(error).__name__, status=status, detail=detail, parameter=parameter, headers=headers)


def logged_problem_of(error: DistributeError) -> Problem:
    """The same, and a line in the log where it is more than a mistake in a request, or a field of it isn't right."""
    problem = problem_of(error)
    if isinstance(error, InvalidRequestError):
        _log.warning("%s: field %.100r, told as %d", problem.error, error.parameter, problem.status)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        code = f" {error.status_code}" if isinstance(error, APIStatusError) else ""
        _log.warning("%s%s for task %s, told as %d", problem.error, code, error.task_id, problem.status)
    return problem
