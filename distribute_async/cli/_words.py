"""What is said: text made harmless, answers, lines for pipes, JSON objects. Used by all commands; knows no library."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from distribute_async import ChatResult, DistributeError, TaskStatus, Transition
from distribute_async.cli._follow import Result

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# In JSON no string holds one as it is.
_LINE_BREAK = re.compile(r"\s*\n\s*")

# Where the library's words name its arguments, a person at a prompt wants the options.
_OPTIONS = {
    "allow_insecure=True": "--allow-insecure",
    "api_key=": "--api-key-file",
    "auth_scheme=": "--auth-scheme",
    "auth_scheme": "--auth-scheme",
    "base_url": "--base-url or DISTRIBUTE_BASE_URL",
    "max_completion_tokens": "--max-tokens",
    "pass ssl_context=": "name its certificate in SSL_CERT_FILE",
    "the kind of task": "--kind",
    "send fewer requests: Limits.max_requests_per_second limits all requests of a client": "try again later",
}


def say(line: str) -> None:
    """A line of data, at once: who reads the pipe wants to know now."""
    print(line, flush=True)


def note(line: str) -> None:
    """Say something that is no data."""
    print(line, file=sys.stderr)


def harmless(text: str) -> str:
    """Text whose control characters are spelt out, so that it can't steer a terminal; newlines and tabs stay."""
    return _CONTROLS.sub(lambda control: repr(control[0])[1:-1], text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Harmless text, without line breaks."""
    return harmless(" ".join(text.split()))


def error_words(error: DistributeError) -> str:
    """What the library says of an error, for who is at a prompt."""
    words = str(error)
    for argument, option in _OPTIONS.items():
        words = words.replace(argument, option)
    return one_line(words)


def tell_error(error: DistributeError | None) -> None:
    """Say on stderr what kept a task from its result, if anything did."""
    if error is not None:
        note(f"Error: {error_words(error)}")


def answer_text(result: Result) -> str:
    """An answer for a reader: the first choice's text, then its tool calls, one a line, or the URL of each file."""
    if not isinstance(result, ChatResult):
        return "\n".join(file.url for file in result.results if file.url)
    if not result.choices:
        return ""
    message = result.choices[0].message
    calls = [
        f"{call.function.name}({_LINE_BREAK.sub(' ', call.function.arguments)})" for call in message.tool_calls or ()
    ]
    return "\n".join(filter(None, [message.content, *calls]))


def change_line(task_id: str, elapsed: float, status: TaskStatus | None) -> str:
    """A change or an outcome for pipes: id, seconds, status."""
    return f"{one_line(task_id)} {elapsed:8.2f} {one_line(status or '-')}"


def json_line(value: dict[str, Any]) -> str:
    """One JSON object in one line of ASCII."""
    return json.dumps(value)


def transition_object(transition: Transition[Any]) -> dict[str, Any]:
    """A transition as JSON."""
    return {
        "event": "transition",
        "task_id": transition.task_id,
        "previous": transition.previous,
        "status": transition.status,
        "elapsed": round(transition.elapsed, 3),
        "polls": transition.polls,
    }


def outcome_object(
    task_id: str,
    status: TaskStatus | None,
    elapsed: float,
    *,
    result: Result | None,
    error: DistributeError | None,
    **more: Any,
) -> dict[str, Any]:
    """How following a task ended, as JSON."""
    return {
        "event": "outcome",
        "task_id": task_id,
        "status": status,
        "elapsed": round(elapsed, 3),
        **more,
        "result": None if result is None else result.to_dict(),
        "error": None if error is None else {"type": type(error).__name__, "message": error_words(error)},
    }
