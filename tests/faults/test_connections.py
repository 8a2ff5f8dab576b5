"""Kept-alive connections that turn out closed or poisoned, names, TLS, proxies, and what stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import ssl
from typing import Any

import aiohttp
import pytest
import trustme

from distribute_async import (
    APIConnectionError,
    ChatResult,
    ClientClosedError,
    ConfigurationError,
    DistributeError,
    Retry,
)
from tests import misbehaving as bad
from tests.faults.cases import BODY, GOOD, HTML, ID, OTHER_ID, QUEUED, caught, new_client, rule_of, task
from tests.faults.matrix import shows
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.seams import UNUSABLE


@shows(rule_of("stale"), APIConnectionError)
@pytest.mark.looptime
@pytest.mark.parametrize("stale", [bad.close, bad.reset], ids=["closed", "reset"])
async def test_a_stale_connection_is_retried_at_once_and_not_counted(stale: Behaviour) -> None:
    """Where a kept-alive connection ends without a byte of answer, the request goes out again at once, uncounted."""
    async with MisbehavingServer(QUEUED, stale, GOOD) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        assert (await watch).text == "the answer"
        assert [request.connection for request in server.requests] == [1, 1, 2]
        assert server.times[2] - server.times[1] < 0.05
    assert watch.history[-1].polls == 2


@pytest.mark.looptime
async def test_a_stale_connection_costs_fetch_no_attempt() -> None:
    """A `fetch` of one attempt survives a stale connection."""
    async with (
        MisbehavingServer(QUEUED, bad.close, GOOD) as server,
        new_client(server.url, retry=Retry(attempts=1)) as client,
    ):
        await client.fetch(ID)
        assert (await client.fetch(ID)).text == "the answer"
        assert len(server.requests) == 3


@pytest.mark.looptime
@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 200", bad.head()[:-2], bad.answer(task())[:-1]])
async def test_an_answer_that_began_is_no_stale_connection(part: bytes) -> None:
    """Where a part of the answer came before the connection ended, that was an attempt: counted, and backed off."""
    async with MisbehavingServer(QUEUED, bad.raw_and_close(part), GOOD) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        assert (await watch).text == "the answer"
        assert [request.connection for request in server.requests] == [1, 1, 2]
        assert server.times[2] - server.times[1] >= 0.374
    assert watch.history[-1].polls == 3


@pytest.mark.looptime
async def test_a_new_connection_is_never_stale() -> None:
    """The retry at once is for connections that served before: a close on a new one is backed off."""
    async with MisbehavingServer(QUEUED, bad.close, bad.close, GOOD) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        assert (await watch).text == "the answer"
        assert [request.connection for request in server.requests] == [1, 1, 2, 3]
        assert server.times[3] - server.times[2] >= 0.374
    assert watch.history[-1].polls == 3


@pytest.mark.looptime
async def test_in_bad_health_nothing_is_retried_at_once() -> None:
    """While the newest evidence of the service is bad, a stale connection is backed off like any fault."""
    async with (
        MisbehavingServer(QUEUED, bad.status(503), bad.close, GOOD) as server,
        new_client(server.url) as client,
    ):
        watch = client.watch(ID)
        assert (await watch).text == "the answer"
        assert [request.connection for request in server.requests] == [1, 1, 1, 2]
        assert server.times[3] - server.times[2] >= 0.374
    assert watch.history[-1].polls == 4


@pytest.mark.looptime
async def test_a_connection_closed_while_idle_is_not_even_tried() -> None:
    """A server that closes idle connections between two polls costs a connection and nothing else."""
    async with (
        MisbehavingServer(bad.idle_close(task("QUEUED"), 0.3), GOOD) as server,
        new_client(server.url) as client,
    ):
        watch = client.watch(ID)
        assert (await watch).text == "the answer"
        assert [request.connection for request in server.requests] == [1, 2]
    assert watch.history[-1].polls == 2


@shows(rule_of("stale"), APIConnectionError)
@pytest.mark.looptime
@pytest.mark.parametrize("delay", [0.0, 0.1], ids=["with the first", "later"])
async def test_a_forged_answer_is_taken_for_nothing(delay: float) -> None:
    """Bytes that follow an answer on its connection are never the answer to another request."""
    forgery = bad.forged(task("QUEUED"), task(text="forged"), delay)
    async with (
        MisbehavingServer(forgery, bad.good(task(text="its own"))) as server,
        new_client(server.url, retry=Retry(attempts=1)) as client,
    ):
        await client.fetch(ID)
        await asyncio.sleep(0.5)
        assert (await client.fetch(OTHER_ID)).text == "its own"
        assert server.requests[-1].connection == 2


@pytest.mark.looptime
async def test_a_cut_exchange_leaves_its_answer_to_nobody() -> None:
    """The late answer to a poll that was given up never becomes the answer to the next one."""

    async def late_answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        await asyncio.sleep(3.0)
        writer.write(bad.answer(task(text="late")))

    async with (
        MisbehavingServer(late_answer, bad.good(task(text="its own"))) as server,
        new_client(server.url) as client,
    ):
        with pytest.raises(TimeoutError):
            await client.fetch(ID, timeout=1.0)
        await asyncio.sleep(1.9)
        assert (await client.fetch(OTHER_ID)).text == "its own"


async def test_an_unknown_host_is_a_dns_fault() -> None:
    """A name that doesn't exist is said so by the system's resolver, and typed."""
    async with new_client("https://nowhere.invalid", retry=Retry(attempts=1)) as client:
        error = await caught(client.fetch(ID))
    assert isinstance(error, APIConnectionError)
    assert error.reason == "dns"


async def test_a_private_authority_is_trusted_when_told(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """With `ssl_context=` for the authority the same server works, over one connection."""
    async with (
        MisbehavingServer(QUEUED, GOOD, tls=server_tls) as server,
        new_client(server.url, ssl_context=client_tls) as client,
    ):
        await client.fetch(ID)
        assert (await client.fetch(ID)).text == "the answer"
        assert server.connections == 1


async def test_a_certificate_for_another_name_ends_the_wait_at_once(
    authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    """A certificate of the right authority for the wrong host is refused, before the request is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    async with (
        MisbehavingServer(GOOD, tls=context) as server,
        new_client(server.url, ssl_context=client_tls) as client,
    ):
        error = await caught(client.wait_for_result(ID))
        assert server.requests == []
        assert server.connections == 1
    assert isinstance(error, APIConnectionError)
    assert error.reason == "certificate"


@pytest.mark.looptime
@pytest.mark.parametrize("code", [403, 407, 502])
async def test_a_proxy_that_refuses_is_a_proxy_fault(code: int, client_tls: ssl.SSLContext) -> None:
    """A proxy that refuses the tunnel is told from a service that refuses the request: it may be well later."""
    async with (
        MisbehavingServer(bad.raw_and_close(bad.answer(None, code))) as proxy,
        new_client("https://127.0.0.1:9", proxy=proxy.url, ssl_context=client_tls, retry=Retry(attempts=2)) as client,
    ):
        error = await caught(client.fetch(ID))
        assert [request.line for request in proxy.requests] == ["CONNECT 127.0.0.1:9 HTTP/1.1"] * 2
        assert not any(request.header("authorization") for request in proxy.requests)
    assert isinstance(error, APIConnectionError)
    assert error.reason == "proxy"


@shows(UNUSABLE, ClientClosedError, ConfigurationError)
async def test_a_closed_session_ends_the_wait_at_once() -> None:
    """A caller's session that is closed can send nothing: the wait says so at once."""
    async with MisbehavingServer(GOOD) as server:
        session = aiohttp.ClientSession()
        await session.close()
        async with new_client(server.url, session=session) as client:
            error = await caught(client.wait_for_result(ID))
            assert isinstance(error, ClientClosedError)
            assert isinstance(await caught(client.fetch(ID)), ClientClosedError)
        assert server.connections == 0


# What stays behind.


@pytest.mark.looptime
@pytest.mark.parametrize(
    "behaviour",
    [bad.silence(), bad.endless_chunks, bad.drip(bad.answer(task())), bad.truncated(BODY), bad.status(500)],
    ids=["silence", "endless chunks", "drip", "cut", "500"],
)
async def test_a_fault_leaves_no_connection_and_no_task(behaviour: Behaviour) -> None:
    """After a wait that ended, nothing of this library runs, and closing the client closes its connections."""
    async with MisbehavingServer(behaviour) as server:
        before = asyncio.all_tasks()
        async with new_client(server.url) as client:
            with contextlib.suppress(DistributeError):
                await client.wait_for_result(ID, timeout=5)
            assert {name(task) for task in asyncio.all_tasks() - before} <= {"MisbehavingServer._serve"}
        for _ in range(10):
            await asyncio.sleep(0.1)
        gc.collect()
        assert {name(task) for task in asyncio.all_tasks() - before} == set()


def name(running: asyncio.Task[Any]) -> str:
    return getattr(running.get_coro(), "__qualname__", "")


@pytest.mark.looptime
async def test_many_waits_survive_a_server_of_all_faults() -> None:
    """Twenty waits over a server that shows one fault after the other all get their results."""
    faults = [
        *(bad.close, bad.reset, bad.truncated(BODY), bad.status(500), bad.status(429), bad.status(408)),
        *(bad.good(HTML), bad.raw(b"nonsense\r\n\r\n"), bad.status(503, Retry_After="1"), bad.silence()),
    ]
    script = [*itertools.chain.from_iterable((fault, QUEUED) for fault in faults * 4), GOOD]
    ids = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(20)]
    async with MisbehavingServer(*script) as server, new_client(server.url) as client:
        results: list[ChatResult] = await asyncio.gather(*(client.wait_for_result(id_) for id_ in ids))
    assert [result.text for result in results] == ["the answer"] * 20
