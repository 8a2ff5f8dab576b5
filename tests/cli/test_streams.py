"""The standard streams where they are closed, full, left by their reader, or begin with a byte-order mark."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from distribute_async.emulator import Emulator
from tests.cli.conftest import API_KEY, DONE, UNKNOWN_ID, Command, until

FULL = "Error: can't write to standard output: No space left on device\n"
MARK = "\ufeff"


@pytest.mark.parametrize(
    ("args", "code", "out"),
    [
        (["result", UNKNOWN_ID], 1, ""),
        (["wait", "--timeout", "0.1", UNKNOWN_ID], 4, f"{UNKNOWN_ID} +\\S+ -\n"),
        (["submit", " "], 2, ""),
        (["watch", "no id"], 2, ""),
        (["nonsense"], 2, ""),
    ],
)
async def test_a_closed_standard_error(args: list[str], code: int, out: str, command: Command) -> None:
    """With standard error closed no error lands among the data on standard output."""
    done = await command.redirected("2>&-", *args)
    assert done.code == code
    assert re.fullmatch(out, done.out)


def test_a_closed_standard_error_without_the_extra() -> None:
    """Where click is missing and standard error is closed, standard output doesn't tell of it."""
    program = "import sys; sys.modules['click'] = None; from distribute_async.cli import main; main()"
    run = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program]
    done = subprocess.run(run, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (5, b"")


async def test_all_streams_closed(emulator: Emulator, command: Command) -> None:
    """With all standard streams closed a command does its work, and its exit code says how that went."""
    good = emulator.add_task(DONE, text="\ud800")
    assert [(await command.redirected("<&- >&- 2>&-", "result", name)).code for name in (good, UNKNOWN_ID)] == [0, 1]


@pytest.mark.parametrize("is_full", [True, False])
async def test_what_cannot_be_said(is_full: bool, emulator: Emulator, command: Command) -> None:
    """Where standard error is full, or nobody reads it, the data and the exit code are what they would be."""
    good, bad = [emulator.add_task(DONE) for _ in range(3)], [UNKNOWN_ID, UNKNOWN_ID.replace("d", "e")]
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    done = await command("wait", "--timeout", "5", *bad, *good, stderr=full if is_full else writer)
    os.close(full)
    os.close(writer)
    assert done.code == 1
    assert {line.split()[0] for line in done.out.splitlines()} == {*bad, *good}


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["wait", "--help"], ["check"], ["demo", "--speed", "8"], ["emulator"]]
)
async def test_a_full_device(args: list[str], command: Command) -> None:
    """Where standard output is full, one line says so, and the exit code is 1."""
    done = await command.redirected(">/dev/full", *args)
    assert (done.code, done.err) == (1, FULL)


@pytest.mark.parametrize("args", [["result"], ["result", "--json"], ["watch"], ["wait"], ["watch", "--json"]])
async def test_a_full_device_for_answers(args: list[str], emulator: Emulator, command: Command) -> None:
    """The same for answers, however long they are, and however many tasks are followed."""
    ids = [emulator.add_task(DONE, text="long " * 10_000) for _ in range(1 if args[0] == "result" else 5)]
    done = await command.redirected(">/dev/full", *args, *ids)
    assert (done.code, done.err) == (1, FULL)


async def test_an_id_that_cannot_be_printed(emulator: Emulator, command: Command) -> None:
    """Where standard output doesn't take the new task's id, standard error has it: it costs what it costs."""
    full = await command.redirected(">/dev/full", "submit", "Why?")
    reader, writer = os.pipe()
    os.close(reader)
    unread = await command("submit", "--json", "Why?", stdout=writer)
    os.close(writer)
    assert (full.code, unread.code, len(emulator.requests)) == (1, 141, 2)
    for err in (full.err.removesuffix(FULL), unread.err):
        assert re.fullmatch(r"Task [0-9a-f-]{36}\n", err)


@pytest.mark.parametrize("args", [["--help"], ["submit", "--help"], ["--version"]])
async def test_help_that_nobody_reads(args: list[str], command: Command) -> None:
    """Help whose reader stops reading ends quietly, with the code that SIGPIPE would give."""
    reader, writer = os.pipe()
    os.close(reader)
    done = await command(*args, stdout=writer)
    os.close(writer)
    assert (done.code, done.err) == (141, "")


async def test_a_pipe_that_does_not_block(emulator: Emulator, command: Command) -> None:
    """A full pipe that another program has made non-blocking is waited for."""
    text = "long " * 100_000
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = await command.start("result", emulator.add_task(DONE, text=text), stdout=writer)
    os.close(writer)
    await until(lambda: bool(emulator.requests))
    with os.fdopen(reader) as opened:
        assert await asyncio.to_thread(opened.read) == text + "\n"
    assert (await command.finish(process)).code == 0


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["wait", "-"], "the ids"),
        (["submit", "-"], "the prompt"),
        (["result", "--api-key-file", "-", UNKNOWN_ID], "the key"),
        (["check", "--api-key-file", "-"], "the key"),
    ],
)
async def test_a_closed_standard_input(args: list[str], what: str, emulator: Emulator, command: Command) -> None:
    """Where standard input is closed it can't be read, and that is said; exit code 2, and nothing is sent."""
    done = await command.redirected("<&-", *args)
    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert f"can't read {what}: standard input is closed" in done.err


@pytest.mark.parametrize(("args", "what"), [(["wait", "-"], "the ids"), (["submit", "-"], "the prompt")])
async def test_standard_input_is_one_thing(args: list[str], what: str, emulator: Emulator, command: Command) -> None:
    """Standard input can't be the key and something else."""
    done = await command.here(args[0], "--api-key-file", "-", *args[1:], stdin=API_KEY)
    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert f"standard input can't be both the key and {what}" in done.err


async def test_a_standard_input_that_cannot_be_read(emulator: Emulator, command: Command) -> None:
    """Where reading fails it isn't taken for the end: an error says so, and the ids that have come are waited for."""
    good = emulator.add_task(DONE)
    ids = await command.redirected("0>/dev/null", "wait", good, "-")
    assert (ids.code, ids.out.split()[0]) == (1, good)
    assert ids.err == "Error: can't read the ids from standard input: Bad file descriptor\n"
    prompt = await command.redirected("0>/dev/null", "submit", "-")
    key = await command.redirected("0>/dev/null", "check", "--api-key-file", "-")
    for done in (prompt, key):
        assert (done.code, done.out) == (2, "")
        assert "Bad file descriptor" in done.err


async def test_a_mark_before_the_first_id(emulator: Emulator, command: Command) -> None:
    """A byte-order mark before the ids is none of them, though it comes in pieces, and on the command line too."""
    first, second = emulator.add_task(DONE), emulator.add_task(DONE)
    process = await command.start("wait", "-", stdin=PIPE)
    assert process.stdin
    marked = f"{MARK}{first}\n{second}\n".encode()
    process.stdin.write(marked[:2])
    await process.stdin.drain()
    process.stdin.write(marked[2:])
    process.stdin.close()
    done = await command.finish(process)
    assert (done.code, {line.split()[0] for line in done.out.splitlines()}) == (0, {first, second})
    assert (await command.here("wait", MARK + first)).code == 0


async def test_a_mark_before_other_texts(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """A byte-order mark before a key or a prompt is no part of it."""
    task_id = emulator.add_task(DONE, text="yes")
    emulator.fates.append({"timeline": DONE})
    file = tmp_path / "key.txt"
    file.write_text(f"{MARK}{API_KEY}\r\n")
    from_file = await command.here("result", "--api-key-file", str(file), task_id)
    from_stdin = await command.here("result", "--api-key-file", "-", task_id, stdin=file.read_bytes())
    command.env["DISTRIBUTE_API_KEY"] = MARK + API_KEY
    submitted = await command.here("submit", "-", stdin=f"{MARK}Why?")
    assert (from_file.out, from_stdin.out, submitted.code) == ("yes\n", "yes\n", 0)
    assert emulator.requests[-1].body["messages"] == [{"role": "user", "content": "Why?"}]
    empty = await command.here("submit", "-", stdin=MARK)
    assert (empty.code, "it is empty" in empty.err) == (2, True)


async def test_a_mark_within_is_kept(emulator: Emulator, command: Command) -> None:
    """Elsewhere than at the beginning the same character is a part of the text."""
    await command.here("submit", "-", stdin=f"{MARK}a{MARK}\n{MARK}b")
    assert emulator.requests[-1].body["messages"][0]["content"] == f"a{MARK}\n{MARK}b"
