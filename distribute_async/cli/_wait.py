"""`distribute-async wait`."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import click

from distribute_async import DistributeError, Outcome, Progress, TaskFailedError
from distribute_async.cli._codes import TIMED_OUT, TROUBLE
from distribute_async.cli._follow import exit_code, worst
from distribute_async.cli._service import (
    BYTE_ORDER_MARK,
    STDIN,
    claim_stdin,
    hint,
    kind_option,
    new_client,
    perform,
    service_options,
    task_id,
)
from distribute_async.cli._view import ProgressLine, new_console
from distribute_async.cli._words import change_line, json_line, note, outcome_object, say, tell_error

_PIECE = 1 << 16  # bytes


def _task_id_or_stdin(value: str) -> str:
    return value if value == STDIN else task_id(value)


@click.command(short_help="Wait for many tasks; a line as each ends.")
@click.argument("ids", type=_task_id_or_stdin, metavar="ID...", nargs=-1, required=True)
@kind_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each outcome, the result included.")
@service_options()
def wait(ids: Sequence[str], *, kind: str, as_json: bool, timeout: float, **settings: Any) -> int:
    """Wait for tasks, thousands of them too, and print a line as each ends: id, seconds, status.

    With '-' the ids come from standard input, one a line, and are taken as they come. A status that isn't COMPLETED
    or ERROR is the last one seen of a task that couldn't be waited for any longer; standard error says why. The
    timeout holds for each task. On a terminal, standard error shows how far it is.

    \b
    Examples:
      distribute-async wait ID ID
      distribute-async wait --timeout 3600 - <ids.txt >outcomes.txt
      distribute-async wait --json - <ids.txt | grep '"COMPLETED"'
    """
    if STDIN in ids:
        claim_stdin("the ids", settings["api_key_file"])
    client = new_client(**settings)
    started: dict[str, float] = {}
    late: list[str] = []
    codes: set[int] = set()
    unread: list[OSError] = []

    async def given() -> AsyncIterator[str]:
        try:
            for name in dict.fromkeys(ids):
                async for wanted in _lines() if name == STDIN else _only(name):
                    if wanted not in started:
                        started[wanted] = asyncio.get_running_loop().time()
                        yield wanted
        except OSError as error:  # those that have come are waited for all the same
            unread.append(error)
            codes.add(TROUBLE)

    async def tell_all() -> None:
        async with client, asyncio.TaskGroup() as group:
            stream = getattr(client, kind).as_completed(given(), timeout=timeout)
            line = ProgressLine(new_console(stderr=True), lambda: _progress_words(stream.progress))
            artist = group.create_task(line.keep_drawing())
            try:
                async for outcome in stream:
                    line.clear()
                    elapsed = asyncio.get_running_loop().time() - started.pop(outcome.task_id)
                    codes.add(_tell(outcome, elapsed, as_json=as_json))
                    if exit_code(outcome.error) == TIMED_OUT:
                        late.append(outcome.task_id)
            finally:
                artist.cancel()
                line.clear()

    perform(tell_all(), lambda: [*late, *started])
    for error in unread:
        note(f"Error: can't read the ids from standard input: {error.strerror or error}")
    hint(late)
    return worst(codes)


def _progress_words(progress: Progress) -> str:
    counts = f"{progress.waiting:,} waiting, {progress.done:,} done, {progress.failed:,} failed"
    return f"{counts}, {progress.rate:.1f} a second"


def _tell(outcome: Outcome[Any], elapsed: float, *, as_json: bool) -> int:
    """Print an outcome; gives its exit code."""
    task, result, error = outcome.task_id, outcome.result, outcome.error
    assert error is None or isinstance(error, DistributeError)  # noqa: S101 - what outcomes promise
    if isinstance(error, TaskFailedError):
        result = error.result
    status = result.status if result is not None else error.last_status if error is not None else None
    if as_json:
        say(json_line(outcome_object(task, status, elapsed, result=result, error=error)))
    else:
        say(change_line(task, elapsed, status))
    tell_error(error)
    return exit_code(error)


async def _only(name: str) -> AsyncIterator[str]:
    yield name


async def _lines() -> AsyncIterator[str]:
    """The lines of standard input that aren't blank, as they come, whatever it is: a file, a pipe, a terminal.

    Raises `OSError` where it can't be read.

    A thread reads it, since a file can't be polled: a daemon, so that Ctrl-C needn't wait for the next line, and past
    Python's own buffer, whose lock it would hold as the interpreter ends.
    """
    loop = asyncio.get_running_loop()
    rest, is_first = b"", True
    while True:
        piece: asyncio.Future[bytes] = loop.create_future()
        threading.Thread(target=_read, args=(loop, piece), daemon=True).start()
        data = await piece
        *lines, rest = (rest + data).split(b"\n") if data else (rest, b"")
        for line in lines:
            decoded = line.decode(errors="replace")
            if text := (decoded.removeprefix(BYTE_ORDER_MARK) if is_first else decoded).strip():
                yield text
            is_first = False
        if not data:
            return


def _read(loop: asyncio.AbstractEventLoop, piece: asyncio.Future[bytes]) -> None:
    data, error = b"", None
    try:
        data = os.read(sys.stdin.fileno(), _PIECE)
    except OSError as fault:
        error = fault

    def give() -> None:
        if piece.done():
            return
        if error is None:
            piece.set_result(data)
        else:
            piece.set_exception(error)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(give)
