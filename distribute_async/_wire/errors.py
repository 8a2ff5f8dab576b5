"""The exceptions that this package raises, as one tree. Pure; everybody may use it.

    DistributeError
    ├─ ConfigurationError (ValueError)            no key, bad base_url, key that cannot be a header value
    ├─ InvalidTaskIdError (ValueError)            not a version 4 UUID; nothing was sent
    ├─ InvalidRequestError (ValueError)           an invalid field of a request to create a task; nothing was sent
    ├─ ClientClosedError                          the client was closed before or while waiting
    ├─ APIConnectionError                         no complete response: refused, reset, DNS, TLS, proxy, cut body
    │   └─ APITimeoutError                        one HTTP exchange took too long
    ├─ APIStatusError                             a response with an error status code (other 3xx/4xx as itself)
    │   ├─ BadRequestError                        400, 422
    │   ├─ AuthenticationError                    401
    │   ├─ PermissionDeniedError                  402, 403
    │   ├─ NotFoundError                          404, 410
    │   ├─ RateLimitError                         429
    │   └─ InternalServerError                    5xx
    ├─ APIResponseValidationError                 a response that is not what the API promises
    ├─ WaitTimeoutError (TimeoutError)            the wait's own timeout passed; the task itself is untouched
    ├─ SubmitUncertainError                       a task may have been created, or not: no response says
    └─ TaskFailedError                            the task ended in ERROR

All can be pickled and copied. None refers to an exception or object of aiohttp, cattrs or json: not as its cause or
context, nor in an attribute.
"""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import ClassVar, Self

from distribute_async._wire.models import TaskResult
from distribute_async._wire.status import TaskStatus


class DistributeError(Exception):
    """The base class of all errors of this package.

    An error that a wait raises also has:

    - `task_id`: the task; None outside of a wait.
    - `last_status`: the newest status seen; None if there was no good response.
    - `attempts`: the number of attempts, that is, of HTTP exchanges.
    - `elapsed`: seconds since the wait began.
    """

    task_id: str | None = None
    last_status: TaskStatus | None = None
    attempts: int = 0
    elapsed: float = 0.0
    # Set by `WaitTimeoutError` and `SubmitUncertainError`.
    last_error: DistributeError | None = None

    def _text(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__

    def __str__(self) -> str:
        if self.task_id is None:
            return self._text()
        return (
            f"{self._text()} [task {self.task_id}, last status {self.last_status or 'unknown'}, "
            f"attempts {self.attempts}, after {self.elapsed:.1f} s]"
        )

    def with_context(
        self, *, task_id: str | None, last_status: TaskStatus | None, attempts: int, elapsed: float
    ) -> Self:
        """A copy of this error with these attributes. Each wait raises its own, with its own traceback."""
        own = copy.copy(self)
        own.task_id, own.last_status, own.attempts, own.elapsed = task_id, last_status, attempts, elapsed
        if self.last_error is not None:
            own.last_error = self.last_error.with_context(
                task_id=task_id, last_status=last_status, attempts=attempts, elapsed=elapsed
            )
        return own


class ConfigurationError(DistributeError, ValueError):
    """The client's arguments or environment are invalid. Nothing was sent."""


class InvalidTaskIdError(DistributeError, ValueError):
    """An id is not a version 4 UUID as text. Nothing was sent."""


class InvalidRequestError(DistributeError, ValueError):
    """A field of a request to create a task is invalid. Nothing was sent. `parameter` is the name of the field."""

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message, parameter)
        self.parameter = parameter


class ClientClosedError(DistributeError):
    """The client, or the session given to it, was closed before the call or during it."""


class APIConnectionError(DistributeError):
    """An HTTP exchange ended without a complete response.

    `reason` is one of "connect", "dns", "tls", "certificate", "proxy", "disconnected", "stale" (the server closed a
    reused connection), "body" (a cut or broken body), "protocol" (the response isn't valid HTTP) and "unexpected". For
    `APITimeoutError` it is "timeout".
    """

    def __init__(self, message: str, reason: str = "connect") -> None:
        super().__init__(message, reason)
        self.reason = reason


class APITimeoutError(APIConnectionError):
    """One HTTP exchange took longer than `Limits.connect_timeout` or `Limits.exchange_timeout`."""

    def __init__(self, message: str, reason: str = "timeout") -> None:
        super().__init__(message, reason)


class APIStatusError(DistributeError):
    """The service, or a proxy or gateway before it, responded with an error status code.

    - `status_code`: the HTTP status code.
    - `message`: the service's own message; None if there is none.
    - `request_id`: from the `x-request-id` header; None if there is none.
    - `retry_after`: seconds from the `Retry-After` header (RFC 9110 §10.2.3); None if it is missing or invalid.
    """

    _hint: ClassVar[str] = ""

    def __init__(
        self,
        status_code: int,
        message: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status_code, message, request_id, retry_after)
        self.status_code = status_code
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after

    def _text(self) -> str:
        try:
            status_line = f"HTTP {self.status_code} {HTTPStatus(self.status_code).phrase}"
        except ValueError:
            status_line = f"HTTP {self.status_code}"
        message = f": {self.message}" if self.message else ""
        hint = self._hint
        if 300 <= self.status_code < 400:
            hint = "redirects are not followed, to protect the API key: set base_url to the final address"
        return f"{status_line}{message}" + (f" ({hint})" if hint else "")


class BadRequestError(APIStatusError):
    """400 or 422: the service rejected the request."""


class AuthenticationError(APIStatusError):
    """401: the service rejected the API key."""

    _hint = "check the key in DISTRIBUTE_API_KEY or api_key=, and auth_scheme= if a gateway needs one"


class PermissionDeniedError(APIStatusError):
    """402 or 403: the API key is valid, but the request is not allowed or not paid."""

    _hint = "check the account's balance and what this key may do"


class NotFoundError(APIStatusError):
    """404 or 410: the task doesn't exist, or no longer, or `base_url` is wrong."""

    _hint = "no such task, or a wrong address: check the id, the kind of task and base_url"


class RateLimitError(APIStatusError):
    """429: too many requests. `retry_after` is how long to wait, if the service says so."""

    _hint = "send fewer requests: Limits.max_requests_per_second limits all requests of a client"


class InternalServerError(APIStatusError):
    """5xx: the service, or a proxy or gateway before it, failed."""


class APIResponseValidationError(DistributeError):
    """A response is not what the API promises.

    The message names the path of the field, never its value. `reason` is one of "not_json" (empty, HTML or other text
    that isn't JSON), "shape" (JSON of the wrong shape), "code" (a status code that the API doesn't define) and
    "too_large" (over `Limits.max_body_bytes`).
    """

    def __init__(self, message: str, reason: str = "shape") -> None:
        super().__init__(message, reason)
        self.reason = reason


class WaitTimeoutError(DistributeError, TimeoutError):
    """The timeout of a wait passed. The task itself is not affected: wait again with the same id to continue.

    `last_error` is the newest error since the last good response; None if there was none.
    """

    def __init__(self, message: str, last_error: DistributeError | None = None) -> None:
        super().__init__(message, last_error)
        self.last_error = last_error

    def _text(self) -> str:
        if self.last_error is None:
            return super()._text()
        return f"{super()._text()}; the last fault was: {self.last_error._text()}"  # noqa: SLF001 - the same class


class SubmitUncertainError(DistributeError):
    """A request to create a task may have arrived, but no response says so. It is not sent again.

    The API has no list of tasks and no idempotency key, so there is no way to find out. Submit again if a second task,
    which may be billed, does less harm than none. `last_error` is the error; None if the call's timeout passed.
    """

    def __init__(self, last_error: DistributeError | None = None) -> None:
        super().__init__(last_error)
        self.last_error = last_error

    def _text(self) -> str:
        why = "the timeout passed" if self.last_error is None else self.last_error._text()  # noqa: SLF001 - as above
        return (
            f"a task may have been created or not, since the request may have arrived ({why}); "
            "submitting again may create, and bill, a second one"
        )


class TaskFailedError(DistributeError):
    """The task ended in ERROR. `result` is the last result, as sent; the API has no field for a reason."""

    def __init__(self, result: TaskResult) -> None:
        super().__init__(result)
        self.result = result

    def _text(self) -> str:
        return f"the task ended in {self.result.status}; the service gives no reason"
