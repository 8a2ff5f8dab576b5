"""The example applications as processes of their own. Real clock: processes know no other."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from attrs import define

from distribute_async.emulator import Emulator
from tests.integrations.sites import listening_socket

COMMANDS: Mapping[str, list[str]] = MappingProxyType(
    {
        "fastapi": ["-m", "uvicorn", "examples.fastapi_app:app", "--log-level", "warning", "--port"],
        "aiohttp": ["-m", "examples.aiohttp_app", "--port"],
    }
)


@define
class Example:
    """An example application on a port that stays its own."""

    name: str
    port: int
    env: Mapping[str, str]
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *COMMANDS[self.name], str(self.port),
            env=self.env, cwd=Path(__file__).parents[2], stdin=DEVNULL, stdout=DEVNULL,
        )  # fmt: skip
        while self.process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
        raise AssertionError(f"{self.name} ended with {self.process.returncode}")

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def example(name: str, emulator: Emulator) -> AsyncIterator[Example]:
    """The application, running; killed in the end."""
    with listening_socket() as free:
        port = free.getsockname()[1]
    env = {**os.environ, "DISTRIBUTE_API_KEY": emulator.api_key, "DISTRIBUTE_BASE_URL": emulator.base_url}
    running = Example(name, port, env)
    try:
        await running.start()
        yield running
    finally:
        await running.kill()
