"""`distribute-async watch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from distribute_async import Transition
from distribute_async.cli._codes import TIMED_OUT
from distribute_async.cli._follow import Followed, exit_code, follow, worst
from distribute_async.cli._service import hint, kind_option, new_client, perform, service_options, task_id
from distribute_async.cli._view import follow_on_screen, is_screen, new_console
from distribute_async.cli._words import change_line, json_line, outcome_object, say, tell_error, transition_object

# Below this width a whole id leaves no room for the answer.
_ROOM_FOR_IDS = 110


@click.command()
@click.argument("ids", type=task_id, metavar="ID...", nargs=-1, required=True)
@kind_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each change and each outcome.")
@service_options()
def watch(ids: Sequence[str], *, kind: str, as_json: bool, timeout: float, **settings: Any) -> int:
    """Follow tasks to their ends.

    On a terminal, a live table; otherwise a line for each change: id, seconds, status. The timeout holds for each
    task. For hundreds of tasks there is `wait`.

    \b
    Examples:
      distribute-async watch ID ID
      distribute-async watch ID | tee log
      distribute-async watch --json ID ID | grep '"outcome"'
    """
    client = new_client(**settings)
    ids = tuple(dict.fromkeys(ids))
    screen = new_console()
    is_live = is_screen(screen) and not as_json
    are_distinct = len({name[:8] for name in ids}) == len(ids)
    shown = 8 if are_distinct and screen.width < _ROOM_FOR_IDS else None
    tasks: list[Followed] = []

    async def follow_all() -> None:
        async with client:
            kept = getattr(client, kind)
            tasks.extend(Followed(name[:shown], kept.watch(name, timeout=timeout)) for name in ids)
            if is_live:
                await follow_on_screen(tasks, screen)
            else:
                await follow(tasks, _tell_object if as_json else _tell_line)

    perform(follow_all(), lambda: [task.watch.task_id for task in tasks if not task.has_ended])
    if is_live:
        for task in tasks:
            tell_error(task.error)
    hint([task.watch.task_id for task in tasks if exit_code(task.error) == TIMED_OUT])
    return worst(exit_code(task.error) for task in tasks)


def _tell_line(task: Followed, transition: Transition[Any] | None) -> None:
    """For people and pipes: a line for each transition."""
    if transition is None:
        tell_error(task.error)
    else:
        say(change_line(transition.task_id, transition.elapsed, transition.status))


def _tell_object(task: Followed, transition: Transition[Any] | None) -> None:
    """For programs: a JSON object for each transition and each outcome."""
    if transition is not None:
        say(json_line(transition_object(transition)))
        return
    watch = task.watch
    result = watch.result if task.has_ended else None
    said = outcome_object(watch.task_id, watch.status, task.elapsed, polls=task.polls, result=result, error=task.error)
    say(json_line(said))
    tell_error(task.error)
