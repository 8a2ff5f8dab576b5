"""For the tests of the emulator: a plain HTTP session."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from distribute_async.emulator import Emulator


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for `emulator` that sends its key."""
    async with aiohttp.ClientSession(emulator.base_url, headers={"Authorization": emulator.api_key}) as session:
        yield session
