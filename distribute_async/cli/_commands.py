"""The group of commands, and how the program ends. Used by `main` alone."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Any

import click

from distribute_async.cli._check import check
from distribute_async.cli._follow import INTERRUPTED, OK, PIPE_CLOSED
from distribute_async.cli._local import demo, emulator
from distribute_async.cli._result import result
from distribute_async.cli._submit import submit
from distribute_async.cli._wait import wait
from distribute_async.cli._watch import watch

EPILOG = """
\b
Exit codes:
    0  all is well; for a task: it is COMPLETED
    1  trouble with the service: out of reach, refuses, knows no such task
    2  wrong usage: an option, an id, no key
    3  a task failed
    4  a task hasn't ended (in time)
    5  click or rich is missing: pip install 'distribute-async[cli]'
    6  a task may have been created, or not
  130  Ctrl-C
  141  whoever read the output stopped reading
Of several tasks the worst outcome counts: 2, then 1, then 3, then 4.

\b
The Tab key completes commands and options after this line in your shell's
own start-up file (bash; for zsh write zsh_source):
  eval "$(_DISTRIBUTE_ASYNC_COMPLETE=bash_source distribute-async)"
fish: _DISTRIBUTE_ASYNC_COMPLETE=fish_source distribute-async | source
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

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Their names in the order of use."""
        return list(self.commands)

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
    """Create the queued inference tasks of Distribute.AI, and wait for them.

    Data go to standard output, all else to standard error. The key comes from DISTRIBUTE_API_KEY or a file.

    \b
    Examples:
      distribute-async demo
      distribute-async check
      distribute-async submit --wait "Why is the sky blue?"
    """


for command in (submit, result, watch, wait, check, emulator, demo):
    cli.add_command(command)
