"""How things look: lines, JSON objects, tables, the live one included. Used by `_commands` and `_demo`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distribute_async import ChatResult, DistributeError, TaskStatus, Transition
from distribute_async.cli._follow import Followed, follow

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# In JSON no string holds one as it is.
_LINE_BREAK = re.compile(r"\s*\n\s*")

_STYLES = {
    "QUEUED": "cyan",
    "POSTPONED": "yellow",
    "ASSIGNED_CONNECTIONS": "bright_blue",
    "PROCESSING": "magenta",
    "COMPLETED": "green",
    "ERROR": "bold red",
}

# Where the library's words name its arguments, a person at a prompt wants the options.
_OPTIONS = {
    "allow_insecure=True": "--allow-insecure",
    "api_key=": "--api-key-file",
    "auth_scheme=": "--auth-scheme",
    "auth_scheme": "--auth-scheme",
    "base_url": "--base-url or DISTRIBUTE_BASE_URL",
}

_REDRAW = 0.2  # seconds


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the program from within; `_commands` knows what to do


def new_console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: no markup, no emoji codes, no guessed colours."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def is_screen(console: Console) -> bool:
    """Whether something can be redrawn there. (rich's own answer also goes by FORCE_COLOR.)"""
    return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal


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


def answer_text(result: ChatResult) -> str:
    """The first choice for a reader: its text, then its tool calls, one a line, as `name(arguments)`."""
    if not result.choices:
        return ""
    message = result.choices[0].message
    calls = [
        f"{call.function.name}({_LINE_BREAK.sub(' ', call.function.arguments)})" for call in message.tool_calls or ()
    ]
    return "\n".join(filter(None, [message.content, *calls]))


def transition_line(transition: Transition[ChatResult]) -> str:
    """A transition for pipes: id, seconds, status."""
    return f"{transition.task_id} {transition.elapsed:8.2f} {one_line(transition.status or '')}"


def transition_object(transition: Transition[ChatResult]) -> dict[str, Any]:
    """A transition as JSON."""
    return {
        "event": "transition",
        "task_id": transition.task_id,
        "previous": transition.previous,
        "status": transition.status,
        "elapsed": round(transition.elapsed, 3),
        "polls": transition.polls,
    }


def outcome_object(task: Followed) -> dict[str, Any]:
    """How following a task ended, as JSON."""
    result, error = task.watch.result, task.error
    return {
        "event": "outcome",
        "task_id": task.watch.task_id,
        "status": task.watch.status,
        "elapsed": round(task.elapsed, 3),
        "polls": task.polls,
        "result": result.to_dict() if result is not None and task.has_ended else None,
        "error": None if error is None else {"type": type(error).__name__, "message": error_words(error)},
    }


def json_line(value: dict[str, Any]) -> str:
    """One JSON object in one line of ASCII."""
    return json.dumps(value)


def status_text(status: TaskStatus | None) -> Text:
    """A status in its colour."""
    if status is None:
        return Text("no answer", "dim")
    return Text(one_line(status), _STYLES.get(status, "" if status.is_known else "bold yellow"))


def path_text(history: Iterable[Transition[ChatResult]]) -> Text:
    """The statuses that a task went through."""
    return Text(" → ", "dim").join(status_text(transition.status) for transition in history)


def latest_text(task: Followed) -> Text:
    """The last column: the way so far, and in the end the answer's first words or what went wrong."""
    if task.error is not None:
        return Text(one_line(str(task.error)), "red")
    if task.is_over and task.watch.result is not None:
        return Text(one_line(answer_text(task.watch.result)))
    earlier = task.watch.history[-4:-1]
    return path_text(earlier) if earlier else Text()


def table(tasks: Sequence[Followed], width: int) -> Table:
    """The tasks as they stand, one line each; what a narrow terminal has no room for is left out."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    room = width - 22  # the longest status and its gap
    longest = max(len(task.label) for task in tasks)
    spare = room - min(longest, 16)
    has_time, has_polls = spare >= 10, spare >= 17
    room -= 10 * has_time + 7 * has_polls
    label = min(longest, room)
    has_latest = room - label >= 14
    drawn.add_column("task", width=label, no_wrap=True)
    drawn.add_column("status", width=20, no_wrap=True)
    if has_time:
        drawn.add_column("time", width=8, justify="right", no_wrap=True)
    if has_polls:
        drawn.add_column("polls", width=5, justify="right", no_wrap=True)
    if has_latest:
        drawn.add_column("so far / answer", width=room - label - 2, no_wrap=True)
    for task in tasks:
        cells = [Text(task.label), status_text(task.watch.status)]
        cells += [Text(f"{task.elapsed:.1f} s")] * has_time + [Text(str(task.polls))] * has_polls
        drawn.add_row(*cells, *[latest_text(task)] * has_latest)
    return drawn


async def follow_on_screen(tasks: Sequence[Followed], console: Console, *, transient: bool = False) -> None:
    """Follow tasks in a live table; `transient` wipes it in the end."""
    with Live(console=console, auto_refresh=False, transient=transient) as live:

        def draw() -> None:
            live.update(table(tasks, console.width), refresh=True)

        async def keep_drawing() -> None:
            while True:
                draw()
                await asyncio.sleep(_REDRAW)

        async with asyncio.TaskGroup() as group:
            artist = group.create_task(keep_drawing())
            await follow(tasks, tell_nothing)
            artist.cancel()
        draw()


def tell_nothing(_task: Followed, _transition: Transition[ChatResult] | None) -> None:
    """A `Tell` that says nothing."""


def say(line: str) -> None:
    """A line of data, at once: who reads the pipe wants to know now."""
    print(line, flush=True)
