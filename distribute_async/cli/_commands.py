"""The group of commands, and how the program ends. Used by `main` alone.

A command's module is imported when that command is asked for: `--version` needs neither the library nor rich.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from distribute_async.cli._codes import INTERRUPTED, OK, PIPE_CLOSED, TROUBLE
from distribute_async.cli._streams import OutputError

#: The commands in the order of use, and the module of each.
COMMANDS = {
    "submit": "_submit",
    "result": "_result",
    "watch": "_watch",
    "wait": "_wait",
    "check": "_check",
    "emulator": "_local",
    "demo": "_local",
}

EPILOG = """
\b
Exit codes:
    0  all is well; for a task: it is COMPLETED
    1  trouble with the service: out of reach, refuses, knows no such task;
       or what was to be written can't be
    2  wrong usage: an option, an id, no key
    3  a task failed
    4  a task hasn't ended (in time)
    5  click or rich is missing: pip install 'distribute-async[cli]'
    6  a task may have been created, or not
  129  its terminal is gone (SIGHUP)
  130  Ctrl-C
  141  whoever read the output stopped reading
  143  told to end (SIGTERM)
Of several tasks the worst outcome counts: 2, then 1, then 3, then 4.

\b
The Tab key completes commands and options after this line in your shell's
own start-up file (bash; for zsh write zsh_source):
  eval "$(_DISTRIBUTE_ASYNC_COMPLETE=bash_source distribute-async)"
fish: _DISTRIBUTE_ASYNC_COMPLETE=fish_source distribute-async | source
"""


def run() -> int:
    """Run the command that `sys.argv` names, and give its exit code."""
    code = OK
    try:
        code = _run()
        sys.stdout.flush()
    except* OutputError as group:
        code = _output_ended(group)
    return code


def _run() -> int:
    try:
        return int(cli.main(prog_name="distribute-async", standalone_mode=False) or OK)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED


def _output_ended(error: BaseException) -> int:
    """Say why standard output takes no more, unless nobody reads it; gives the exit code."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OutputError) and error.is_unread:
        return PIPE_CLOSED
    print(f"Error: can't write to standard output: {error}", file=sys.stderr)
    return TROUBLE


class Commands(click.Group):
    """The group of commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Their names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"distribute_async.cli.{COMMANDS[cmd_name]}"), cmd_name)
        return command


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="distribute-async", prog_name="distribute-async")
def cli() -> None:
    """Create the queued inference tasks of Distribute.AI, and wait for them.

    Data go to standard output, all else to standard error. The key comes from DISTRIBUTE_API_KEY or a file.

    \b
    Examples:
      distribute-async demo
      distribute-async check
      distribute-async submit --wait "Why is the sky blue?"
    """
