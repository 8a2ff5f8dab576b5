"""The plugin as users get it: from the wheel with its extra, in an environment of its own, away from the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.conftest import Project
from tests.wheels import environment_with


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel, what the extra brings, and anyio."""
    return environment_with(tmp_path_factory.mktemp("wheel"), f"{wheel}[testing]", "anyio") / "python"


USED = """
import asyncio
import pytest
from distribute_async import wait_for_result
from distribute_async.emulator import fault

@pytest.mark.asyncio
@pytest.mark.looptime
async def test_an_hour_passes(distribute_emulator, distribute_client):
    begin = asyncio.get_running_loop().time()
    life = [(0, "QUEUED"), (1800, "PROCESSING"), (3600, "COMPLETED")]
    task_id = distribute_emulator.add_task(life, text="yes", faults=[fault.status(503)])
    assert (await distribute_client.wait_for_result(task_id, timeout=None)).text == "yes"
    assert 3600 <= asyncio.get_running_loop().time() - begin < 3610
    assert distribute_emulator.requests[0].status == 503

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_moment_passes(distribute_emulator, anyio_backend):
    task_id = distribute_emulator.add_task([(0, "QUEUED"), (0.1, "COMPLETED")], text="yes")
    assert (await wait_for_result(task_id)).text == "yes"
"""

UNUSED = """
import sys

def test_the_plugin_costs_nothing(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("distribute_async.testing")
    ours = {name for name in sys.modules if name.partition(".")[0] == "distribute_async"}
    assert ours == {"distribute_async", "distribute_async.testing"}
    assert not {"aiohttp", "attr", "attrs", "backoff", "cattrs"} & sys.modules.keys()
"""


def test_a_project_that_only_installs_the_wheel(environment: Path, tmp_path: Path) -> None:
    """The fixtures are there without a word in the project, and an hour passes."""
    done = Project(tmp_path, environment).test({"test_it.py": USED})
    assert done.counts == {"passed": 2}, done.output


@pytest.mark.parametrize("how", ["by its entry point", "by a conftest too", "by an option too"])
def test_a_project_that_does_not_use_it(how: str, environment: Path, tmp_path: Path) -> None:
    """Before a test asks for a fixture, only the package and the plugin are imported, however the plugin is named."""
    files = {"test_it.py": UNUSED}
    if how == "by a conftest too":
        files["conftest.py"] = "pytest_plugins = ['distribute_async.testing']\n"
    options = ["-pdistribute_async.testing"] if how == "by an option too" else []
    done = Project(tmp_path, environment).test(files, *options)
    assert done.counts == {"passed": 1}, done.output
