"""What the commands that ask the service share: options, the client, and how a run ends."""

from __future__ import annotations

import asyncio
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

import distribute_async
from distribute_async import ConfigurationError, DistributeClient, DistributeError, InvalidTaskIdError
from distribute_async.cli._codes import SIGNALLED, TIMED_OUT
from distribute_async.cli._follow import exit_code
from distribute_async.cli._save import check_writable
from distribute_async.cli._streams import OutputError
from distribute_async.cli._words import error_words, note, tell_error

KEY_VARIABLE = "DISTRIBUTE_API_KEY"
URL_VARIABLE = "DISTRIBUTE_BASE_URL"
SERVICE = "https://api.distribute.ai"

#: What stands for standard input among arguments.
STDIN = "-"
#: What some programs begin a text file with. It is no part of the text.
BYTE_ORDER_MARK = "\ufeff"

# So many ids still make a command that one can copy.
_MOST_NAMED = 20

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_SETTINGS = [
    click.option(
        "--api-key-file",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        metavar="PATH",
        help=f"The key is this file's first line; '-' is standard input. [default: ${KEY_VARIABLE}]",
    ),
    click.option(
        "--base-url", metavar="URL", help=f"The service's address. [default: ${URL_VARIABLE}, else {SERVICE}]"
    ),
    click.option("--auth-scheme", metavar="WORD", help="A word before the key, such as Bearer, for gateways."),
    click.option("--allow-insecure", is_flag=True, help="Allow plain http to another machine."),
]


class Number(click.FloatRange):
    """The type of a number within bounds. What is not a number is within none, and yet below and above nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; a usage error where it is none."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


kind_option = click.option(
    "--kind",
    type=click.Choice(["chat", "images", "speech"]),
    default="chat",
    show_default=True,
    help="The kind of task.",
)


def service_options(
    seconds: float = 600.0, meaning: str = "The longest wait for a task; 'inf' for no limit."
) -> Callable[[F], F]:
    """The options of each command that asks the service: `timeout`, and the settings of `new_client`."""
    timeout = click.option(
        "--timeout",
        type=Number(min=0),
        default=seconds,
        metavar="SECONDS",
        help=f"{meaning} [default: {seconds:g}]",
    )

    def add(command: F) -> F:
        for option in reversed([timeout, *_SETTINGS]):
            command = option(command)
        return command

    return add


def task_id(value: str) -> str:
    """The type of an id on the command line: checked before anything is sent."""
    try:
        return distribute_async.watch(value.removeprefix(BYTE_ORDER_MARK)).task_id
    except InvalidTaskIdError as error:
        raise click.BadParameter(f"{value!r}: {error}") from None


def writable(value: str) -> Path:
    """The type of a file to write: that it can't be is known before anything is sent, and paid for."""
    path = Path(value)
    try:
        if path.is_dir():
            raise click.BadParameter(f"{value!r} is a directory")
        check_writable(path)
    except OSError as error:
        raise click.BadParameter(f"{value!r}: {error.strerror or error}") from None
    return path


def claim_stdin(what: str, api_key_file: str | None) -> None:
    """Take standard input for `what` ("the ids"); a usage error where it is the key already, or closed."""
    if api_key_file == STDIN:
        raise click.UsageError(f"standard input can't be both the key and {what}", click.get_current_context())
    _check_stdin(what)


def _check_stdin(what: str) -> None:
    if sys.stdin is None:
        raise click.UsageError(f"can't read {what}: standard input is closed", click.get_current_context())


def new_client(*, api_key_file: str | None, **settings: Any) -> DistributeClient:
    """The client that the options describe; a usage error where it can't work."""
    context = click.get_current_context()
    if api_key_file == STDIN:
        _check_stdin("the key")
    try:
        if api_key_file is None:
            key = os.environ.get(KEY_VARIABLE, "")
        else:
            with click.open_file(api_key_file, encoding="utf-8", errors="replace") as file:
                key = file.readline()
        key = key.removeprefix(BYTE_ORDER_MARK).strip()
        if not key:
            raise click.UsageError(f"no API key: set {KEY_VARIABLE}, or give --api-key-file", context)
        return DistributeClient(key, **settings)
    except OSError as error:
        raise click.UsageError(f"can't read the key: {error}", context) from None
    except ConfigurationError as error:
        raise click.UsageError(error_words(error), context) from None


def perform(main: Coroutine[Any, Any, T], unfinished: Callable[[], Sequence[str]]) -> T:
    """Run to the end. A signal or an error is told, with how to go on, and becomes the command's exit code.

    SIGTERM and SIGHUP end it as Ctrl-C does: whatever is drawn or open is put right first.
    """
    came: list[int] = []

    async def run() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - it is this one

        def end(number: int) -> None:
            came.append(number)
            loop.call_soon_threadsafe(task.cancel)

        with on_signals(end, "SIGTERM", "SIGHUP"):
            return await main

    try:
        return asyncio.run(run())
    except KeyboardInterrupt:
        came.append(signal.SIGINT)
        if sys.stderr.isatty():
            note("")  # the terminal has just written ^C
    except DistributeError as error:
        tell_error(error)
        if exit_code(error) == TIMED_OUT:
            hint(unfinished())
        raise click.exceptions.Exit(exit_code(error)) from None
    except (asyncio.CancelledError, ExceptionGroup, OutputError):
        if not came:
            raise  # otherwise it is a terminal that is gone, and takes no last picture
    hint(unfinished())
    raise click.exceptions.Exit(SIGNALLED + came[0])


@contextmanager
def on_signals(handle: Callable[[int], None], *names: str) -> Iterator[None]:
    """Have a signal call `handle`, once: a second one does what it does by default. An ignored one stays ignored.

    Elsewhere than in the main thread, and where the system has no such signal, this does nothing.
    """
    previous: dict[int, Any] = {}

    def handled(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        handle(number)

    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        previous = {number: signal.getsignal(number) for number in numbers}
    previous = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, handled)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def hint(ids: Sequence[str]) -> None:
    """Say which command goes on waiting for these ids, with the options that were given."""
    if len(ids) > _MOST_NAMED:
        note(f"{len(ids):,} tasks haven't ended: to go on waiting, give their ids again.")
    elif ids:
        note(f"To go on waiting: {shlex.join([*_going_on(click.get_current_context()), *ids])}")


def _going_on(context: click.Context) -> list[str]:
    given, group = context, context.parent
    command = context.command
    words = context.command_path.split()
    if command.name == "submit" and group is not None and isinstance(group.command, click.Group):
        # What was submitted needs no second one: from here on it is `result` that waits.
        command = group.command.get_command(group, "result") or command
        words = [*group.command_path.split(), "result"]
    for option in command.params:
        name = option.name or ""
        if name == "wait":
            words.append("--wait")  # whatever was done before: to go on means to wait
        elif isinstance(option, click.Option) and given.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = given.params.get(name)
            words.append(option.opts[0])
            words += [] if option.is_flag else [f"{value:g}" if isinstance(value, float) else str(value)]
    return words
