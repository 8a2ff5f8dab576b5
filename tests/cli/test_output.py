"""`--output` for a chat: a file that is there as a whole or not at all, links, devices and pipes."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
from pathlib import Path

import pytest

from distribute_async.emulator import Emulator
from tests.cli.conftest import DONE, Command, Terminal, names_in

LONG = "long " * 10_000


@pytest.fixture
async def task_id(emulator: Emulator) -> str:
    return emulator.add_task(DONE, text=LONG)


@pytest.mark.parametrize("was_there", [True, False])
async def test_a_full_disk(was_there: bool, task_id: str, command: Command, tmp_path: Path) -> None:
    """Where the disk takes no more, the file is as it was, nothing else is left, and one line says why."""
    file = tmp_path / "answer.txt"
    if was_there:
        file.write_text("what was there")
    process = await command.start(
        *("result", "--output", str(file), task_id),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    done = await command.finish(process)
    assert (done.code, done.out, done.err) == (1, "", f"Error: can't write {str(file)!r}: File too large\n")
    assert names_in(tmp_path) == ["answer.txt"] * was_there
    assert not was_there or file.read_text() == "what was there"


async def test_it_is_on_the_disk_first(
    task_id: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is on the disk before it takes the name, so that losing power leaves the old file or the new one."""
    file, synced = tmp_path / "answer.txt", list[tuple[str, int]]()
    file.write_text("what was there")
    sync = os.fsync

    def spy(descriptor: int) -> None:
        synced.append((file.read_text(), os.fstat(descriptor).st_size))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    assert (await command.here("result", "--output", str(file), task_id)).code == 0
    assert synced == [("what was there", len(LONG) + 1)]


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
async def test_permissions_stay(mode: int, task_id: str, command: Command, tmp_path: Path) -> None:
    """A file that is written anew keeps its permissions; a new one has the usual ones."""
    old, new, usual = tmp_path / "old.txt", tmp_path / "new.txt", tmp_path / "usual.txt"
    usual.touch()
    old.touch()
    old.chmod(mode)
    for file in (old, new):
        assert (await command.here("result", "--output", str(file), task_id)).code == 0
        assert file.read_text() == f"{LONG}\n"
    assert stat.S_IMODE(old.stat().st_mode) == mode
    assert new.stat().st_mode == usual.stat().st_mode
    assert names_in(tmp_path) == ["new.txt", "old.txt", "usual.txt"]


@pytest.mark.parametrize("was_there", [True, False])
async def test_a_link_stays(was_there: bool, task_id: str, command: Command, tmp_path: Path) -> None:
    """A link to a link to a file stays one: what it leads to is written, in the folder where that is."""
    (tmp_path / "far").mkdir()
    file, second, link = tmp_path / "far" / "answer.txt", tmp_path / "second.txt", tmp_path / "link.txt"
    second.symlink_to(Path("far") / "answer.txt")
    link.symlink_to(second)
    if was_there:
        file.write_text("what was there")
        file.chmod(0o600)
    assert (await command.here("result", "--output", str(link), task_id)).out == f"{link}\n"
    assert link.is_symlink()
    assert second.is_symlink()
    assert file.read_text() == f"{LONG}\n"
    assert not was_there or stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names_in(tmp_path / "far") == ["answer.txt"]


@pytest.mark.parametrize("is_linked", [True, False])
async def test_a_pipe_is_written_to(is_linked: bool, task_id: str, command: Command, tmp_path: Path) -> None:
    """A named pipe, or a link to one, takes the answer and stays a pipe."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
    done = await command.here("result", "--output", str(link if is_linked else pipe), task_id)
    assert (done.code, await reading) == (0, f"{LONG}\n")
    assert pipe.is_fifo()
    assert names_in(tmp_path) == ["link", "pipe"]


async def test_a_device_is_written_to(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """A device takes the answer, in a folder that nobody can write to; one that is full says so."""
    task_id, terminal = emulator.add_task(DONE, text="yes"), Terminal(80)
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    assert (await command.here("result", "--output", os.ttyname(terminal.slave), task_id)).code == 0
    full = await command.here("result", "--output", str(link), task_id)
    assert await terminal.all() == "yes\r\n"
    assert (full.code, full.out) == (1, "")
    assert full.err == f"Error: can't write {str(link)!r}: No space left on device\n"
    assert link.is_char_device()
    assert names_in(tmp_path) == ["link"]


async def test_standard_output_as_a_file(emulator: Emulator, command: Command) -> None:
    """/dev/stdout takes the answer as well, also where it is a pipe."""
    done = await command("result", "--output", "/dev/stdout", emulator.add_task(DONE, text="yes"))
    assert (done.code, done.out, done.err) == (0, "yes\n/dev/stdout\n", "")


async def test_where_nothing_can_be_written(task_id: str, emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """A file that can't be written, or a link to nowhere, is wrong usage before anything is sent."""
    link, loop = tmp_path / "link", tmp_path / "loop"
    link.symlink_to(tmp_path / "nowhere" / "answer.txt")
    loop.symlink_to(loop)
    for file in (link, loop):
        done = await command.here("submit", "--output", str(file), "Why?")
        assert (done.code, done.out, emulator.requests) == (2, "", [])
        assert str(file) in done.err
    assert names_in(tmp_path) == ["link", "loop"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
async def test_a_protected_file(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """A file that may only be read isn't replaced either, though its folder could be written to."""
    file = tmp_path / "answer.txt"
    file.write_text("what was there")
    file.chmod(0o400)
    done = await command.here("submit", "--output", str(file), "Why?")
    assert (done.code, emulator.requests, file.read_text()) == (2, [], "what was there")
