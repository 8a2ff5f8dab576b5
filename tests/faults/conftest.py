"""Certificates, and the stage on which a case is played."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import trustme

from distribute_async import Limits
from tests import misbehaving as bad
from tests.faults.cases import BadResolver, Case, Fixture, Stage, new_client
from tests.misbehaving import MisbehavingServer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def stage(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> Stage:
    """Brings a case about so many times; None: without an end."""

    @asynccontextmanager
    async def play(case: Case, times: int | None, **settings: Any) -> AsyncIterator[Fixture]:
        scene = case.scene(times)
        port = bad.free_port()
        server = MisbehavingServer(
            *scene.script, on_connect=scene.on_connect, tls=server_tls if scene.uses_tls else None, port=port
        )
        settings = {"limits": Limits(exchange_timeout=2.0, connect_timeout=1.0), **settings}
        if scene.uses_tls and case.fault != "certificate":
            settings["ssl_context"] = client_tls
        url = server.url
        if scene.is_proxy:
            settings["proxy"], url = url, "http://127.0.0.1:9"

        async def start_late() -> None:
            if scene.starts_after is not None:
                await asyncio.sleep(scene.starts_after)
                await running.enter_async_context(server)

        async with contextlib.AsyncExitStack() as running:
            if scene.starts_after == 0:
                await running.enter_async_context(server)
            elif scene.starts_after is not None:
                starting = asyncio.create_task(start_late())
                running.push_async_callback(asyncio.wait, [starting])
            if scene.resolver_fault is not None:
                connector = aiohttp.TCPConnector(resolver=BadResolver(scene.resolver_fault, times), use_dns_cache=False)
                settings["session"] = await running.enter_async_context(aiohttp.ClientSession(connector=connector))
                url = url.replace("127.0.0.1", "localhost")
            client = await running.enter_async_context(new_client(url, **settings))
            yield Fixture(server, client)

    return play
