"""`wait`: a line as each task ends, ids as they come, and how far it is."""

from __future__ import annotations

import json
import re
import signal
from asyncio.subprocess import PIPE
from pathlib import Path

from distribute_async.emulator import Emulator, fault
from tests.cli.conftest import DONE, NEVER, Command, Terminal, says


async def test_a_line_as_each_ends(emulator: Emulator, command: Command) -> None:
    """Each outcome is a line, in the order of the ends: id, seconds, status."""
    slow = emulator.add_task(DONE, faults=[says("QUEUED")])
    quick = emulator.add_task(DONE)
    done = await command.here("wait", slow, quick, slow)
    fields = [line.split() for line in done.out.splitlines()]
    assert [(name, status) for name, _, status in fields] == [(quick, "COMPLETED"), (slow, "COMPLETED")]
    assert 0 <= float(fields[0][1]) < float(fields[1][1])
    assert (done.code, done.err) == (0, "")


async def test_all_endings(emulator: Emulator, command: Command) -> None:
    """None is lost: a failed task, one that is refused and one that takes too long have lines, and stderr says why."""
    failed, refused = emulator.add_task([(0, "ERROR")]), emulator.add_task(DONE, faults=[fault.status(403)])
    late, good = emulator.add_task([(0, "QUEUED")]), emulator.add_task(DONE)
    done = await command.here("wait", "--timeout", "0.4", failed, refused, late, good)
    statuses = {name: status for name, _, status in map(str.split, done.out.splitlines())}
    assert statuses == {failed: "ERROR", refused: "-", late: "QUEUED", good: "COMPLETED"}
    assert done.code == 1
    errors = done.err.splitlines()
    assert sum(line.startswith("Error: ") for line in errors) == 3
    assert errors[-1] == f"To go on waiting: distribute-async wait --timeout 0.4 {late}"
    assert [(await command.here("wait", *ids)).code for ids in ([good], [good, failed])] == [0, 3]
    assert (await command.here("wait", "--timeout", "0.2", good, late)).code == 4


async def test_outcomes_as_json(emulator: Emulator, command: Command) -> None:
    """With --json each outcome is an object, a failed task's last answer and the error's type included."""
    good, failed = emulator.add_task(DONE, text="yes"), emulator.add_task([(0, "ERROR")])
    done = await command.here("wait", "--json", good, failed)
    outcomes = {outcome["task_id"]: outcome for outcome in map(json.loads, done.out.splitlines())}
    assert {tuple(outcome) for outcome in outcomes.values()} == {
        ("event", "task_id", "status", "elapsed", "result", "error")
    }
    assert outcomes[good]["result"]["choices"][0]["message"]["content"] == "yes"
    assert (outcomes[failed]["result"]["status"], outcomes[failed]["error"]["type"]) == ("ERROR", "TaskFailedError")
    assert (done.code, outcomes[good]["error"]) == (3, None)


async def test_ids_as_they_come(emulator: Emulator, command: Command) -> None:
    """An id on standard input is waited for at once and once, while more may follow; blank lines are nothing."""
    first, second = emulator.add_task(DONE), emulator.add_task(DONE)
    process = await command.start("wait", "-", stdin=PIPE)
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{first}\n\n{first}\n".encode())
    assert (await process.stdout.readline()).decode().split()[0] == first
    process.stdin.write(f"  {second}".encode())
    process.stdin.close()
    done = await command.finish(process)
    assert (done.code, done.out.split()[0], done.err) == (0, second, "")


async def test_a_thousand_in_a_file(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """A thousand ids in a file are all waited for; one that is none has a line as well, and is exit code 2."""
    ids = {emulator.add_task(DONE) for _ in range(1000)}
    file = tmp_path / "ids.txt"
    file.write_text("\n".join([*ids, "not an id"]))
    with file.open() as opened:
        done = await command.finish(await command.start("wait", "-", stdin=opened))
    lines = [line.rsplit(maxsplit=2) for line in done.out.splitlines()]
    assert {name for name, _, status in lines if status == "COMPLETED"} == ids
    assert [name for name, _, status in lines if status == "-"] == ["not an id"]
    assert (done.code, len(lines)) == (2, 1001)
    assert done.err.startswith("Error: a task id is a version 4 UUID")


async def test_ctrl_c_while_ids_may_come(emulator: Emulator, command: Command) -> None:
    """Ctrl-C ends it at once, though the pipe of ids is open; the hint names what hasn't ended, or counts it."""
    good, slow = emulator.add_task(DONE), [emulator.add_task([(0, "QUEUED"), (NEVER, "ERROR")]) for _ in range(30)]
    for ids, hint in [
        (slow[:1], f"To go on waiting: distribute-async wait {slow[0]}\n"),
        (slow, "30 tasks haven't ended: to go on waiting, give their ids again.\n"),
    ]:
        process = await command.start("wait", "-", stdin=PIPE)
        assert process.stdin
        assert process.stdout
        process.stdin.write("".join(f"{name}\n" for name in [*ids, good]).encode())
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        done = await command.finish(process)
        assert (done.out, done.err) == ("", hint)


async def test_how_far_it_is(emulator: Emulator, command: Command) -> None:
    """On a terminal stderr has one line that is redrawn and fits it, gone in the end; stdout has the outcomes alone."""
    task_id = emulator.add_task(DONE, faults=[says("QUEUED"), says("PROCESSING")])
    terminal = Terminal(30)
    done = await command("wait", task_id, stderr=terminal.slave)
    shown = await terminal.all()
    assert re.search(r"1 waiting, 0 done", shown)
    assert max(map(len, re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)))) < 30
    assert shown.endswith("\r\x1b[2K")
    assert re.fullmatch(rf"{task_id} +\d+\.\d\d COMPLETED\n", done.out)


async def test_how_far_it_is_beside_the_outcomes(emulator: Emulator, command: Command) -> None:
    """Where both go to one terminal, each outcome stands on a line of its own."""
    quick, slow = emulator.add_task(DONE), emulator.add_task(DONE, faults=[says("QUEUED")])
    terminal = Terminal(80)
    await command("wait", quick, slow, stdout=terminal.slave, stderr=terminal.slave)
    shown = re.sub(r"\r(?!\n)[^\n]*\x1b\[2K", "", await terminal.all())
    assert [line.split()[0] for line in shown.replace("\r\n", "\n").splitlines()] == [quick, slow]
