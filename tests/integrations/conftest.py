"""For the tests of the integrations: each runs on both frameworks, unless it says otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distribute_async import DistributeClient, Pacing
from distribute_async.emulator import Emulator
from tests.integrations.sites import MakeSite, aiohttp_site, fastapi_site

SITES: dict[str, MakeSite] = {"fastapi": fastapi_site, "aiohttp": aiohttp_site}


@pytest.fixture
def make_client(emulator: Emulator) -> Callable[[], DistributeClient]:
    """Makes clients of `emulator` whose waits are exact."""
    pacing = Pacing(jitter=lambda span: span / 2)
    return lambda: DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=pacing)


@pytest.fixture(params=SITES)
def make_site(request: pytest.FixtureRequest) -> MakeSite:
    """Starts the application, in one framework after the other."""
    return SITES[request.param]
