"""In a terminal: the live table, colours, and text that would steer it."""

from __future__ import annotations

import re
import signal

import pytest

from distribute_async.emulator import Emulator
from tests.cli.conftest import DONE, NEVER, Command, Terminal, says

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


async def test_ctrl_c_leaves_the_terminal_usable(emulator: Emulator, command: Command) -> None:
    """After Ctrl-C the table stays, the cursor is back, and the hint stands on a line of its own."""
    task_id = emulator.add_task([(0, "QUEUED"), (NEVER, "COMPLETED")])
    terminal = Terminal(100)
    process = await command.start("watch", task_id, stdout=terminal.slave, stderr=terminal.slave)
    await terminal.shows("QUEUED")
    process.send_signal(signal.SIGINT)
    assert (await command.finish(process)).code == 130
    shown = await terminal.all()
    lines = terminal.lines(shown)
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert f"To go on waiting: distribute-async watch {task_id}" in lines
    assert "Traceback" not in shown


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
