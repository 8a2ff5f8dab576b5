"""`distribute-async check`."""

from __future__ import annotations

import os
import statistics
import time
import uuid
from typing import Any

import click

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    DistributeClient,
    DistributeError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    Retry,
    WaitTimeoutError,
)
from distribute_async.cli._codes import OK, TROUBLE
from distribute_async.cli._service import KEY_VARIABLE, SERVICE, URL_VARIABLE, new_client, perform, service_options
from distribute_async.cli._words import note, one_line, say, tell_error

# After the first answer, which makes the connection.
_FURTHER_ASKS = 4


@click.command(short_help="Tell whether the service and the key work.")
@service_options(10, "The longest wait for one answer.")
def check(*, timeout: float, **settings: Any) -> int:
    """Tell whether the service can be reached and takes the key, and how fast it answers.

    It asks five times for a task that doesn't exist, which creates nothing and costs nothing. What is wrong, and
    what to do, is on standard error; the exit code is 0 where all is well.

    \b
    Examples:
      distribute-async check
      distribute-async check --timeout 3 && distribute-async wait ID
    """
    client = new_client(**settings, retry=Retry(attempts=1))
    _say_settings(**settings)
    return perform(_ask(client, timeout), lambda: ())


def _say_settings(*, base_url: str | None, api_key_file: str | None, **_: Any) -> None:
    # The address and the key are as the client has taken them just now; the key itself is nobody's business.
    named = os.environ.get(URL_VARIABLE)
    source = "from --base-url" if base_url else f"from {URL_VARIABLE}" if named else "the default"
    say(f"Service  {one_line(base_url or named or SERVICE)} ({source})")
    say(f"Key      from {KEY_VARIABLE if api_key_file is None else one_line(api_key_file)}")


async def _ask(client: DistributeClient, timeout: float) -> int:
    took = []
    async with client:
        for _ in range(1 + _FURTHER_ASKS):
            started = time.perf_counter()
            error = await _fault(client, timeout)
            took.append(1000 * (time.perf_counter() - started))
            if error is not None:
                tell_error(error)
                note(f"What to do: {_advice(error)}")
                return TROUBLE
    say("Answer   it knows no task with a made-up id: service and key are fine")
    say(f"Speed    {took[0]:.0f} ms with connecting, then {statistics.median(took[1:]):.0f} ms")
    return OK


async def _fault(client: DistributeClient, timeout: float) -> DistributeError | None:
    """What is wrong with asking for a task that doesn't exist; None where the service says that it doesn't."""
    try:
        await client.fetch(uuid.uuid4(), timeout=timeout)
    except NotFoundError as error:
        # With words of its own it is the service that answers so, and not just any web server.
        return None if error.message else error
    except DistributeError as error:
        return error.with_context(task_id=None, last_status=None, attempts=0, elapsed=0.0)
    return APIResponseValidationError("the answer is a result for an id that was made up just now")


def _advice(error: DistributeError) -> str:
    if isinstance(error, APIConnectionError) and error.reason in _CONNECTION_ADVICE:
        return _CONNECTION_ADVICE[error.reason]
    return next(advice for kind, advice in _ADVICE if isinstance(error, kind))


_ADDRESS = f"check the address in --base-url or {URL_VARIABLE}"
_CONNECTION_ADVICE = {
    "dns": f"{_ADDRESS}, for its spelling too, and whether this machine has a network.",
    "connect": f"{_ADDRESS}, whether anything listens there (start the emulator?), and what a firewall forbids.",
    "certificate": f"{_ADDRESS}; something on the way may open TLS, as companies do.",
    "tls": f"{_ADDRESS}: is it https there? Something on the way may open TLS, as companies do.",
}
# The first that fits counts.
_ADVICE: list[tuple[type[DistributeError], str]] = [
    (APITimeoutError, "try again, with a longer --timeout too; a firewall may drop what is sent."),
    (WaitTimeoutError, "try again, with a longer --timeout too; a firewall may drop what is sent."),
    (APIConnectionError, f"try again; if it stays so, {_ADDRESS}, and what is on the way there."),
    (AuthenticationError, "the service is there, and refuses the key: compare it with the one in your account."),
    (PermissionDeniedError, "the service is there and knows the key: look at your account."),
    (RateLimitError, "the service is there, and wants fewer requests: wait a while."),
    (InternalServerError, "something is there, and in trouble: try again later."),
    (APIStatusError, f"something is there, but doesn't answer as the service does: {_ADDRESS}."),
    (DistributeError, f"something is there, but doesn't answer as the service does: {_ADDRESS}."),
]
