"""For all tests: every answer of an emulator is checked, and the fixtures that most tests begin with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from distribute_async import DistributeClient, Pacing
from distribute_async.emulator import Emulator
from tests.emulator.specification import check_answer
from tests.wheels import built_wheel


def pytest_sessionstart() -> None:
    """Make asyncio say that there is no event loop where pytest's plugins ask between tests: else it makes one each."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session", autouse=True)
def every_answer_is_checked() -> Iterator[None]:
    """Hold all that any emulator of this process says to the specification; one that strays raises when it is left."""
    Emulator.listeners.append(check_answer)
    yield
    Emulator.listeners.remove(check_answer)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once in each process of a test run, for all tests of what users install."""
    return built_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """The service, listening; its ids, lives and answers are the same in each run."""
    async with Emulator(seed=7) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[DistributeClient]:
    """A client of `emulator` whose waits are exact: the random half of each interval is half of what it may be."""
    pacing = Pacing(jitter=lambda span: span / 2)
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=pacing) as client:
        yield client
