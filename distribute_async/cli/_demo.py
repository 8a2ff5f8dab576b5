"""`distribute-async demo`: tasks with different fates, submitted and followed for real. Used by `_local` alone."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from distribute_async import DistributeClient, Pacing, Retry, TaskFailedError, Transition
from distribute_async.cli._cast import Fate, fates
from distribute_async.cli._codes import OK, TROUBLE
from distribute_async.cli._follow import Followed, follow
from distribute_async.cli._view import follow_on_screen, is_screen, latest_text, new_console, path_text
from distribute_async.cli._words import error_words, one_line, say
from distribute_async.emulator import Emulator

_WIDEST = 100  # columns; beyond it the eye loses the line

_INTRODUCTION = (
    "A local emulator of the service takes fifteen tasks, each with its own fate. This library submits them and "
    "follows them over real HTTP: it polls, backs off, and outlives the faults on the way. No key, no network; it "
    "takes ten seconds."
)


async def show(speed: float) -> int:
    """Run the demonstration so many times faster than usual; gives the exit code."""
    screen = new_console()
    cast = fates(speed)
    width = min(screen.width, _WIDEST)
    async with (
        Emulator(epoch=None) as emulator,
        DistributeClient(
            emulator.api_key,
            base_url=emulator.base_url,
            pacing=Pacing(initial=0.5 / speed, floor=0.1 / speed),
            retry=Retry(initial=0.5 / speed),
        ) as client,
    ):
        screen.print(_INTRODUCTION, end="\n\n", width=width)
        started = asyncio.get_running_loop().time()
        watches = [await _submitted(fate, emulator, client) for fate in cast]
        tasks = [Followed(fate.name, watch) for fate, watch in zip(cast, watches, strict=True)]
        if is_screen(screen):
            await follow_on_screen(tasks, screen, transient=True)
        else:
            await follow(tasks, _tell)
            say("")
        took = asyncio.get_running_loop().time() - started
        requests = len(emulator.requests)
        saved = await _save(cast, tasks)
    surprises = [task.label for fate, task in zip(cast, tasks, strict=True) if not fate.is_met(task)]
    _print_stories(cast, tasks, screen, width)
    failed = sum(task.error is not None for task in tasks)
    verdict = f"unlike their fates: {', '.join(surprises)}" if surprises else "each as its fate has it"
    screen.print(
        f"\n{len(tasks) - failed} completed and {failed} failed, {verdict}: {took:.1f} s, {requests} requests.",
        width=width,
    )
    say("Saved, for you to open:")
    for path in saved:
        say(f"  {path}")
    return TROUBLE if surprises else OK


async def _submitted(fate: Fate, emulator: Emulator, client: DistributeClient) -> Any:
    """The watch of a task that the library has just submitted, and that has this fate."""
    emulator.fates.append({"timeline": fate.timeline, **fate.script})
    emulator.faults.extend(fate.faults)
    return await getattr(client, fate.kind).submit(**fate.request, timeout=60)


async def _save(cast: Sequence[Fate], tasks: Sequence[Followed]) -> list[Path]:
    """Download what was made into a new folder."""
    ended = [(fate.file, task) for fate, task in zip(cast, tasks, strict=True) if fate.file and task.error is None]
    made = [(name, task.watch.result) for name, task in ended]
    try:
        folder = Path(tempfile.mkdtemp(prefix="distribute-demo-"))
        return [await result.download(folder / name) for name, result in made if result is not None]
    except OSError as error:
        raise click.ClickException(f"can't save the picture and the sound: {error}") from None


def _tell(task: Followed, transition: Transition[Any] | None) -> None:
    if transition is not None:
        say(f"{transition.elapsed:5.1f} s  {task.label}: {one_line(transition.status or '')}")
    elif task.error is not None and not task.has_ended:
        say(f"{task.elapsed:5.1f} s  {task.label}: {error_words(task.error)}")


def _print_stories(cast: Sequence[Fate], tasks: Sequence[Followed], screen: Console, width: int) -> None:
    """For each task a line of figures, and below it the path that was seen."""

    def line(*cells: RenderableType, style: str = "") -> None:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=max(len(task.label) for task in tasks))
        grid.add_column(width=6, justify="right")
        grid.add_column(width=5, justify="right")
        grid.add_column(ratio=1, no_wrap=True)
        grid.expand = True
        grid.add_row(*cells, style=style)
        screen.print(grid, width=width)

    line("Fate, and the path seen", "Time", "Polls", "Answer", style="bold")
    for fate, task in zip(cast, tasks, strict=True):
        line(Text(task.label), f"{task.elapsed:.1f} s", str(task.polls), _answer(fate, task))
        screen.print(Padding(path_text(task.watch.history), (0, 0, 0, 2), expand=False), width=width)


def _answer(fate: Fate, task: Followed) -> Text:
    if isinstance(task.error, TaskFailedError):
        return Text("none: the task failed", "red")
    return Text(fate.file) if fate.file and task.error is None else latest_text(task, 0)
