"""The client: its session or the caller's, the loop it belongs to, and its end."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from distribute_async import (
    APIConnectionError,
    APIStatusError,
    ClientClosedError,
    ConfigurationError,
    DistributeClient,
    Limits,
    Retry,
)
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.seams import own_session_of
from tests.waiting import (
    ID,
    KEY,
    OTHER_ID,
    assert_nothing_runs,
    assert_silence,
    body,
    caught,
    connections_at,
    connections_in_use,
    connector_of,
    ids,
    listed,
    new_client,
    now,
    says,
    turns,
)

DONE = bad.good(body())


# A session of the caller's.


def seen_of(session: aiohttp.ClientSession) -> dict[str, Any]:
    """All that a session is, at one level down."""
    names = [name for kind in type(session).__mro__ for name in getattr(kind, "__slots__", ())]
    names += [*vars(session), *aiohttp.ClientSession.ATTRS]
    seen: dict[str, Any] = {name: getattr(session, name, None) for name in names}
    seen |= {"headers": dict(session.headers), "cookies": list(session.cookie_jar)}
    return seen | {"traces": list(session.trace_configs), "connector's": set(vars(connector_of(session)))}


SESSIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "raises for status": lambda: {"raise_for_status": True},
    "raises by a function": lambda: {"raise_for_status": _forbid},
    "headers": lambda: {"headers": {"Authorization": "another", "X-App": "mine", "Content-Type": "text/plain"}},
    "cookies": lambda: {"cookies": {"a": "b"}, "cookie_jar": aiohttp.CookieJar(unsafe=True)},
    "small pool": lambda: {"connector": aiohttp.TCPConnector(limit=1)},
    "no keep-alive": lambda: {"connector": aiohttp.TCPConnector(force_close=True)},
    "short timeouts": lambda: {"timeout": aiohttp.ClientTimeout(total=1.0, sock_read=1.0)},
    "no decompression": lambda: {"auto_decompress": False},
    "another base": lambda: {"base_url": "http://127.0.0.1:9/elsewhere/"},
    "a trace": lambda: {"trace_configs": [aiohttp.TraceConfig()]},
    "a small read buffer": lambda: {"read_bufsize": 1},
    "old HTTP": lambda: {"version": aiohttp.HttpVersion10},
}


async def _forbid(response: aiohttp.ClientResponse) -> None:
    raise AssertionError("a caller's hook for its own calls")


@pytest.mark.looptime
@pytest.mark.parametrize("options", SESSIONS.values(), ids=SESSIONS)
async def test_a_callers_session_is_used_and_left_as_it_was(options: Callable[[], dict[str, Any]]) -> None:
    """Whatever the session is set up for, our exchanges work over it, and it is neither closed nor changed."""
    packed = bad.answer(gzip.compress(json.dumps(body("QUEUED")).encode()), headers={"Content-Encoding": "gzip"})
    slow = bad.in_turn(bad.raw(packed[:-9]), bad.pause(2.0), bad.raw(packed[-9:]))
    script = [bad.status(500), bad.status(302, Location="/"), slow, *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, aiohttp.ClientSession(**options()) as session:
        before = seen_of(session)
        async with new_client(server.url, session=session) as client:
            error = await caught(client.fetch(ID), APIStatusError)
            assert error.status_code == 302
            assert await listed(client.watch(ID)) == ["QUEUED", "COMPLETED"]
            assert_nothing_runs(client)
        assert not session.closed
        assert seen_of(session) == before
        assert {tuple(request.header("authorization")) for request in server.requests} == {(KEY,)}
        assert {tuple(request.header("content-type")) for request in server.requests} == {("application/json",)}
        async with session.get(server.url, raise_for_status=False, auto_decompress=True, timeout=None) as response:
            assert response.status == 200
        assert len(server.requests) == 5


@pytest.mark.looptime
@pytest.mark.parametrize("from_netrc", [False, True])
async def test_a_session_with_credentials_of_its_own_is_refused(
    from_netrc: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a caller's session would send other credentials than the key, a wait says so at once and sends nothing."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # aiohttp's, of `auth=`
        session = aiohttp.ClientSession(
            trust_env=from_netrc, auth=None if from_netrc else aiohttp.BasicAuth("somebody", "something")
        )
    async with MisbehavingServer(DONE) as server, session, new_client(server.url, session=session) as client:
        error = await caught(client.wait_for_result(ID), ConfigurationError)
        assert "credentials" in str(error)
        assert server.requests == []
        assert now() == 0.0


@pytest.mark.looptime
async def test_a_place_in_a_callers_pool_may_take_long() -> None:
    """Waiting for one of a caller's few connections is no exchange: twenty slow ones through one all succeed."""
    limits = Limits(connect_timeout=1.0, exchange_timeout=2.0)
    slow = bad.in_turn(bad.pause(1.5), DONE)
    async with (
        MisbehavingServer(slow) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
    ):
        async with new_client(server.url, session=session, limits=limits) as client:
            waits = (client.wait_for_result(task_id) for task_id in ids(20))
            results = await asyncio.gather(*waits)
        assert [result.text for result in results] == ["the answer"] * 20
        assert len(server.requests) == 20
        assert server.connections == 1
        assert now() == pytest.approx(30.0, abs=0.01)


@pytest.mark.looptime
async def test_an_exchange_over_a_callers_session_is_cut_too() -> None:
    """An exchange without an answer is cut after `exchange_timeout`, though no connect timeout and no deadline run."""
    async with (
        MisbehavingServer(bad.silence(), DONE) as server,
        aiohttp.ClientSession() as session,
        new_client(server.url, session=session, limits=Limits(exchange_timeout=7.0)) as client,
    ):
        await client.wait_for_result(ID, timeout=None)
        assert server.times[0] == pytest.approx(0.0, abs=0.01)
        assert 7.0 < server.times[1] < 8.0


async def test_two_clients_may_share_a_session() -> None:
    """Closing one client leaves another one on the same session in work."""
    async with MisbehavingServer(DONE) as server, aiohttp.ClientSession() as session:
        first, second = (new_client(server.url, session=session) for _ in range(2))
        await first.fetch(ID)
        await first.close()
        await second.fetch(ID)
        await second.close()
        assert server.connections == 1
        assert not session.closed


async def test_a_callers_session_has_its_own_proxy_and_tls() -> None:
    """`proxy=` and `ssl_context=` beside `session=` are refused: they would have no effect."""
    async with aiohttp.ClientSession() as session:
        for setting in ({"proxy": "http://127.0.0.1:9"}, {"ssl_context": ssl.create_default_context()}):
            with pytest.raises(ConfigurationError, match="session="):
                DistributeClient(KEY, session=session, **setting)


# Its own session.


@pytest.mark.looptime
async def test_nothing_is_opened_before_the_first_use() -> None:
    """A client can be made without a loop's help and costs nothing until it is used; then it keeps its connections."""
    async with MisbehavingServer(*says("QUEUED", "COMPLETED")) as server:
        client = new_client(server.url)
        watch = client.watch(ID)
        await asyncio.sleep(1)
        assert_nothing_runs(client)
        assert server.connections == 0
        assert own_session_of(client) is None
        await watch
        assert (server.connections, connections_at(server), connections_in_use(client)) == (1, 1, 0)
        await client.close()
        await turns(5)
        assert connections_at(server) == 0


@pytest.mark.looptime
async def test_the_pool_has_no_bound_of_its_own() -> None:
    """As many exchanges as `max_in_flight` allows run at once, each on a connection of its own."""
    limits = Limits(max_in_flight=150)
    async with MisbehavingServer(bad.silence()) as server, new_client(server.url, limits=limits) as client:
        waits = []
        for task_id in ids(200):
            waits.append(asyncio.create_task(client.wait_for_result(task_id, timeout=9)))
            await asyncio.sleep(0.01)  # a socket that listens takes a hundred connections in one moment
        assert len(server.requests) == server.connections == 150
        await asyncio.wait(waits)


async def test_nothing_is_taken_from_the_environment_or_from_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The client's own session heeds no proxy and no password of the environment, and gives no cookie back."""
    (tmp_path / ".netrc").write_text("machine localhost login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{bad.free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    queued = bad.good(body("QUEUED"), **{"Set-Cookie": "session=1; Path=/"})
    async with MisbehavingServer(queued) as server:
        # Of an address in figures aiohttp would take no cookie anyway.
        async with new_client(f"http://localhost:{server.port}", retry=Retry(attempts=1)) as client:
            for task_id in ids(2):
                await client.fetch(task_id)
        assert [request.header("cookie") for request in server.requests] == [[], []]
        assert {tuple(request.header("authorization")) for request in server.requests} == {(KEY,)}


def test_a_client_can_be_made_without_a_loop() -> None:
    """Making a client, at import time say, needs no running event loop; the first use ties it to its own."""
    client = DistributeClient(KEY, base_url="http://127.0.0.1:9", retry=Retry(attempts=1))

    async def use() -> None:
        await caught(client.fetch(ID), APIConnectionError)
        await client.close()

    asyncio.run(use())


def test_a_client_belongs_to_one_loop() -> None:
    """A client, or a watch of one, that is used on a second event loop says so, and sends nothing."""
    client = DistributeClient(KEY, base_url="http://127.0.0.1:9", retry=Retry(attempts=1))
    watch = client.watch(ID)

    async def begin() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.01)

    async def go_on() -> None:
        for wait in (client.wait_for_result(ID), client.fetch(ID), client.watch(ID), watch, anext(watch)):
            error = await caught(asyncio.wait_for(wait, 5), ConfigurationError)
            assert "event loop" in str(error)

    async def main() -> None:
        try:
            await begin()
            await asyncio.to_thread(asyncio.run, go_on())
        finally:
            await client.close()

    asyncio.run(main())


# The end.

Wait = Callable[[DistributeClient], Awaitable[Any]]
WAITS: dict[str, Wait] = {
    "wait_for_result": lambda client: client.wait_for_result(ID),
    "await": lambda client: client.watch(ID),
    "iterate": lambda client: listed(client.watch(ID)),
    "fetch": lambda client: client.fetch(ID),
}
HANGING: dict[str, list[Behaviour]] = {
    "in an exchange": [bad.silence()],
    "between polls": says("QUEUED"),
    "backing off": [bad.status(500)],
    "in a pause": [bad.status(429, Retry_After="100")],
    "in an outage": [bad.status(503)],
}


@pytest.mark.looptime
@pytest.mark.parametrize("is_given", [False, True], ids=["own session", "given session"])
@pytest.mark.parametrize(
    ("wait", "script"),
    # A fetch is never between two polls.
    [(wait, place) for wait in WAITS for place in HANGING if (wait, place) != ("fetch", "between polls")],
)
async def test_closing_ends_running_waits(wait: str, script: str, is_given: bool) -> None:
    """`close()` ends every wait at once with ClientClosedError, and leaves nothing running and nothing open."""
    async with MisbehavingServer(*HANGING[script]) as server, aiohttp.ClientSession() as session:
        given = {"session": session} if is_given else {}
        async with new_client(server.url, retry=Retry(attempts=99), **given) as client:
            waits = [asyncio.ensure_future(WAITS[wait](client)) for _ in range(3)]
            await asyncio.sleep(20.5)
            began = now()
        assert_nothing_runs(client, but=waits)
        errors = [await caught(waiting, ClientClosedError) for waiting in waits]
        assert now() == began
        assert_nothing_runs(client)
        assert len({id(error) for error in errors}) == 3
        assert {error.task_id for error in errors} == {ID}
        await session.close()
        await turns(5)  # the server's own, to see that its connections are closed
        assert connections_at(server) == 0
        await assert_silence(server)
        assert repr(client) == "<DistributeClient for 127.0.0.1 (closed)>"


@pytest.mark.looptime
async def test_closing_ends_waits_that_are_held_back() -> None:
    """Waits that have not got their turn yet are ended too."""
    limits = Limits(max_in_flight=1)
    async with MisbehavingServer(bad.silence()) as server, new_client(server.url, limits=limits) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(20)]
        await asyncio.sleep(1)
        await client.close()
        errors = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(error) for error in errors} == {ClientClosedError}
        assert len(server.requests) == 1


@pytest.mark.looptime
async def test_closing_cuts_what_nobody_is_suspended_on() -> None:
    """`close()` cuts the exchanges of a stream whose reader is busy elsewhere, and doesn't wait for their answers."""
    async with MisbehavingServer(DONE, bad.silence()) as server, new_client(server.url) as client:
        stream = client.as_completed(ids(20))
        await anext(stream)
        assert client.stats().exchanges == 19
        began = now()
        await client.close()
        assert now() == began
        assert_nothing_runs(client)
        outcomes = [outcome async for outcome in stream]
        assert [type(outcome.error) for outcome in outcomes] == [ClientClosedError] * 19


@pytest.mark.looptime
@pytest.mark.parametrize("was_used", [False, True])
async def test_a_closed_client_says_so(was_used: bool) -> None:
    """Closing again is harmless; every use after it raises ClientClosedError and sends nothing."""
    async with MisbehavingServer(DONE) as server:
        client = new_client(server.url)
        if was_used:
            await client.fetch(ID)
        await client.close()
        await client.close()
        async with client:
            pass
        for wait in WAITS.values():
            await caught(wait(client), ClientClosedError)
        assert len(server.requests) == was_used


@pytest.mark.looptime
async def test_what_is_known_outlives_the_client() -> None:
    """A watch that had reached its end keeps it after `close()`, and what was seen but not yet told is told."""
    script = [*says("QUEUED", "COMPLETED")]
    async with MisbehavingServer(*script) as server:
        async with new_client(server.url) as client:
            ended, behind, begun = client.watch(ID), client.watch(ID), client.watch(ids(1)[0])
            await anext(behind)
            await ended
        assert (await ended).text == "the answer"
        assert await listed(behind) == ["COMPLETED"]
        assert (await behind).text == "the answer"
        await caught(begun, ClientClosedError)


@pytest.mark.looptime
async def test_closing_by_one_who_waits() -> None:
    """A reader may close the client from within its own loop; the next step of the loop says so."""
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url) as client:
        watch = client.watch(ID)
        await anext(watch)
        await client.close()
        await caught(anext(watch), ClientClosedError)
        await caught(watch, ClientClosedError)


@pytest.mark.looptime
async def test_leaving_the_context_closes_after_an_error_too() -> None:
    """`async with` gives the client itself, closes it whatever happens inside, and lets the error through."""
    async with MisbehavingServer(DONE) as server:
        made = new_client(server.url)

        async def use() -> None:
            async with made as client:
                assert client is made
                await client.fetch(ID)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await use()
        await turns(5)
        assert connections_at(server) == 0
        await caught(made.fetch(ID), ClientClosedError)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.looptime
async def test_under_an_eager_task_factory() -> None:
    """Where asyncio tasks run at once as they are made, waits and streams end as ever, and leave nothing."""
    loop: Any = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - unknown to the types of 3.11

    async def supply() -> AsyncIterator[str]:
        for task_id in ids(30):
            yield task_id

    async with MisbehavingServer(*says("QUEUED", "COMPLETED")) as server, new_client(server.url) as client:
        result, _ = await asyncio.gather(client.wait_for_result(ID), client.fetch(OTHER_ID))
        assert result.text == "the answer"
        outcomes = [outcome async for outcome in client.as_completed(supply(), window=4)]
        assert [outcome.error for outcome in outcomes] == [None] * 30
        assert_nothing_runs(client)
    async with aiohttp.ClientSession() as session:
        pass
    async with new_client(server.url, session=session) as client:
        for wait in [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids(5)]:
            await caught(wait, ClientClosedError)
