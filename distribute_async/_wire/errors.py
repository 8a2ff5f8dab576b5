"""The errors, one tree: whatever goes wrong becomes one of these. Uses `models`, `status`; everybody may use it.

    DistributeError
    ├─ ConfigurationError (ValueError)            no key, bad base_url, key that cannot be a header value
    ├─ InvalidTaskIdError (ValueError)            not a version 4 UUID; nothing was sent
    ├─ InvalidRequestError (ValueError)           a field of a new task that can't be right; nothing was sent
    ├─ ClientClosedError                          the client was closed before or while waiting
    ├─ APIConnectionError                         no whole answer: refused, reset, DNS, TLS, proxy, cut body
    │   └─ APITimeoutError                        one HTTP exchange took too long
    ├─ APIStatusError                             an answer with an error's status code (other 3xx/4xx as itself)
    │   ├─ BadRequestError                        400, 422
    │   ├─ AuthenticationError                    401
    │   ├─ PermissionDeniedError                  402, 403
    │   ├─ NotFoundError                          404, 410
    │   ├─ RateLimitError                         429
    │   └─ InternalServerError                    5xx
    ├─ APIResponseValidationError                 an answer that is not what the API promises
    ├─ WaitTimeoutError (TimeoutError)            the wait's own timeout passed; the task itself is untouched
    ├─ SubmitUncertainError                       a task may have been created, or not: nobody here can know
    └─ TaskFailedError                            the task ended in ERROR

All pickle and copy. None holds an aiohttp, cattrs or JSON object, as itself, its cause, its context or an attribute.
"""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import ClassVar, Self

from distribute_async._wire.models import TaskResult
from distribute_async._wire.status import TaskStatus


class DistributeError(Exception):
    """The base of everything that this library raises on its own account.

    Out of a wait it also says what the wait knew: `task_id`, `last_status` (None: no answer yet), `attempts`
    (HTTP exchanges counted) and `elapsed` (seconds of loop time).
    """

    task_id: str | None = None
    last_status: TaskStatus | None = None
    attempts: int = 0
    elapsed: float = 0.0
    # What `WaitTimeoutError` and `SubmitUncertainError` tell besides.
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
        """A copy for one waiter that says what its wait knew (a traceback belongs to one raise)."""
        own = copy.copy(self)
        own.task_id, own.last_status, own.attempts, own.elapsed = task_id, last_status, attempts, elapsed
        if self.last_error is not None:
            own.last_error = self.last_error.with_context(
                task_id=task_id, last_status=last_status, attempts=attempts, elapsed=elapsed
            )
        return own


class ConfigurationError(DistributeError, ValueError):
    """The client was set up in a way that can't work; nothing was sent."""


class InvalidTaskIdError(DistributeError, ValueError):
    """An id that the specification's pattern refuses; nothing was sent."""


class InvalidRequestError(DistributeError, ValueError):
    """A request to create a task that can't be right; nothing was sent. `parameter` is the name of the field."""

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message, parameter)
        self.parameter = parameter


class ClientClosedError(DistributeError):
    """The client, or the session given to it, was closed before or while waiting."""


class APIConnectionError(DistributeError):
    """The exchange with the service brought no whole answer.

    `reason` is one word: "connect", "dns", "tls", "certificate", "proxy", "disconnected", "stale", "body",
    "protocol" or "unexpected"; "timeout" for `APITimeoutError`.
    """

    def __init__(self, message: str, reason: str = "connect") -> None:
        super().__init__(message, reason)
        self.reason = reason


class APITimeoutError(APIConnectionError):
    """One HTTP exchange took longer than `Limits.connect_timeout` or `Limits.exchange_timeout`."""

    def __init__(self, message: str, reason: str = "timeout") -> None:
        super().__init__(message, reason)


class APIStatusError(DistributeError):
    """The service, or something before it, answered with the status code of an error.

    `status_code`; `message`, the service's own words or None; `request_id` from the `x-request-id` header or None;
    `retry_after`, seconds from the `Retry-After` header (RFC 9110 §10.2.3), None where none makes sense.
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
            answer = f"HTTP {self.status_code} {HTTPStatus(self.status_code).phrase}"
        except ValueError:
            answer = f"HTTP {self.status_code}"
        said = f": {self.message}" if self.message else ""
        hint = self._hint
        if 300 <= self.status_code < 400:
            hint = "redirects are not followed, so that the key stays home: set base_url to the final address"
        return f"{answer}{said}" + (f" ({hint})" if hint else "")


class BadRequestError(APIStatusError):
    """400 or 422: the service refuses what was sent."""


class AuthenticationError(APIStatusError):
    """401: the service refuses the key."""

    _hint = "check the key in DISTRIBUTE_API_KEY or api_key=, and auth_scheme= if a gateway wants one"


class PermissionDeniedError(APIStatusError):
    """402 or 403: the key is known, and what it asks for is not allowed or not paid."""

    _hint = "check the account's balance and what this key may do"


class NotFoundError(APIStatusError):
    """404 or 410: the service knows no such task (any more), or there is nothing at this address."""

    _hint = "no such task, or nothing at this address: check the id, the kind of task and base_url"


class RateLimitError(APIStatusError):
    """429: too many requests; `retry_after` says for how long, where the service says so."""

    _hint = "fewer requests: Limits.max_requests_per_second bounds all that one client sends"


class InternalServerError(APIStatusError):
    """5xx: the service, or a proxy before it, failed."""


class APIResponseValidationError(DistributeError):
    """An answer that is not what the API promises.

    The message names the path of the field, never its value. `reason` is one word: "not_json" (empty, HTML, no
    JSON), "shape" (JSON of the wrong shape), "code" (a status code that it can't mean), "too_large" (over
    `Limits.max_body_bytes`).
    """

    def __init__(self, message: str, reason: str = "shape") -> None:
        super().__init__(message, reason)
        self.reason = reason


class WaitTimeoutError(DistributeError, TimeoutError):
    """The wait's own timeout passed. The task itself is untouched: wait again with the same id to go on.

    `last_error` is the newest fault since the last good answer, None where the service was well.
    """

    def __init__(self, message: str, last_error: DistributeError | None = None) -> None:
        super().__init__(message, last_error)
        self.last_error = last_error

    def _text(self) -> str:
        if self.last_error is None:
            return super()._text()
        return f"{super()._text()}; the last fault was: {self.last_error._text()}"  # noqa: SLF001 - of our own tree


class SubmitUncertainError(DistributeError):
    """A request to create a task may have arrived, and no answer says what became of it: it is not sent again.

    The API has no list of tasks and no idempotency key, so nobody can find out. Submit again if a second task (which
    may be billed) does less harm than none. `last_error` is what went wrong, None where the call's own timeout passed.
    """

    def __init__(self, last_error: DistributeError | None = None) -> None:
        super().__init__(last_error)
        self.last_error = last_error

    def _text(self) -> str:
        why = "the timeout passed" if self.last_error is None else self.last_error._text()  # noqa: SLF001 - our own
        return (
            f"a task may have been created or not, since the request may have arrived ({why}); "
            "submitting again may create, and bill, a second one"
        )


class TaskFailedError(DistributeError):
    """The task ended in ERROR. `result` is the whole last answer; the API has no field for a reason."""

    def __init__(self, result: TaskResult) -> None:
        super().__init__(result)
        self.result = result

    def _text(self) -> str:
        return f"the task ended in {self.result.status}; the service gives no reason"
