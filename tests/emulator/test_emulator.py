"""The emulator as a whole: its address, its log, and how it starts, stops and comes back."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from distribute_async.emulator import Emulator, _log, fault
from tests.emulator import calls


async def test_the_address_is_known_once_it_listens() -> None:
    """Before the first start there is no address; afterwards it stays the same."""
    emulator = Emulator()
    assert repr(emulator) == "<Emulator, not started>"
    with pytest.raises(RuntimeError, match="enter it first"):
        _ = emulator.base_url
    async with emulator:
        url = emulator.base_url
        assert url.startswith("http://127.0.0.1:")
        assert repr(emulator) == f"<Emulator at {url}>"
    assert emulator.base_url == url


async def test_it_listens_on_ipv6() -> None:
    """An IPv6 address is written as URLs want it."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    async with (
        Emulator("key", host="::1") as emulator,
        aiohttp.ClientSession(emulator.base_url, headers={"Authorization": "key"}) as session,
    ):
        assert emulator.base_url.startswith("http://[::1]:")
        assert await calls.status(session, calls.UNKNOWN_ID) == "404"


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_fault_rate_is_a_share(rate: float) -> None:
    """A fault rate that is no share is refused."""
    with pytest.raises(ValueError, match="fault_rate must be from 0 to 1"):
        Emulator(fault_rate=rate)


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
def test_speed_must_be_above_zero(speed: float) -> None:
    """Time that stands still or runs backwards is refused."""
    with pytest.raises(ValueError, match="speed"):
        Emulator(speed=speed)


async def test_it_does_not_start_twice(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Entering it while it listens is an error, and does it no harm."""
    with pytest.raises(RuntimeError, match="running already"):
        async with emulator:
            raise AssertionError
    assert await calls.status(session, calls.UNKNOWN_ID) == "404"


async def test_a_port_in_use(emulator: Emulator) -> None:
    """Where it can't listen, entering raises, and it can be entered later."""
    port = int(emulator.base_url.rpartition(":")[2])
    other = Emulator(port=port)
    with pytest.raises(OSError, match="in use"):
        async with other:
            raise AssertionError
    await emulator.__aexit__(None, None, None)
    async with other:
        assert other.base_url == emulator.base_url


@pytest.mark.looptime
async def test_the_log(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Each request is kept with its time, what it asked, whether it might, and how it was answered; never its key."""
    task_id = emulator.add_task([(0, "QUEUED")], faults=[fault.delay(2), fault.cut(5)])
    start = asyncio.get_running_loop().time()
    asking = asyncio.create_task(calls.status(session, task_id))
    await asyncio.sleep(1)
    assert [request.status for request in emulator.requests] == [None]
    await asking
    with pytest.raises(aiohttp.ClientError):
        await calls.status(session, task_id)
    async with session.get("/elsewhere?key=secret", headers={"Authorization": "other", "X-Trace": "t1"}):
        pass
    first, second, third = emulator.requests
    assert (first.method, first.path, first.task_id, first.authorized) == ("POST", calls.RESULT, task_id, True)
    assert first.time == pytest.approx(start, abs=0.001)
    assert second.time == pytest.approx(start + 2, abs=0.001)
    assert (third.method, third.path, third.task_id, third.authorized) == ("GET", "/elsewhere", None, False)
    assert third.headers["x-trace"] == "t1"
    assert third.headers["authorization"] == "***"
    assert [request.status for request in emulator.requests] == [200, None, 404]
    assert emulator.api_key not in repr(emulator.requests)
    assert "secret" not in repr(emulator.requests)


@pytest.mark.looptime
async def test_the_log_is_the_readers(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """It may be cleared at any time, even under a request."""
    task_id = emulator.add_task([(0, "QUEUED")], faults=[fault.delay(2)])
    asking = asyncio.create_task(calls.status(session, task_id))
    await asyncio.sleep(1)
    assert len(emulator.requests) == 1
    emulator.requests.clear()
    assert await asking == "QUEUED"
    assert emulator.requests == []


async def test_the_log_has_an_end(
    emulator: Emulator, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of very many requests the newest are kept."""
    monkeypatch.setattr(_log, "_KEPT_REQUESTS", 10)
    ids = [emulator.add_task([(0, "QUEUED")]) for _ in range(25)]
    for task_id in ids:
        await calls.status(session, task_id)
    kept = [request.task_id for request in emulator.requests]
    assert 5 <= len(kept) <= 10
    assert kept == ids[-len(kept) :]


async def test_the_log_has_what_was_said(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """The log tells which request was sent twice: a body is its JSON value, the bytes where it has none, or None."""
    emulator.faults.append(fault.status(503))
    for number in (1, 2, 2):
        await calls.post(session, calls.CREATE, {**calls.A_CHAT, "seed": number})
    for body in (b"{", b"", b"null", b'{"a": NaN}', b"\xff", bytes(2**20 + 1)):
        await calls.refusal(session, body=body)
    async with session.get("/elsewhere"):
        pass
    said = [request.body for request in emulator.requests]
    assert said[:3] == [{**calls.A_CHAT, "seed": number} for number in (1, 2, 2)]
    assert said[3:] == [b"{", None, None, b'{"a": NaN}', b"\xff", None, None]
    assert str(calls.A_CHAT["model"]) not in repr(emulator.requests)


@pytest.mark.parametrize("key", [calls.UNKNOWN_ID.replace("-", ""), 'a"b\\c'])
async def test_the_log_never_has_the_key(key: str) -> None:
    """Wherever a client puts the key, in whatever spelling, it isn't kept, and the rest is as it was."""
    spelt = "".join(f"\\u{ord(letter):04x}" for letter in key)
    plain = json.dumps({"id": key, "key": [f"<{key}>"]})
    async with (
        Emulator(key) as emulator,
        aiohttp.ClientSession(emulator.base_url, headers={"Authorization": key}) as session,
    ):
        for body in (plain, plain.replace(json.dumps(key)[1:-1], spelt), f"{{{key}"):
            await calls.refusal(session, body=body.encode())
        await calls.refusal(session, path=f"/async/{quote(key, safe='')}/result")
        await calls.refusal(session, path=f"/{key}".replace("\\", "%5c"))
        assert await calls.refusal(session) == 404
        *with_key, without = emulator.requests
        first, second, third, *_ = (request.body for request in with_key)
    kept = [*(request.body for request in with_key), repr(emulator.requests), [r.content for r in emulator.requests]]
    for spelling in (key, json.dumps(key)[1:-1], spelt, quote(key)):
        assert spelling not in json.dumps(kept, default=bytes.decode, ensure_ascii=False)
    assert (first, second) in [({"id": "***", "key": ["<***>"]}, "***"), ("***", "***")]
    assert third == b"{***"
    assert [request.path for request in with_key] == [calls.RESULT] * 3 + ["***"] * 2
    assert (without.task_id, without.body) == (calls.UNKNOWN_ID, {"id": calls.UNKNOWN_ID})


async def test_the_bodies_in_the_log_have_an_end(
    emulator: Emulator, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of bodies that are too much together the newest are kept, and all requests; a cleared log makes room."""
    monkeypatch.setattr(_log, "_KEPT_BODIES", 1000)
    for _ in range(2):
        for number in range(30):
            await calls.refusal(session, body=b"%100d" % number)
        kept = [request.body for request in emulator.requests]
        assert len(kept) == 30
        bodies = [body for body in kept if body is not None]
        assert bodies == list(range(30 - len(bodies), 30))
        assert 5 <= len(bodies) <= 10
        emulator.requests.clear()


@pytest.mark.looptime
async def test_it_comes_back_as_it_was() -> None:
    """Left and entered again it listens on the same port, and its tasks have lived on."""
    emulator = Emulator("key")
    async with aiohttp.ClientSession(headers={"Authorization": "key"}) as session:
        async with emulator:
            task_id = emulator.add_task([(0, "QUEUED"), (60, "COMPLETED")])
            url = emulator.base_url + calls.RESULT
            assert (await calls.post(session, url, {"id": task_id}))[1]["status"] == "QUEUED"
        await asyncio.sleep(60)
        with pytest.raises(aiohttp.ClientConnectionError):
            await calls.post(session, url, {"id": task_id})
        async with emulator:
            assert (await calls.post(session, url, {"id": task_id}))[1]["status"] == "COMPLETED"


# How a connection may stand when the emulator stops.


async def just_connecting(emulator: Emulator) -> list[socket.socket]:
    port = int(emulator.base_url.rpartition(":")[2])
    sockets = []
    for _ in range(5):
        connecting = socket.socket()
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, ("127.0.0.1", port))
        sockets.append(connecting)
    return sockets


async def still_connecting(emulator: Emulator) -> list[socket.socket]:
    """One more in each of the loop's next turns, while the emulator stops."""
    loop, sockets = asyncio.get_running_loop(), []
    port = int(emulator.base_url.rpartition(":")[2])

    def one_more(left: int) -> None:
        connecting = socket.socket()
        connecting.setblocking(False)
        connecting.connect_ex(("127.0.0.1", port))
        sockets.append(connecting)
        if left:
            loop.call_soon(one_more, left - 1)

    one_more(10)
    return sockets


async def idle(emulator: Emulator) -> list[socket.socket]:
    sockets = await just_connecting(emulator)
    await asyncio.sleep(0.01)
    return sockets


async def asking(emulator: Emulator, data: bytes | None = None) -> list[socket.socket]:
    sockets = await just_connecting(emulator)
    for connected in sockets:
        await asyncio.get_running_loop().sock_sendall(connected, data or calls.request_bytes(emulator))
    return sockets


async def half_asked(emulator: Emulator) -> list[socket.socket]:
    sockets = await asking(emulator, calls.request_bytes(emulator)[:-5])
    await asyncio.sleep(0.01)
    return sockets


async def answered(emulator: Emulator) -> list[socket.socket]:
    sockets = await asking(emulator)
    for connected in sockets:
        assert await asyncio.get_running_loop().sock_recv(connected, 65536)
    return sockets


async def unanswered(emulator: Emulator) -> list[socket.socket]:
    emulator.down = fault.silence()
    sockets = await asking(emulator)
    await asyncio.sleep(0.01)
    assert len(emulator.requests) == 5
    return sockets


async def dripping(emulator: Emulator) -> list[socket.socket]:
    emulator.down = fault.drip(0.001)
    return await answered(emulator)


async def not_reading(emulator: Emulator) -> list[socket.socket]:
    emulator.down = fault.raw(bytes(50_000_000))
    return await answered(emulator)


async def many_at_once(emulator: Emulator) -> list[socket.socket]:
    emulator.down = fault.delay(60)
    return await asking(emulator, calls.request_bytes(emulator) * 100)


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.mark.looptime
@pytest.mark.parametrize(
    "scene",
    [
        just_connecting,
        still_connecting,
        idle,
        asking,
        half_asked,
        answered,
        unanswered,
        dripping,
        not_reading,
        many_at_once,
    ],
)
async def test_it_leaves_nothing_behind(scene: Callable[[Emulator], Awaitable[list[socket.socket]]]) -> None:
    """However its connections stand, leaving cuts them and leaves no asyncio task, no open file and no listener."""
    tasks, files = asyncio.all_tasks(), open_files()
    async with Emulator("key") as emulator:
        sockets = await scene(emulator)
    assert asyncio.all_tasks() == tasks
    with pytest.raises(ConnectionRefusedError):
        await calls.first_bytes(emulator, b"")
    await asyncio.sleep(0.01)
    for connected in sockets:
        connected.close()
    gc.collect()  # a socket left to it would warn, and warnings are errors
    assert open_files() == files


@pytest.mark.looptime
async def test_a_client_that_leaves_ends_its_request(emulator: Emulator) -> None:
    """Nothing goes on for a client that is gone."""
    before = asyncio.all_tasks()
    emulator.down = fault.silence()
    for connected in await asking(emulator):
        await asyncio.sleep(0.01)
        connected.close()
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


async def test_listeners_hear_what_should_be_as_specified(
    emulator: Emulator, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listeners get each answer of the emulator's own making, refusals too, and none that was scripted otherwise."""
    heard: list[tuple[str, int, str, bytes]] = []
    monkeypatch.setattr(Emulator, "listeners", [lambda *answer: heard.append(answer)])
    good = emulator.add_task([(0, "QUEUED")], faults=[fault.status(503), fault.cut(10)])
    odd = emulator.add_task([(0, "PAUSED")])
    more = emulator.add_task([(0, "QUEUED")], answer={"eta": 5})
    await calls.status(session, good)
    with pytest.raises(aiohttp.ClientError):
        await calls.status(session, good)
    for task_id in (odd, more, good, calls.UNKNOWN_ID):
        await calls.status(session, task_id)
    assert [(path, status, kind) for path, status, kind, _ in heard] == [
        (calls.RESULT, status, "application/json") for status in (200, 200, 404)
    ]
    assert heard[-1][3] == b'{"message": "task not found"}'


@pytest.mark.looptime
async def test_the_real_date_on_demand() -> None:
    """Without an epoch tasks are dated by the real clock, from the emulator's first use on, however late that is."""
    async with (
        Emulator(epoch=None) as emulator,
        aiohttp.ClientSession(emulator.base_url, headers={"Authorization": emulator.api_key}) as session,
    ):
        await asyncio.sleep(3600)
        before = time.time()
        task_id = emulator.add_task([(0, "QUEUED")])
        created = (await calls.result(session, task_id))["created"]
        assert before - 1 < created < time.time() + 1
