"""The command as a process, against an emulator on the test's loop. Real clock: processes know no other."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from distribute_async.cli._commands import run
from distribute_async.emulator import Emulator, Fault, fault

API_KEY = "0123456789abcdef0123456789abcdef"
NEVER = 1e6
DONE = [(0.0, "COMPLETED")]
UNKNOWN_ID = "0c2b6e5e-6f0e-4b0e-9d3c-6d1f2a7b8c9d"

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What is started here can be interrupted, even where SIGINT is ignored, as by `&` in a script."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def says(status: str, **more: Any) -> Fault:
    """One answer of the service with this status: lives by polls instead of seconds."""
    answer = {"status": status, "created": 1.0, "model": "m", "choices": [], **more}
    return fault.status(200, body=json.dumps(answer).encode(), content_type="application/json")


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what a process does."""
    while not is_so():  # noqa: ASYNC110 - it sets no event of ours
        await asyncio.sleep(0.01)


def names_in(folder: Path) -> list[str]:
    """The names of the files there."""
    return sorted(file.name for file in folder.iterdir())


@frozen
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


class Command:
    """Runs `python -m distribute_async.cli`, and holds every run to what none may do."""

    def __init__(self, emulator: Emulator) -> None:
        self._turn = asyncio.Lock()
        left_out = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "PYTHONUNBUFFERED"}
        self.env = {name: value for name, value in os.environ.items() if name not in left_out}
        self.env |= {
            "DISTRIBUTE_API_KEY": API_KEY,
            "DISTRIBUTE_BASE_URL": emulator.base_url,
            "PYTHONUTF8": "1",
            "TERM": "xterm-256color",
        }

    async def start(self, *args: str, **options: Any) -> Process:
        pipes: dict[str, Any] = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE, "env": self.env} | options
        return await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "distribute_async.cli", *args, **pipes
        )

    async def redirected(self, redirection: str, *args: str) -> Done:
        """The same behind a shell's redirection, such as `2>&-`."""
        command = ["sh", "-c", f'exec "$@" {redirection}', "sh"]
        command += [sys.executable, "-W", "error", "-m", "distribute_async.cli", *args]
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=self.env)
        return await self.finish(process)

    async def here(self, *args: str, stdin: str | bytes = "") -> Done:
        """The same within this process, in a thread: quicker, where no signal, pipe or terminal matters."""
        async with self._turn:  # there is one standard output
            return self._checked(await asyncio.to_thread(self._run, args, stdin))

    def _run(self, args: Sequence[str], stdin: str | bytes) -> Done:
        given = io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)
        out, err = io.BytesIO(), io.BytesIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["distribute-async", *args])
            for name, value in self.env.items():
                patch.setenv(name, value)
            for name, stream in (("stdin", given), ("stdout", out), ("stderr", err)):
                patch.setattr(sys, name, io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace"))
            code = run()
            sys.stdout.flush()
            sys.stderr.flush()
            return Done(code, out.getvalue().decode(), err.getvalue().decode())

    async def finish(self, process: Process, stdin: str | None = None) -> Done:
        out, err = await process.communicate(None if stdin is None else stdin.encode())
        assert process.returncode is not None
        return self._checked(Done(process.returncode, (out or b"").decode(), (err or b"").decode()))

    def _checked(self, done: Done) -> Done:
        assert not re.search("Traceback|Warning|Exception ignored", done.err), done.err
        assert API_KEY not in done.out + done.err
        return done

    async def __call__(self, *args: str, stdin: str | None = None, **options: Any) -> Done:
        piped = {} if stdin is None else {"stdin": PIPE}
        return await self.finish(await self.start(*args, **piped, **options), stdin)


class Terminal:
    """A pseudo-terminal to run a command in."""

    def __init__(self, columns: int, rows: int = 24) -> None:
        self._master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, (rows, columns))
        self._columns = columns
        self._shown = bytearray()
        self._is_over = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's word for: nobody writes here any more
            data = b""
        self._shown += data
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
            self._is_over.set()

    async def shows(self, text: str) -> None:
        """Until this has been written."""
        await until(lambda: text in self._shown.decode(errors="replace"))

    def hang_up(self) -> None:
        """Take it away from whoever uses it."""
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self.slave)
        os.close(self._master)

    async def all(self) -> str:
        """All that was written by its end, escape sequences included."""
        os.close(self.slave)
        await self._is_over.wait()
        os.close(self._master)
        return self._shown.decode()

    def lines(self, shown: str) -> list[str]:
        """Its lines without escape sequences. Fails where one is wider than the terminal."""
        lines = [line.rpartition("\r")[2] for line in _ESCAPES.sub("", shown).replace("\r\n", "\n").split("\n")]
        assert max(map(len, lines)) <= self._columns
        return lines


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(API_KEY) as emulator:
        yield emulator


@pytest.fixture
def command(emulator: Emulator) -> Command:
    return Command(emulator)
