"""What the commands that ask the service share: options, the client, and how a run ends. Used by `_commands`."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

import distribute_async
from distribute_async import ConfigurationError, DistributeClient, DistributeError, InvalidTaskIdError
from distribute_async.cli._follow import INTERRUPTED, TIMED_OUT, exit_code
from distribute_async.cli._view import error_words

KEY_VARIABLE = "DISTRIBUTE_API_KEY"

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = [
    click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=600.0,
        show_default="600",
        metavar="SECONDS",
        help="The longest wait for a task; 'inf' for no limit.",
    ),
    click.option(
        "--api-key-file",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        metavar="PATH",
        help=f"The key is this file's first line; '-' is standard input. [default: ${KEY_VARIABLE}]",
    ),
    click.option(
        "--base-url",
        metavar="URL",
        help="The service's address. [default: $DISTRIBUTE_BASE_URL, else https://api.distribute.ai]",
    ),
    click.option("--auth-scheme", metavar="WORD", help="A word before the key, such as Bearer, for gateways."),
    click.option("--allow-insecure", is_flag=True, help="Allow plain http to another machine."),
]


def service_options(command: F) -> F:
    """The options of each command that asks the service: `timeout`, and the settings of `new_client`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def task_id(value: str) -> str:
    """The type of an id on the command line: checked before anything is sent."""
    try:
        return distribute_async.watch(value).task_id
    except InvalidTaskIdError as error:
        raise click.BadParameter(f"{value!r}: {error}") from None


def note(line: str) -> None:
    """Say something that is no data."""
    print(line, file=sys.stderr)


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
        note(f"Error: {error_words(error)}")
        if exit_code(error) == TIMED_OUT:
            hint(unfinished())
        raise click.exceptions.Exit(exit_code(error)) from None


def hint(ids: Sequence[str]) -> None:
    """Say which command goes on waiting for these ids, with the options that were given."""
    if not ids:
        return
    context = click.get_current_context()
    words = context.command_path.split()
    for option in context.command.params:
        name = option.name or ""
        value = context.params.get(name)
        if name == "wait":
            words.append("--wait")  # whatever was done before: to go on means to wait
        elif isinstance(option, click.Option) and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words.append(option.opts[0])
            words += [] if option.is_flag else [f"{value:g}" if isinstance(value, float) else str(value)]
    note(f"To go on waiting: {shlex.join([*words, *ids])}")
