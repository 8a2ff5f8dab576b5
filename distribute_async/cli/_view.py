"""How things look on a terminal: tables, the live one included, and a line of progress. Used by the commands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from distribute_async import TaskStatus, Transition
from distribute_async.cli._follow import Followed, follow, tell_nothing
from distribute_async.cli._words import answer_text, one_line

_STYLES = {
    "QUEUED": "cyan",
    "POSTPONED": "yellow",
    "ASSIGNED_CONNECTIONS": "bright_blue",
    "PROCESSING": "magenta",
    "COMPLETED": "green",
    "ERROR": "bold red",
}

_REDRAW = 0.2  # seconds
_ERASE_LINE = Control((ControlType.CARRIAGE_RETURN,), (ControlType.ERASE_IN_LINE, 2))


def new_console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: no markup, no emoji codes, no guessed colours; with NO_COLOR none at all."""
    # (Older versions of rich take an empty NO_COLOR for one that is set; its specification doesn't.)
    is_plain = bool(os.environ.get("NO_COLOR"))
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, no_color=is_plain)


def is_screen(console: Console) -> bool:
    """Whether something can be redrawn there. (rich's own answer also goes by FORCE_COLOR.)"""
    return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal


def status_text(status: TaskStatus | None) -> Text:
    """A status in its colour."""
    if status is None:
        return Text("no answer", "dim")
    return Text(one_line(status), _STYLES.get(status, "" if status.is_known else "bold yellow"))


def path_text(history: Iterable[Transition[Any]]) -> Text:
    """The statuses that a task went through."""
    return Text(" → ", "dim").join(status_text(transition.status) for transition in history)


def latest_text(task: Followed, room: int) -> Text:
    """The last column: the newest of the way so far, and in the end the answer's first words or what went wrong."""
    if task.error is not None:
        return Text(one_line(str(task.error)), "red")
    if task.is_over and task.watch.result is not None:
        return Text(one_line(answer_text(task.watch.result)))
    earlier = task.watch.history[:-1]
    paths = (path_text(earlier[-length:]) for length in range(min(3, len(earlier)), 0, -1))
    return next((path for path in paths if path.cell_len <= room), path_text(earlier[-1:]))


def table(tasks: Sequence[Followed], width: int) -> Table:
    """The tasks as they stand, one line each; what a narrow terminal has no room for is left out."""
    # The gaps are in the columns: versions of rich don't agree on whether a last column's padding takes room.
    drawn = Table(box=None, pad_edge=False, padding=0, header_style="bold")
    room = width - 22  # the longest status and its gap
    longest = max(len(task.label) for task in tasks)
    spare = room - min(longest, 16)
    has_time, has_polls = spare >= 10, spare >= 17
    room -= 10 * has_time + 7 * has_polls
    label = min(longest, room)
    has_latest = room - label >= 16
    drawn.add_column("task", width=label + 2, no_wrap=True)
    drawn.add_column("status", width=20, no_wrap=True)
    if has_time:
        drawn.add_column("time", width=10, justify="right", no_wrap=True)
    if has_polls:
        drawn.add_column("polls", width=7, justify="right", no_wrap=True)
    if has_latest:
        drawn.add_column("  so far, answer", width=room - label, no_wrap=True)
    for task in tasks:
        name = Text(task.label)
        name.truncate(label, overflow="ellipsis")
        cells = [name, status_text(task.watch.status)]
        cells += [Text(f"{task.elapsed:.1f} s")] * has_time + [Text(str(task.polls))] * has_polls
        drawn.add_row(*cells, *[Text("  ") + latest_text(task, room - label - 2)] * has_latest)
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


class ProgressLine:
    """A line that is redrawn below all others, on a terminal; elsewhere it is never there.

    Whoever prints a line calls `clear` before it; the next redrawing is below it.
    """

    def __init__(self, console: Console, words: Callable[[], str]) -> None:
        self._console = console
        self._words = words
        self._is_screen = is_screen(console)

    def clear(self) -> None:
        """Make room for a line, or leave none behind."""
        if self._is_screen:
            self._console.control(_ERASE_LINE)

    def _draw(self) -> None:
        self.clear()
        room = self._console.width - 1  # in the last column a terminal may go on to the next line
        self._console.print(Text(self._words()[:room], "dim"), end="")

    async def keep_drawing(self) -> None:
        """Draw it, again and again; for an asyncio task beside those that print."""
        while self._is_screen:
            self._draw()
            await asyncio.sleep(_REDRAW)
