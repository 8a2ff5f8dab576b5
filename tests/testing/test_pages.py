"""The how-to pages: their programs are run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from distribute_async.emulator import Emulator
from tests.cli.conftest import says
from tests.testing.conftest import ANYIO, ASYNCIO, Project

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


def programs(page: str) -> dict[str, str]:
    """The code blocks of a page that begin with the name of a file."""
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    assert len(dict(blocks)) == len(blocks)
    return dict(blocks)


def test_the_example_of_a_test_passes(project: Project) -> None:
    """The complete example, and that of synchronous code, pass as they stand on the page."""
    files = programs("test-your-code.md")
    del files["conftest.py"]
    done = project.test(files, plugins=ASYNCIO)
    assert done.counts == {"passed": 6}, done.output


def test_the_example_passes_under_anyio(project: Project) -> None:
    """With the page's `anyio_backend` and the other mark the example passes under anyio's plugin too."""
    files = {name: text.replace("mark.asyncio", "mark.anyio") for name, text in programs("test-your-code.md").items()}
    # looptime asks for the loop between tests, which makes one that nobody closes: a warning, and so an error here.
    files["conftest.py"] += "\n\ndef pytest_sessionstart():\n    __import__('asyncio').set_event_loop(None)\n"
    done = project.test(files, plugins=ANYIO)
    assert done.counts == {"passed": 6}, done.output


#: The ends of a program's tasks, and how the lines begin that it says.
SAYS = {
    "one.py": (["COMPLETED"], ["Yes."]),
    "several.py": (["COMPLETED", "ERROR", "COMPLETED"], ["Yes.", "failed: the task ended in ERROR", "Yes."]),
    "progress.py": (["COMPLETED"], ["QUEUED", "COMPLETED"]),
}


def test_every_synchronous_program_is_run() -> None:
    """No program of the page is left out here."""
    assert programs("use-from-synchronous-code.md").keys() == SAYS.keys()


@pytest.mark.parametrize(("name", "ends", "lines"), [(name, *said) for name, said in SAYS.items()], ids=SAYS)
async def test_the_synchronous_programs_work(
    name: str, ends: list[str], lines: list[str], emulator: Emulator, tmp_path: Path
) -> None:
    """Each program of the synchronous page waits for its tasks and says what it says there."""
    (tmp_path / name).write_text(programs("use-from-synchronous-code.md")[name])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", tmp_path / name),
        *(emulator.add_task([(0, end)], text="Yes.", faults=[says("QUEUED")]) for end in ends),
        env=os.environ | {"DISTRIBUTE_API_KEY": emulator.api_key, "DISTRIBUTE_BASE_URL": emulator.base_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    said = out.decode().splitlines()
    assert len(said) == len(lines)
    assert [line[: len(wanted)] for line, wanted in zip(said, lines, strict=True)] == lines
