"""The fixtures, under each of the plugins that run asynchronous tests."""

from __future__ import annotations

import re

import pytest

from tests.testing.conftest import ANYIO, ASYNCIO, Project

TESTS = """
import asyncio, os
import pytest
from distribute_async import DistributeClient, wait_for_result

HOUR = [(0, "QUEUED"), (3600, "COMPLETED")]
MOMENT = [(0, "QUEUED"), (0.1, "COMPLETED")]

def now():
    return asyncio.get_running_loop().time()

@pytest.mark.RUNNER
@pytest.mark.looptime
async def test_an_hour_passes(distribute_emulator, distribute_client):
    begin = now()
    task_id = distribute_emulator.add_task(HOUR, text="yes")
    assert (await distribute_client.wait_for_result(task_id, timeout=None)).text == "yes"
    assert 3600 <= now() - begin < 3610
    assert {request.task_id for request in distribute_emulator.requests} == {task_id}
    first, second = distribute_emulator.requests[:2]
    assert second.time - first.time == pytest.approx(0.375)  # three quarters of 0.5 s, instead of half to all of it

@pytest.mark.RUNNER
@pytest.mark.looptime
async def test_an_hour_passes_without_a_client_in_hand(distribute_emulator):
    begin = now()
    assert (await wait_for_result(distribute_emulator.add_task(HOUR, text="yes"), timeout=None)).text == "yes"
    assert 3600 <= now() - begin < 3610

@pytest.mark.RUNNER
async def test_the_real_clock(distribute_client, distribute_emulator):
    begin = now()
    task_id = distribute_emulator.add_task(MOMENT, text="yes")
    assert (await distribute_client.wait_for_result(task_id)).text == "yes"
    assert now() - begin >= 0.1
    async with DistributeClient() as client:
        assert (await client.fetch(task_id)).text == "yes"

@pytest.mark.RUNNER
async def test_the_client_alone(distribute_client):
    assert os.environ["DISTRIBUTE_BASE_URL"].startswith("http://127.0.0.1:")
    assert distribute_client.chat is not None

class TestInAClass:
    @pytest.mark.RUNNER
    async def test_a_method(self, distribute_emulator):
        assert (await wait_for_result(distribute_emulator.add_task(MOMENT, text="yes"))).text == "yes"

def test_the_environment_is_as_before():
    assert "DISTRIBUTE_API_KEY" not in os.environ
    assert "DISTRIBUTE_BASE_URL" not in os.environ
"""

# `anyio_backend` is the recipe of docs/how-to/test-your-code.md. Without the other function looptime, which asks for
# the loop between tests, would make one that nobody closes: a warning, and so an error here.
ANYIO_CONFTEST = """
import asyncio
import looptime, pytest

def pytest_sessionstart():
    asyncio.set_event_loop(None)

@pytest.fixture
def anyio_backend(request):
    virtual = request.node.get_closest_marker("looptime")
    return "asyncio", {"loop_factory": looptime.new_event_loop if virtual else None}
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_under_pytest_asyncio(mode: str, project: Project) -> None:
    """Both fixtures work under pytest-asyncio, on the virtual clock and on the real one."""
    marked = TESTS.replace("RUNNER", "asyncio") if mode == "strict" else re.sub(" *@pytest.mark.RUNNER\n", "", TESTS)
    done = project.test({"test_it.py": marked}, f"--asyncio-mode={mode}", plugins=ASYNCIO)
    assert done.counts == {"passed": 6}, done.output


def test_under_anyio(project: Project) -> None:
    """Both fixtures work under anyio's plugin, on the virtual clock and on the real one."""
    files = {"conftest.py": ANYIO_CONFTEST, "test_it.py": TESTS.replace("RUNNER", "anyio")}
    done = project.test(files, plugins=ANYIO)
    assert done.counts == {"passed": 6}, done.output


def test_beside_the_plugin_of_aiohttp(project: Project) -> None:
    """Where aiohttp's own plugin is loaded too, the fixtures work under both of the others."""
    files = {
        "conftest.py": ANYIO_CONFTEST,
        "test_asyncio.py": TESTS.replace("RUNNER", "asyncio"),
        "test_anyio.py": TESTS.replace("RUNNER", "anyio"),
    }
    done = project.test(files, plugins=(*ANYIO, "aiohttp.pytest_plugin"))
    assert done.counts == {"passed": 12}, done.output


def test_under_anyio_without_the_extra(project: Project) -> None:
    """The real clock needs nothing but anyio's plugin."""
    program = """
import sys
import pytest
from distribute_async import wait_for_result

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_moment(distribute_emulator, anyio_backend):
    task_id = distribute_emulator.add_task([(0, "QUEUED"), (0.1, "COMPLETED")], text="yes")
    assert (await wait_for_result(task_id)).text == "yes"
    assert "looptime" not in sys.modules
"""
    done = project.test({"test_it.py": program}, plugins=("anyio",))
    assert done.counts == {"passed": 1}, done.output


@pytest.mark.parametrize("default", ["function", "module", "session"])
def test_a_shared_loop(default: str, project: Project) -> None:
    """On a loop that tests share, by mark or by setting, the emulator is where the test is, and each has its own."""
    program = """
import pytest
from distribute_async import wait_for_result

async def check(text, emulator, client):
    task_id = emulator.add_task([(0, "COMPLETED")], text=text)
    assert (await client.wait_for_result(task_id)).text == text
    assert (await wait_for_result(task_id)).text == text
    assert [request.status for request in emulator.requests] == [200, 200]

@pytest.mark.looptime
class TestIt:
    @pytest.mark.asyncio
    @pytest.mark.parametrize("text", ["one", "two"])
    async def test_by_setting(self, text, distribute_emulator, distribute_client):
        await check(text, distribute_emulator, distribute_client)
"""
    scopes = ["class", "module", "package", "session"] if default == "function" else []
    for scope in scopes:
        program += f"""
    @pytest.mark.asyncio(loop_scope={scope!r})
    @pytest.mark.parametrize("text", ["one", "two"])
    async def test_by_mark_{scope}(self, text, distribute_emulator, distribute_client):
        await check(text, distribute_emulator, distribute_client)
"""
    done = project.test({"test_it.py": program}, f"-oasyncio_default_test_loop_scope={default}", plugins=ASYNCIO)
    assert done.counts == {"passed": 2 + 2 * len(scopes)}, done.output


def test_a_failed_test_fails_no_other(project: Project) -> None:
    """On a shared loop a failure, whose traceback holds on to what it had, leaves nothing to the tests after it."""
    program = """
import pytest
from distribute_async import wait_for_result

@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.looptime
@pytest.mark.parametrize("end", ["ERROR", "COMPLETED", "COMPLETED"])
async def test_an_end(end, distribute_emulator):
    await wait_for_result(distribute_emulator.add_task([(0, end)]))
"""
    done = project.test({"test_it.py": program}, plugins=ASYNCIO)
    assert done.counts == {"failed": 1, "passed": 2}, done.output


def test_a_fixture_of_the_project(project: Project) -> None:
    """A project's own fixture can create and wait for tasks, and the virtual clock can go on from there."""
    program = """
import asyncio, time
import pytest, pytest_asyncio
from distribute_async import wait_for_result

@pytest_asyncio.fixture
async def waiting(distribute_emulator):
    task_id = distribute_emulator.add_task([(0, "QUEUED"), (3600, "COMPLETED")], text="yes")
    waiting = asyncio.create_task(wait_for_result(task_id, timeout=None))
    while not distribute_emulator.requests:
        await asyncio.sleep(0)
    return waiting

@pytest.mark.asyncio
@pytest.mark.looptime(start=time.monotonic)
async def test_it_goes_on(waiting, distribute_emulator):
    assert (await waiting).text == "yes"
    times = [request.time for request in distribute_emulator.requests]
    assert 3600 <= times[-1] - times[0] < 3610
    assert times == sorted(times)
"""
    done = project.test({"test_it.py": program}, plugins=ASYNCIO)
    assert done.counts == {"passed": 1}, done.output


REFUSED = """
import pytest

def test_synchronous(distribute_emulator): ...

@pytest.mark.parametrize("anyio_backend", ["asyncio"])
def test_synchronous_with_a_backend(distribute_emulator, anyio_backend): ...

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio(distribute_emulator, anyio_backend): ...

@pytest.mark.anyio
@pytest.mark.looptime
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_virtual_clock(distribute_emulator, anyio_backend): ...

@pytest.mark.anyio
@pytest.mark.asyncio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_claimed_twice(distribute_emulator, anyio_backend): ...
"""


def test_what_cannot_work_is_refused(project: Project) -> None:
    """A test in which the fixtures can't work, or would wait for an hour, ends at once and says what to do."""
    done = project.test({"conftest.py": ANYIO_CONFTEST, "test_it.py": REFUSED}, plugins=ANYIO)
    assert done.counts == {"errors": 5}, done.output
    advice = {
        "perhaps @pytest.mark.asyncio is missing": 2,
        "let the fixture anyio_backend return 'asyncio'": 1,
        "('asyncio', {'loop_factory': looptime.new_event_loop})": 1,
        "pytest-asyncio and anyio both claim it": 1,
    }
    assert {words: done.output.count(words) for words in advice} == advice
    assert "Traceback" not in done.output


def test_a_missing_extra_is_named(project: Project) -> None:
    """A virtual clock without looptime ends at once and says what to install."""
    program = """
import sys
import pytest

sys.modules["looptime"] = None

@pytest.mark.asyncio
@pytest.mark.looptime
async def test_it(distribute_emulator): ...
"""
    files = {"pytest.ini": "[pytest]\nmarkers = looptime\n", "test_it.py": program}
    done = project.test(files, plugins=("asyncio",))
    assert done.counts == {"errors": 1}, done.output
    assert "pip install 'distribute-async[testing]'" in done.output
    assert "Traceback" not in done.output
