"""What is built and installed: the wheel alone, in a fresh environment without extras."""

from __future__ import annotations

import asyncio
import os
import tomllib
import zipfile
from collections.abc import Sequence
from email.parser import Parser
from itertools import chain
from pathlib import Path

import pytest
from attrs import frozen
from packaging.requirements import Requirement

from distribute_async.emulator import Emulator
from tests.wheels import ROOT, environment_with

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@frozen
class Installed:
    """The built wheel, and an environment that holds it and what it needs."""

    wheel: Path
    scripts: Path

    async def run(self, command: Sequence[str | Path], **environment: str) -> tuple[int, str, str]:
        """Run a command of the environment, away from the checkout; gives its code and what it said."""
        python_only = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
        process = await asyncio.create_subprocess_exec(
            self.scripts / command[0],
            *command[1:],
            cwd=self.scripts,
            env=python_only | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An environment with the wheel alone."""
    return Installed(wheel, environment_with(tmp_path_factory.mktemp("packaging"), wheel))


WAIT = """
import asyncio, sys
from distribute_async import DistributeClient, TaskStatus, wait_for_result, watch

async def main():
    print([str(status) async for status in watch(sys.argv[1])])
    async with DistributeClient() as client:
        print((await wait_for_result(sys.argv[1], client=client)).text)

asyncio.run(main())
unwanted = {"click", "rich", "orjson", "distribute_async.emulator", "aiohttp.web"}
print(sorted(unwanted & sys.modules.keys()))
"""


async def test_the_wheel_works_without_extras(installed: Installed) -> None:
    """In an environment with nothing but the wheel and what it needs, a wait against the service works."""
    async with Emulator() as emulator:
        task_id = emulator.add_task([(0, "COMPLETED")], text="yes")
        code, out, err = await installed.run(
            ["python", "-W", "error", "-c", WAIT, task_id],
            DISTRIBUTE_API_KEY=emulator.api_key,
            DISTRIBUTE_BASE_URL=emulator.base_url,
        )
    assert (code, err) == (0, "")
    assert out.splitlines() == ["['COMPLETED']", "yes", "[]"]


async def test_only_what_is_declared_is_installed(installed: Installed) -> None:
    """The environment holds the core's four libraries and theirs, and none of an extra's."""
    program = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    code, out, _ = await installed.run(["python", "-c", program])
    assert code == 0
    assert {"distribute-async", "aiohttp", "attrs", "backoff", "cattrs"} <= set(out.split())
    assert {"click", "rich", "orjson", "pytest"}.isdisjoint(out.split())


@pytest.mark.parametrize(
    "command",
    [["distribute-async"], ["distribute-async", "demo"], ["python", "-m", "distribute_async.cli", "--version"]],
    ids=" ".join,
)
async def test_the_command_says_what_to_install(command: list[str], installed: Installed) -> None:
    """Without the extra `cli` the command says in one line how to get it, and exits with 5."""
    code, out, err = await installed.run(command)
    assert (code, out) == (5, "")
    assert "pip install 'distribute-async[cli]'" in err
    assert len(err.splitlines()) == 1


def test_the_wheel_holds_the_package_and_nothing_else(installed: Installed) -> None:
    """The wheel has every module, the marker of its types and the licence, and brings no other name to import."""
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
    files = [path for path in (ROOT / "distribute_async").rglob("*") if path.is_file()]
    sources = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert "distribute_async/py.typed" in sources
    assert {name for name in names if not name.partition("/")[0].endswith(".dist-info")} == sources
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"distribute_async"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_metadata_is_whole(installed: Installed) -> None:
    """Name, version, licence, Python and dependencies are as the project file says, the extras apart."""
    with zipfile.ZipFile(installed.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(wheel.read(name).decode())
    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert (metadata["License-Expression"], metadata["License-File"]) == ("MIT", "LICENSE")
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert sorted(line.partition(">=")[0] for line in needed) == ["aiohttp", "attrs", "backoff", "cattrs"]
    assert set(metadata.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])


def test_the_lowest_versions_are_what_is_tried() -> None:
    """constraints-lowest.txt, which `make lowest` installs, pins each dependency of a user's at its floor."""
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pins = {pin.name: pin.specifier for pin in (Requirement(line) for line in lines if not line.startswith("#"))}
    floors = [Requirement(text) for text in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())]
    assert len(floors) >= 12
    for floor in floors:
        (lowest,) = floor.specifier
        assert lowest.operator == ">="
        assert pins[floor.name].contains(lowest.version), f"{floor} isn't what is pinned: make lowest-pins"
