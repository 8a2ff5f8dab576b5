"""The pytest plugin of `docs/how-to/test-your-code.md`: the fixtures `distribute_emulator` and `distribute_client`.

Public are the fixtures alone. pytest loads this module in every run of an environment that has the library. So it
imports nothing of the library, beside the package itself, before a test asks for a fixture.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from distribute_async import DistributeClient
    from distribute_async.emulator import Emulator

    Service: TypeAlias = tuple[Emulator, DistributeClient]

try:
    import pytest_asyncio
except ModuleNotFoundError:
    pytest_asyncio = None  # type: ignore[assignment]


@pytest.fixture
def distribute_emulator(_distribute_service: Service) -> Emulator:
    """An emulator on the event loop of the test: a fresh one each time, whose tasks have the same ids in each run.

    DISTRIBUTE_API_KEY and DISTRIBUTE_BASE_URL lead to it as long as the test lasts, so that the module-level functions
    and each `DistributeClient()` use it, and none the real service.
    """
    return _distribute_service[0]


@pytest.fixture
def distribute_client(_distribute_service: Service) -> DistributeClient:
    """A client of `distribute_emulator`. Its intervals aren't drawn but the mean ones, the same in each run."""
    return _distribute_service[1]


@pytest.fixture
def _distribute_service(request: pytest.FixtureRequest) -> Iterator[Service]:
    emulator, client = request.getfixturevalue(_running_service(request))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DISTRIBUTE_API_KEY", emulator.api_key)
        environment.setenv("DISTRIBUTE_BASE_URL", emulator.base_url)
        yield emulator, client


def _running_service(request: pytest.FixtureRequest) -> str:
    """The name of the fixture that runs on the loop of this test, whoever made that."""
    of_anyio = "anyio_backend" in request.fixturenames
    if pytest_asyncio is not None and pytest_asyncio.is_async_test(request.node):
        if of_anyio:  # each takes a part of it: one the fixtures, the other the test
            raise _refusal("pytest-asyncio and anyio both claim it (perhaps by asyncio_mode = auto)")
        scope = next(request.node.iter_markers("asyncio")).kwargs.get("loop_scope")
        return f"_distribute_on_{scope or request.config.getini('asyncio_default_test_loop_scope')}_loop"
    if not (of_anyio and inspect.iscoroutinefunction(request.function)):
        raise _refusal("no async test of pytest-asyncio or anyio (perhaps @pytest.mark.asyncio is missing)")
    if request.getfixturevalue("anyio_backend_name") != "asyncio":
        raise _refusal("the library runs on asyncio only: let the fixture anyio_backend return 'asyncio'")
    return "_distribute_on_anyio_loop"


def _refusal(why: str) -> BaseException:
    return pytest.fail.Exception(f"no distribute_emulator for this test: {why}", pytrace=False)


def _fixture(decorate: Callable[..., Any]) -> Any:
    @decorate
    async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
        from distribute_async import DistributeClient, Pacing  # noqa: PLC0415 - see the module's docstring
        from distribute_async.emulator import Emulator  # noqa: PLC0415

        if request.node.get_closest_marker("looptime"):
            _refuse_the_real_clock()
        pacing = Pacing(jitter=lambda span: span / 2)
        async with (
            Emulator() as emulator,
            DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=pacing) as client,
        ):
            yield emulator, client

    return service


def _refuse_the_real_clock() -> None:
    """A test that asks for a virtual clock and doesn't get it would wait for an hour."""
    try:
        import looptime  # noqa: PLC0415 - comes with the extra, and only a virtual clock needs it
    except ModuleNotFoundError:
        raise _refusal(
            "@pytest.mark.looptime needs looptime, which is not installed: pip install 'distribute-async[testing]'"
        ) from None
    if not isinstance(asyncio.get_running_loop(), looptime.LoopTimeEventLoop):
        raise _refusal(
            "@pytest.mark.looptime can't make its clock virtual. With anyio, let the fixture anyio_backend return "
            "('asyncio', {'loop_factory': looptime.new_event_loop}); with pytest-asyncio, use asyncio's own loop"
        )


_distribute_on_anyio_loop = _fixture(pytest.fixture)
if pytest_asyncio is not None:
    # A fixture on another loop than the test's would not answer while the test runs.
    for _scope in ("function", "class", "module", "package", "session"):
        globals()[f"_distribute_on_{_scope}_loop"] = _fixture(pytest_asyncio.fixture(loop_scope=_scope))
