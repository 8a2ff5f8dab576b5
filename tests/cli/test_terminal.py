"""In a terminal: the live table, colours, and text that would steer it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios

import pytest

from distribute_async.emulator import Emulator
from tests.cli.conftest import API_KEY, DONE, NEVER, UNKNOWN_ID, Command, Terminal, says, until

COLOURS = re.compile(r"\x1b\[(?:\d+;)*(?:3\d|9\d)[;m]")


@pytest.mark.parametrize(
    ("columns", "head"),
    [
        (140, ["task", "status", "time", "polls", "so far, answer"]),
        (80, ["task", "status", "time", "polls", "so far, answer"]),
        (50, ["task", "status", "time", "polls"]),
        (40, ["task", "status", "time"]),
    ],
)
async def test_the_live_table(columns: int, head: list[str], emulator: Emulator, command: Command) -> None:
    """`watch` draws a table that fits the terminal: each task with its status, and in the end its answer."""
    first = emulator.add_task(DONE, text="\x1b[2JWell \x9b1mdone", faults=[says("QUEUED"), says("PROCESSING")])
    second = emulator.add_task([(0, "ERROR")])
    terminal = Terminal(columns)
    done = await command("watch", first, second, stdout=terminal.slave)
    shown = await terminal.all()
    lines = terminal.lines(shown)
    assert done.code == 3
    assert re.split(r"\s{2,}", lines[0].strip()) == head
    assert any("QUEUED" in line for line in lines)
    last = [line for line in lines if line.strip()][-2:]
    assert [re.split(r"\s{2,}", line)[:2] for line in last] == [
        [first if columns == 140 else first[:8], "COMPLETED"],
        [second if columns == 140 else second[:8], "ERROR"],
    ]
    if "so far, answer" in head:
        assert r"\x1b[2JWell \x9b1mdone" in last[0]
    assert "\x1b[2J" not in shown
    assert "\x9b" not in shown
    assert COLOURS.search(shown)


async def test_no_color(emulator: Emulator, command: Command) -> None:
    """With NO_COLOR nothing is coloured."""
    command.env["NO_COLOR"] = "1"
    terminal = Terminal(80)
    await command("watch", emulator.add_task([(0, "ERROR")]), stdout=terminal.slave)
    shown = await terminal.all()
    assert "ERROR" in shown
    assert not COLOURS.search(shown)


async def test_an_empty_no_color(emulator: Emulator, command: Command) -> None:
    """An empty NO_COLOR is none, as its specification has it."""
    command.env["NO_COLOR"] = ""
    terminal = Terminal(80)
    await command("watch", emulator.add_task([(0, "ERROR")]), stdout=terminal.slave)
    assert COLOURS.search(await terminal.all())


async def test_a_terminal_that_can_do_nothing(emulator: Emulator, command: Command) -> None:
    """On a dumb terminal, and in a pipe that is said to have colours, `watch` prints its plain lines."""
    task_id = emulator.add_task(DONE)
    command.env["TERM"] = "dumb"
    terminal = Terminal(80)
    await command("watch", task_id, stdout=terminal.slave)
    shown = await terminal.all()
    command.env |= {"TERM": "xterm", "FORCE_COLOR": "1"}
    piped = await command("watch", task_id)
    for text in (shown, piped.out):
        assert re.fullmatch(rf"{task_id} +\d+\.\d\d COMPLETED\r?\n", text)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["int", "term", "hup"]
)
@pytest.mark.parametrize("args", [["watch"], ["result", "--wait"], ["wait"]], ids=" ".join)
async def test_a_signal_leaves_the_terminal_usable(
    args: list[str], number: signal.Signals, code: int, emulator: Emulator, command: Command
) -> None:
    """After a signal the cursor is back, the hint stands on a line of its own, and the exit code tells the signal."""
    task_id = emulator.add_task([(0, "QUEUED"), (NEVER, "COMPLETED")])
    terminal = Terminal(100)
    process = await command.start(*args, task_id, stdout=terminal.slave, stderr=terminal.slave)
    await terminal.shows("1 waiting" if args == ["wait"] else "QUEUED")
    process.send_signal(number)
    assert (await command.finish(process)).code == code
    shown = await terminal.all()
    lines = terminal.lines(shown)
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l") == (args != ["wait"])
    assert shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l")
    assert lines[-2:] == [f"To go on waiting: distribute-async {' '.join(args)} {task_id}", ""]
    assert "Traceback" not in shown


async def test_a_terminal_that_is_gone(emulator: Emulator, command: Command) -> None:
    """Where the terminal hangs up the command ends, and whoever reads standard error has how to go on."""
    task_id = emulator.add_task([(0, "QUEUED"), (NEVER, "COMPLETED")])
    terminal = Terminal(100)
    process = await command.start(
        *("watch", task_id),
        stdin=terminal.slave,
        stdout=terminal.slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    await terminal.shows("QUEUED")
    terminal.hang_up()
    done = await command.finish(process)
    assert (done.code, done.err) == (129, f"To go on waiting: distribute-async watch {task_id}\n")


async def test_what_nohup_says_holds(emulator: Emulator, command: Command) -> None:
    """A hang-up that was ignored from the start, as by nohup, stays ignored; SIGTERM ends the command all the same."""
    task_id = emulator.add_task([(0, "QUEUED"), (NEVER, "COMPLETED")])
    process = await command.start("watch", task_id, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    await until(lambda: len(emulator.requests) > 0)
    process.send_signal(signal.SIGHUP)
    polls = len(emulator.requests)
    await until(lambda: len(emulator.requests) > polls)
    process.send_signal(signal.SIGTERM)
    assert (await command.finish(process)).code == 143


async def test_a_second_signal(emulator: Emulator, command: Command) -> None:
    """What can't end at the first SIGTERM, such as a command whose reader reads nothing, ends at the second."""
    reader, writer = os.pipe()
    process = await command.start("result", emulator.add_task(DONE, text="long " * 100_000), stdout=writer)
    os.close(writer)
    await asyncio.to_thread(os.read, reader, 1)

    def is_over() -> bool:
        if process.returncode is None:
            process.terminate()
        return process.returncode is not None

    await until(is_over)
    os.close(reader)
    assert await command.finish(process)
    assert process.returncode == -signal.SIGTERM


def test_signals_are_as_before() -> None:
    """What signals do is changed while a command waits, and put back when it ends."""
    program = (
        "import signal, sys\n"
        "from distribute_async.cli._commands import run\n"
        "names = ['SIGINT', 'SIGTERM', 'SIGHUP']\n"
        "handlers = [lambda *_: None for _ in names]\n"
        "for name, handler in zip(names, handlers): signal.signal(getattr(signal, name), handler)\n"
        f"sys.argv = ['distribute-async', 'wait', '--timeout', '0', '{UNKNOWN_ID}']\n"
        "print(run(), [signal.getsignal(getattr(signal, name)) for name in names] == handlers)\n"
    )
    env = {**os.environ, "DISTRIBUTE_API_KEY": API_KEY, "DISTRIBUTE_BASE_URL": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "4 True"


async def test_an_answer_cannot_steer_the_terminal(emulator: Emulator, command: Command) -> None:
    """In a terminal the control characters of an answer are spelt out; in a pipe the data are as they came."""
    text = "\x1b]0;owned\x07a\rb\tc\r\nd\x9b2J"
    task_id = emulator.add_task(DONE, text=text)
    terminal = Terminal(80)
    await command("result", task_id, stdout=terminal.slave)
    assert await terminal.all() == "\\x1b]0;owned\\x07a\\rb\tc\r\nd\\x9b2J\r\n"
    assert (await command("result", task_id)).out == text + "\n"


async def test_result_shows_its_waiting_on_stderr(emulator: Emulator, command: Command) -> None:
    """`result --wait` draws on a terminal's stderr while it waits, wipes that, and prints the answer alone."""
    task_id = emulator.add_task(DONE, text="yes", faults=[says("QUEUED"), says("POSTPONED")])
    terminal = Terminal(80)
    done = await command("result", "--wait", task_id, stderr=terminal.slave)
    shown = await terminal.all()
    assert (done.code, done.out) == (0, "yes\n")
    assert "POSTPONED" in shown
    assert shown.endswith("\x1b[2K")
