"""A test of this project that would never end fails all the same, with a traceback; in a pytest of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.wheels import ROOT

#: The callback is nearly always running: an exception that a signal raises there goes to asyncio, which only logs it.
CALLBACKS = """
import asyncio

async def test_hanging():
    loop = asyncio.get_running_loop()

    def reschedules_itself():
        loop.call_soon(reschedules_itself)
        sum(range(20_000))

    reschedules_itself()
    await asyncio.Event().wait()
"""
WAITING = """
import asyncio

async def test_hanging():
    await asyncio.Event().wait()
"""


@pytest.mark.parametrize(
    ("test", "line", "options"),
    [
        (WAITING, "FAILED test_it.py::test_hanging - Failed: Timeout", []),
        (CALLBACKS, "in reschedules_itself", []),
        (CALLBACKS, "in reschedules_itself", ["-n", "1", "--max-worker-restart", "0"]),
    ],
    ids=["waiting", "callbacks", "callbacks under xdist"],
)
async def test_a_test_that_never_ends_fails(test: str, line: str, options: list[str], tmp_path: Path) -> None:
    """By this project's settings, with shorter times, a hanging test fails and the place where it hangs is shown."""
    (tmp_path / "test_it.py").write_text(test)
    times = ["--override-ini=timeout=1", "--override-ini=faulthandler_timeout=2"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "test_it.py"),
        *("-p", "no:cacheprovider", "-p", "no:schemathesis", *times, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1
    assert line in out.decode()
