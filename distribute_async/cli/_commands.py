"""The commands: what they take, what they run, and their exit codes. Used by `main` alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

import click

from distribute_async import ChatResult, Transition
from distribute_async.cli import _view
from distribute_async.cli._follow import (
    FAILED,
    INTERRUPTED,
    OK,
    PIPE_CLOSED,
    TIMED_OUT,
    TROUBLE,
    Followed,
    exit_code,
    follow,
    worst,
)
from distribute_async.cli._service import KEY_VARIABLE, hint, new_client, note, perform, service_options, task_id

# Below this width a whole id leaves no room for the answer.
ROOM_FOR_IDS = 110

EPILOG = """
\b
Exit codes:
    0  all is well; for a task: it is COMPLETED
    1  trouble with the service: out of reach, refuses, knows no such task
    2  wrong usage: an option, an id, no key
    3  a task failed
    4  a task hasn't ended (in time)
    5  click or rich is missing: pip install 'distribute-async[cli]'
  130  Ctrl-C
  141  whoever read the output stopped reading
Of several tasks the worst outcome counts: 1, then 3, then 4.
"""


def run() -> int:
    """Run the command that `sys.argv` names, and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A lone surrogate in an answer, or an ASCII terminal, is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
    try:
        return int(cli.main(prog_name="distribute-async", standalone_mode=False) or OK)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED


class Commands(click.Group):
    """The group of commands. Who closes the pipe that a command writes to ends it, and nothing is amiss."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; gives its exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            pass
        except ExceptionGroup as group:
            if group.split(BrokenPipeError)[1] is not None:
                raise
        # What is buffered is flushed once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="distribute-async", prog_name="distribute-async")
def cli() -> None:
    """Wait for the queued inference tasks of Distribute.AI.

    Data go to standard output, all else to standard error. The key comes from DISTRIBUTE_API_KEY or a file.
    """


@cli.command()
@click.argument("wanted", type=task_id, metavar="ID")
@click.option("--wait", is_flag=True, help="Wait for the task's end first.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer, as one line of JSON.")
@service_options
def result(wanted: str, *, wait: bool, as_json: bool, timeout: float, **settings: Any) -> int:
    """Print what the task ID answers.

    Without --wait this is one look: where the task hasn't ended yet, standard error says how it stands, and the
    exit code is 4. Printed are the text and each call of a tool, a line name(arguments).

    \b
    Examples:
      distribute-async result ID
      distribute-async result --wait --timeout 60 ID >answer.txt
      distribute-async result --json ID | jq .usage
    """
    client = new_client(**settings)

    async def look() -> ChatResult:
        async with client:
            if not wait:
                return await client.fetch(wanted, timeout=timeout)
            task = Followed(wanted, client.watch(wanted, timeout=timeout))
            screen = _view.new_console(stderr=True)
            if _view.is_screen(screen):
                await _view.follow_on_screen([task], screen, transient=True)
            else:
                await follow([task], _view.tell_nothing)
            if task.has_ended and task.watch.result is not None:
                return task.watch.result
            return await task.watch  # raises what ended the wait

    found = perform(look(), lambda: [wanted])
    if as_json:
        _view.say(_view.json_line(found.to_dict()))
    if found.is_failed:
        note(f"Error: the task ended in {_view.one_line(found.status)}; the service gives no reason")
        return FAILED
    if not found.is_over:
        note(f"The task hasn't ended: it is {_view.one_line(found.status)}.")
        hint([wanted])
        return TIMED_OUT
    if not as_json:
        say_answer(found)
    return OK


def say_answer(result: ChatResult) -> None:
    """Print an answer: as it is, and harmless where a terminal would take orders from it."""
    text = _view.answer_text(result)
    if text:
        _view.say(_view.harmless(text) if _view.new_console().file.isatty() else text)
    else:
        note("The answer has no text.")
    if len(result.choices) > 1:
        note(f"This is the first of {len(result.choices)} choices: --json prints all.")


@cli.command()
@click.argument("ids", type=task_id, metavar="ID...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each change and each outcome.")
@service_options
def watch(ids: Sequence[str], *, as_json: bool, timeout: float, **settings: Any) -> int:
    """Follow tasks to their ends.

    On a terminal, a live table; otherwise a line for each change: id, seconds, status. The timeout holds for each
    task.

    \b
    Examples:
      distribute-async watch ID ID
      distribute-async watch ID | tee log
      distribute-async watch --json ID ID | jq 'select(.event == "outcome")'
    """
    client = new_client(**settings)
    ids = tuple(dict.fromkeys(ids))
    screen = _view.new_console()
    is_live = _view.is_screen(screen) and not as_json
    are_distinct = len({name[:8] for name in ids}) == len(ids)
    shown = 8 if are_distinct and screen.width < ROOM_FOR_IDS else None
    tasks: list[Followed] = []

    async def follow_all() -> None:
        async with client:
            tasks.extend(Followed(name[:shown], client.watch(name, timeout=timeout)) for name in ids)
            if is_live:
                await _view.follow_on_screen(tasks, screen)
            else:
                await follow(tasks, tell_object if as_json else tell_line)

    perform(follow_all(), lambda: [task.watch.task_id for task in tasks if not task.has_ended])
    if is_live:
        for task in tasks:
            tell_error(task)
    hint([task.watch.task_id for task in tasks if exit_code(task.error) == TIMED_OUT])
    return worst(tasks)


def tell_error(task: Followed) -> None:
    """Say on stderr what kept a task from its result."""
    if task.error is not None:
        note(f"Error: {_view.error_words(task.error)}")


def tell_line(task: Followed, transition: Transition[ChatResult] | None) -> None:
    """For people and pipes: a line for each transition."""
    if transition is None:
        tell_error(task)
    else:
        _view.say(_view.transition_line(transition))


def tell_object(task: Followed, transition: Transition[ChatResult] | None) -> None:
    """For programs: a JSON object for each transition and each outcome."""
    if transition is None:
        _view.say(_view.json_line(_view.outcome_object(task)))
        tell_error(task)
    else:
        _view.say(_view.json_line(_view.transition_object(transition)))


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to listen on. [default: a free one]")
@click.option("--api-key", help="The key that it takes. [default: one made from the seed]")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed, the same tasks.")
def emulator(*, host: str, port: int, api_key: str | None, seed: int) -> int:
    """Run the service locally, with no key and no network.

    Its address is the first line on standard output. Ctrl-C or SIGTERM ends it.

    \b
    Examples:
      distribute-async emulator --port 8080
      distribute-async emulator --api-key secret --seed 7
    """
    from distribute_async.emulator import Emulator  # noqa: PLC0415 - a server that no other command needs

    async def serve() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stopped.set))
        async with Emulator(api_key, seed=seed, host=host, port=port) as service:
            _view.say(service.base_url)
            if api_key is None:
                note("It takes a key of its own. For the shell that calls it:")
                note(f"  export DISTRIBUTE_BASE_URL={service.base_url}")
                note(f"  export {KEY_VARIABLE}={service.api_key}")
            note("Ctrl-C ends it.")
            await stopped.wait()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        pass  # how one ends a server
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        reason = (error.strerror or str(error)).rpartition(": ")[2]  # asyncio puts the address first
        note(f"Error: can't listen on {host}, port {port}: {reason}; --port 0 takes a free one")
        return TROUBLE
    return OK


@cli.command()
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, hidden=True)
def demo(*, speed: float) -> int:
    """Follow a dozen tasks with different fates.

    They live on a local emulator of the service, so this takes no key and no network; nor does it last longer than
    fifteen seconds.
    """
    from distribute_async.cli._demo import show  # noqa: PLC0415 - the emulator's server comes with it

    return perform(show(speed), lambda: ())
