"""`emulator`, `demo`, what there is without the extra, and the command as a whole."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import time
import wave
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import aiohttp
import pytest

from distribute_async import DistributeClient, NotFoundError
from distribute_async.emulator import Emulator
from distribute_async.emulator._fates import draw_lot
from tests.cli.conftest import API_KEY, UNKNOWN_ID, Command, Terminal
from tests.emulator import calls
from tests.emulator.test_files import pixels


@asynccontextmanager
async def running(command: Command, *args: str) -> AsyncIterator[tuple[Process, str, str]]:
    """An emulator's process, its address, and what it says on standard error; ended in the end."""
    process = await command.start("emulator", *args)
    assert process.stdout
    assert process.stderr
    url = (await process.stdout.readline()).decode().strip()
    said = (await process.stderr.readuntil(b"Ctrl-C ends it.\n")).decode()
    yield process, url, said
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        assert (await command.finish(process)).code == 0


async def an_id(url: str, key: str) -> str:
    """The id of a new task."""
    async with DistributeClient(key, base_url=url) as client:
        return (await client.submit(model="m", messages=[{"role": "user", "content": "Why?"}])).task_id


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_emulator(number: signal.Signals, command: Command) -> None:
    """The emulator prints its address at once, and on stderr a key that works; SIGINT and SIGTERM end it cleanly."""
    async with running(command, "--seed", "7") as (process, url, said):
        exports = dict(re.findall(r"export (\w+)=(\S+)", said))
        assert exports["DISTRIBUTE_BASE_URL"] == url
        assert "--seed" not in said
        async with DistributeClient(exports["DISTRIBUTE_API_KEY"], base_url=url) as client:
            with pytest.raises(NotFoundError):
                await client.fetch(UNKNOWN_ID)
            process.send_signal(number)
            done = await command.finish(process)
    assert (done.code, done.out, done.err) == (0, "", "")


async def test_the_emulator_repeats_itself_on_demand_only(command: Command) -> None:
    """Each start has its own ids and key; the seed that it says makes the same ones again."""
    async with running(command) as (_, url, said), running(command, "--api-key", API_KEY) as (_, other_url, other):
        key, seed = re.findall(r"DISTRIBUTE_API_KEY=(\S+)\n--seed (\d+) makes the same tasks again", said)[0]
        assert re.fullmatch(r"--seed \d+ makes the same tasks again\.\nCtrl-C ends it\.\n", other)
        first = await an_id(url, key)
        assert await an_id(other_url, API_KEY) != first
    async with running(command, "--seed", seed) as (_, url, said):
        assert key in said
        assert await an_id(url, key) == first


async def test_a_fast_emulator(command: Command) -> None:
    """A life of minutes takes so much less at a high speed."""
    assert draw_lot(44, 0).timeline[-1][0] > 150
    async with running(command, "--seed", "44", "--api-key", API_KEY, "--speed", "1000") as (_, url, _):
        done = await command.here("wait", "--timeout", "60", "--base-url", url, await an_id(url, API_KEY))
    assert done.code == 0


async def outcome(session: aiohttp.ClientSession, url: str) -> object:
    """What a question for an unknown task comes to."""
    try:
        return await calls.post(session, f"{url}{calls.RESULT}", {"id": UNKNOWN_ID})
    except aiohttp.ClientError as error:
        return type(error)


async def test_an_emulator_in_trouble(command: Command) -> None:
    """With a fault rate of 1 every request meets a fault, the one that its seed has for it."""
    async with (
        running(command, "--seed", "7", "--api-key", API_KEY, "--fault-rate", "1") as (_, url, _),
        Emulator(API_KEY, seed=7, fault_rate=1) as here,
        aiohttp.ClientSession(headers={"Authorization": API_KEY}) as session,
    ):
        outcomes = [await outcome(session, at) for at in (url, here.base_url)]
    assert outcomes[0] == outcomes[1] != (404, {"message": "task not found"})


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--api-key", ""], "api_key must be visible ASCII"),
        (["--api-key", " secret"], "api_key must be visible ASCII"),
        (["--api-key", "g\u00e9heim"], "api_key must be visible ASCII"),
        (["--host", ""], "it is empty"),
        (["--seed", "x"], "--seed"),
        *((["--speed", value], "'--speed'") for value in ("0", "-1", "nan", "inf", "1001")),
        *((["--fault-rate", value], "'--fault-rate'") for value in ("-0.1", "1.1", "nan")),
    ],
)
async def test_wrong_usage_of_the_emulator(args: list[str], words: str, command: Command) -> None:
    """What can't work is one line, with the option's name, and exit code 2."""
    done = await command.here("emulator", *args)
    assert (done.code, done.out) == (2, "")
    error = done.err.splitlines()[-1]
    assert args[0] in error
    assert words in error
    assert "secret" not in done.err
    assert "heim" not in done.err


async def test_a_host_that_is_none(command: Command) -> None:
    """A host that can be no name is one line and exit code 1."""
    done = await command.here("emulator", "--host", "not..a.name")
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert done.err.startswith("Error: can't listen on not..a.name, port 0: ")


async def test_the_emulator_in_the_background(command: Command) -> None:
    """Started where SIGINT is ignored, as by `&` in a script, it takes the key given to it, and SIGTERM ends it."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = await command.start("emulator", "--api-key", API_KEY)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert process.stdout
    url = (await process.stdout.readline()).decode().strip()
    async with DistributeClient(API_KEY, base_url=url) as client:
        with pytest.raises(NotFoundError):
            await client.fetch(UNKNOWN_ID)
    process.send_signal(signal.SIGTERM)
    assert await command.finish(process)
    assert process.returncode == 0


async def test_a_port_in_use(emulator: Emulator, command: Command) -> None:
    """An emulator that can't listen says so and exits with 1."""
    port = emulator.base_url.rpartition(":")[2]
    done = await command("emulator", "--port", port)
    assert (done.code, done.out) == (1, "")
    assert (
        done.err
        == f"Error: can't listen on 127.0.0.1, port {port}: address already in use; --port 0 takes a free one\n"
    )


async def test_the_emulator_dates_its_tasks_by_the_clock(command: Command) -> None:
    """A task of the command's emulator was created when it was submitted, by the calendar."""
    process = await command.start("emulator", "--api-key", API_KEY)
    assert process.stdout
    url = (await process.stdout.readline()).decode().strip()
    before = time.time()
    async with DistributeClient(API_KEY, base_url=url) as client:
        task = await client.submit(model="m", messages=[{"role": "user", "content": "Why?"}])
        created = (await client.fetch(task.id)).created
    process.send_signal(signal.SIGTERM)
    assert (await command.finish(process)).code == 0
    assert before - 0.001 <= created <= time.time() + 0.001  # it is rounded


async def test_the_demo_in_a_pipe(command: Command, tmp_path: Path) -> None:
    """The demo says what goes on, prints what happens, and ends with each task's figures, path and answer.

    The picture and the sound that it names at the end open.
    """
    command.env["TMPDIR"] = str(tmp_path)
    done = await command("demo", "--speed", "8")
    assert (done.code, done.err) == (0, "")
    introduction, changes, stories, ending = done.out.split("\n\n")
    assert introduction.startswith("A local emulator")
    assert re.search(r"^ +\d\.\d s  over before anyone asks: COMPLETED$", changes, re.MULTILINE)
    told = stories.splitlines()[1:]
    for name, path in zip(told[::2], told[1::2], strict=True):
        assert re.search(r" \d\.\d s +\d+  \w", name)
        assert re.fullmatch(r"  (\w+ → )*(COMPLETED|ERROR)", path)
    assert stories.count("none: the task failed") == 1
    assert 'get_weather({"city"' in stories
    assert ending.startswith("14 completed and 1 failed, each as its fate has it")
    assert max(map(len, [*introduction.splitlines(), *changes.splitlines(), *stories.splitlines()])) <= 80
    picture, sound_file = (tmp_path / line.strip() for line in ending.splitlines()[-2:])
    assert (picture.name, sound_file.name) == ("picture.png", "sound.wav")
    assert pixels(picture.read_bytes())[:2] == (512, 512)
    with wave.open(io.BytesIO(sound_file.read_bytes())) as sound:
        assert sound.getnframes() == sound.getframerate()


@pytest.mark.parametrize("columns", [80, 50])
async def test_the_demo_in_a_terminal(columns: int, command: Command, tmp_path: Path) -> None:
    """The demo's live table and stories fit the terminal, and statuses are coloured."""
    command.env["TMPDIR"] = str(tmp_path)
    terminal = Terminal(columns, rows=30)
    done = await command("demo", "--speed", "8", stdout=terminal.slave)
    shown = await terminal.all()
    lines = terminal.lines(shown.partition("Saved, for")[0])  # of whole paths, that can be copied
    assert done.code == 0
    assert "\x1b[32mCOMPLETED" in shown
    assert any(re.match(r"a usual life +\w+", line) for line in lines)
    assert any(line.startswith("Fate, and the path seen") for line in lines)


async def test_the_demo_cut_short(command: Command) -> None:
    """Ctrl-C and a closed pipe end the demo quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    process = await command.start("demo")
    assert process.stdout
    while (line := await process.stdout.readline()) and b"COMPLETED" not in line:
        pass
    process.send_signal(signal.SIGINT)
    interrupted, unread = await asyncio.gather(command.finish(process), command("demo", stdout=writer))
    os.close(writer)
    assert (interrupted.code, interrupted.err) == (130, "")
    assert (unread.code, unread.err) == (141, "")


@pytest.mark.parametrize("library", ["click", "rich"])
def test_without_the_extra(library: str) -> None:
    """Without click or rich the command says what to install, and exits with 5."""
    program = f"import sys; sys.modules[{library!r}] = None; from distribute_async.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == (
        f"The command line needs {library}, which is not installed: pip install 'distribute-async[cli]'\n"
    )


async def test_the_version(command: Command) -> None:
    """`--version` names the program and the installed version."""
    done = await command("--version")
    assert (done.code, done.out) == (0, f"distribute-async, version {version('distribute-async')}\n")


def test_the_version_needs_no_library() -> None:
    """`--version` imports what shows it, and neither the library nor rich."""
    program = """if True:
        import sys
        from distribute_async.cli import main
        sys.argv = ["distribute-async", "--version"]
        try:
            main()
        finally:
            print({"aiohttp", "attrs", "cattrs", "rich"} & sys.modules.keys())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["set()"]
