"""What the commands that ask the service share: options, the client, and how a run ends."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

import distribute_async
from distribute_async import ConfigurationError, DistributeClient, DistributeError, InvalidTaskIdError
from distribute_async.cli._follow import INTERRUPTED, TIMED_OUT, exit_code
from distribute_async.cli._words import error_words, note, tell_error

KEY_VARIABLE = "DISTRIBUTE_API_KEY"
URL_VARIABLE = "DISTRIBUTE_BASE_URL"
SERVICE = "https://api.distribute.ai"

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
        type=click.FloatRange(min=0),
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
        return distribute_async.watch(value).task_id
    except InvalidTaskIdError as error:
        raise click.BadParameter(f"{value!r}: {error}") from None


def writable(value: str) -> Path:
    """The type of a file to write: that it can't be is known before anything is sent, and paid for."""
    path = Path(value)
    try:
        if path.is_dir():
            raise click.BadParameter(f"{value!r} is a directory")
    except OSError as error:
        raise click.BadParameter(f"{value!r}: {error.strerror}") from None
    if not os.access(path.parent, os.W_OK):
        raise click.BadParameter(f"{value!r}: can't write to the directory {str(path.parent)!r}")
    return path


def new_client(*, api_key_file: str | None, **settings: Any) -> DistributeClient:
    """The client that the options describe; a usage error where it can't work."""
    context = click.get_current_context()
    try:
        if api_key_file is None:
            key = os.environ.get(KEY_VARIABLE, "")
        else:
            with click.open_file(api_key_file, encoding="utf-8", errors="replace") as file:
                key = file.readline().strip()
        if not key:
            raise click.UsageError(f"no API key: set {KEY_VARIABLE}, or give --api-key-file", context)
        return DistributeClient(key, **settings)
    except OSError as error:
        raise click.UsageError(f"can't read the key: {error}", context) from None
    except ConfigurationError as error:
        raise click.UsageError(error_words(error), context) from None


def perform(main: Coroutine[Any, Any, T], unfinished: Callable[[], Sequence[str]]) -> T:
    """Run to the end. An interrupt or an error is told, with how to go on, and becomes the command's exit code."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            note("")  # the terminal has just written ^C
        hint(unfinished())
        raise click.exceptions.Exit(INTERRUPTED) from None
    except DistributeError as error:
        tell_error(error)
        if exit_code(error) == TIMED_OUT:
            hint(unfinished())
        raise click.exceptions.Exit(exit_code(error)) from None


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
        command = group.command.commands["result"]
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
