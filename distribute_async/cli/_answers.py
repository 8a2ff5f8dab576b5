"""One task's answer: waited for, printed, saved. Used by `_result` and `_submit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from distribute_async import APIStatusError, ChatResult, DistributeError, File, Watch
from distribute_async.cli._codes import FAILED, OK, TIMED_OUT
from distribute_async.cli._follow import Followed, Result, follow, tell_nothing
from distribute_async.cli._save import save
from distribute_async.cli._view import follow_on_screen, is_screen, new_console
from distribute_async.cli._words import answer_text, error_words, harmless, json_line, note, one_line, say


async def awaited(watch: Watch[Any]) -> Result:
    """The task's last answer, ERROR too; meanwhile a terminal on stderr shows how it goes."""
    task = Followed(watch.task_id[:8], watch)
    screen = new_console(stderr=True)
    if is_screen(screen):
        await follow_on_screen([task], screen, transient=True)
    else:
        await follow([task], tell_nothing)
    result: Result | None = watch.result
    if not task.has_ended or result is None:
        result = await watch  # raises what ended the wait
    return result


async def deliver(found: Result, *, as_json: bool, output: Path | None) -> int:
    """Print an answer, or save it and print where; gives the exit code."""
    if as_json:
        say(json_line(found.to_dict()))
    if found.is_failed:
        note(f"Error: the task ended in {one_line(found.status)}; the service gives no reason")
        return FAILED
    if not found.is_over:
        note(f"The task hasn't ended: it is {one_line(found.status)}.")
        return TIMED_OUT
    if output is not None:
        paths = _written(found, output) if isinstance(found, ChatResult) else await _downloaded(found.results, output)
        for path in paths:
            (note if as_json else say)(str(path))
    elif not as_json:
        _say_answer(found)
    return OK


def _say_answer(result: Result) -> None:
    """Print an answer: as it is, and harmless where a terminal would take orders from it."""
    text = answer_text(result)
    if text:
        say(harmless(text) if new_console().file.isatty() else text)
    else:
        note("The answer has no text." if isinstance(result, ChatResult) else "The answer has no files.")
    if isinstance(result, ChatResult) and len(result.choices) > 1:
        note(f"This is the first of {len(result.choices)} choices: --json prints all.")


def _written(result: ChatResult, output: Path) -> list[Path]:
    try:
        save(output, f"{answer_text(result)}\n")
    except OSError as error:
        raise _unwritable(output, error) from None
    return [output]


async def _downloaded(files: Sequence[File], output: Path) -> list[Path]:
    """Save all: the second one beside the first, with a 2 in its name, and so on."""
    if not files:
        note("The answer has no files.")
    paths = [output, *(output.with_stem(f"{output.stem}-{number}") for number in range(2, len(files) + 1))]
    for number, (file, path) in enumerate(zip(files, paths, strict=False), 1):
        try:
            await file.download(path)
        except OSError as error:
            raise _unwritable(path, error) from None
        except DistributeError as error:
            # The library's hints are for calls of the API; what has the file is another server.
            why = f"HTTP {error.status_code}" if isinstance(error, APIStatusError) else error_words(error)
            raise click.ClickException(
                f"can't download file {number} of {len(files)}: {why}. "
                "The task is COMPLETED: 'result --output' tries again."
            ) from None
    return paths[: len(files)]


def _unwritable(path: Path, error: OSError) -> click.ClickException:
    return click.ClickException(f"can't write {str(path)!r}: {error.strerror or error}")
