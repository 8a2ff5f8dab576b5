"""`distribute-async demo`: a dozen tasks with different fates, followed over real HTTP. Used by `_commands` alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from attrs import field, frozen
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from distribute_async import ChatResult, DistributeClient, Pacing, Retry, TaskFailedError, Transition
from distribute_async.cli import _view
from distribute_async.cli._follow import OK, TROUBLE, Followed, follow
from distribute_async.emulator import Emulator, fault

_WIDEST = 100  # columns; beyond it the eye loses the line

_INTRODUCTION = (
    "A local emulator of the service has taken twelve tasks, each with its own fate. This library follows them over "
    "real HTTP: it polls, backs off, and outlives the faults on the way. No key, no network; it takes ten seconds."
)


@frozen
class _Fate:
    """What becomes of one task. `script`: further arguments of `Emulator.add_task`."""

    name: str
    timeline: Sequence[tuple[float, str]]
    script: dict[str, Any] = field(factory=dict)

    @property
    def is_to_fail(self) -> bool:
        """Whether the task ends in ERROR."""
        return self.timeline[-1][1] == "ERROR"

    def is_met(self, task: Followed) -> bool:
        """Whether following the task ended as its fate has it."""
        return task.has_ended and (task.error is not None) == self.is_to_fail


def _fates(speed: float) -> list[_Fate]:
    """The cast. Durations in seconds at speed 1, long enough for each status to be seen at the default pace."""

    def life(*steps: tuple[float, str]) -> Sequence[tuple[float, str]]:
        return [(offset / speed, status) for offset, status in steps]

    usual = life((0, "CREATED"), (1.2, "QUEUED"), (3, "ASSIGNED_CONNECTIONS"), (4.5, "PROCESSING"), (7, "COMPLETED"))
    busy = life((0, "CREATED"), (2, "QUEUED"), (4.5, "PROCESSING"), (8, "COMPLETED"))
    slow = life((0, "QUEUED"), (4, "PROCESSING"), (6.5, "COMPLETED"))
    quick = life((0, "QUEUED"), (2, "PROCESSING"), (5, "COMPLETED"))
    postponed = life(
        (0, "CREATED"),
        (1, "QUEUED"),
        (2.5, "POSTPONED"),
        (5, "QUEUED"),
        (6.5, "PROCESSING"),
        (9.5, "COMPLETED"),
    )
    return [
        _Fate("a usual life", usual),
        _Fate("postponed, queued again", postponed),
        _Fate("ends in ERROR", life((0, "CREATED"), (1.5, "QUEUED"), (3, "PROCESSING"), (6, "ERROR"))),
        _Fate("not visible at first", slow, {"visible_after": 1.2 / speed}),
        _Fate("behind a burst of 503s", busy, {"faults": [fault.status(503)] * 3}),
        _Fate("asks for a tool", quick, {"tool_calls": [("get_weather", '{"city": "Utrecht"}')]}),
        _Fate("skips statuses", life((0, "CREATED"), (3.5, "COMPLETED"))),
        _Fate("a status yet unknown", life((0, "CREATED"), (1.5, "WARMING_UP"), (4, "PROCESSING"), (6, "COMPLETED"))),
        _Fate("connections are cut", busy, {"faults": [fault.cut(), fault.cut(after=40)]}),
        _Fate("a proxy answers HTML", quick, {"faults": [fault.status(200, body=b"<html>Hello!</html>")]}),
        _Fate("a slow answer", slow, {"faults": [fault.delay(1.5 / speed)]}),
        _Fate("over before anyone asks", life((0, "COMPLETED"))),
    ]


async def show(speed: float) -> int:
    """Run the demonstration so many times faster than usual; gives the exit code."""
    screen = _view.new_console()
    fates = _fates(speed)
    width = min(screen.width, _WIDEST)
    async with (
        Emulator() as emulator,
        DistributeClient(
            emulator.api_key,
            base_url=emulator.base_url,
            pacing=Pacing(initial=0.5 / speed, floor=0.1 / speed),
            retry=Retry(initial=0.5 / speed),
        ) as client,
    ):
        screen.print(_INTRODUCTION, end="\n\n", width=width)
        tasks = [
            Followed(fate.name, client.watch(emulator.add_task(fate.timeline, **fate.script), timeout=60))
            for fate in fates
        ]
        started = asyncio.get_running_loop().time()
        if _view.is_screen(screen):
            await _view.follow_on_screen(tasks, screen, transient=True)
        else:
            await follow(tasks, _tell)
            _view.say("")
        took = asyncio.get_running_loop().time() - started
        requests = len(emulator.requests)
    surprises = [task.label for fate, task in zip(fates, tasks, strict=True) if not fate.is_met(task)]
    _print_stories(tasks, screen, width)
    failed = sum(task.error is not None for task in tasks)
    verdict = f"unlike their fates: {', '.join(surprises)}" if surprises else "each as its fate has it"
    screen.print(
        f"\n{len(tasks) - failed} completed and {failed} failed, {verdict}: {took:.1f} s, {requests} requests.",
        width=width,
    )
    return TROUBLE if surprises else OK


def _tell(task: Followed, transition: Transition[ChatResult] | None) -> None:
    if transition is not None:
        _view.say(f"{transition.elapsed:5.1f} s  {task.label}: {_view.one_line(transition.status or '')}")
    elif not task.has_ended:
        _view.say(f"{task.elapsed:5.1f} s  {task.label}: {_view.one_line(str(task.error))}")


def _print_stories(tasks: Sequence[Followed], screen: Console, width: int) -> None:
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
    for task in tasks:
        line(Text(task.label), f"{task.elapsed:.1f} s", str(task.polls), _answer(task))
        screen.print(Padding(_view.path_text(task.watch.history), (0, 0, 0, 2), expand=False), width=width)


def _answer(task: Followed) -> Text:
    if isinstance(task.error, TaskFailedError):
        return Text("none: the task failed", "red")
    return _view.latest_text(task)
