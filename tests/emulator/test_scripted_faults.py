"""What a fault does to a request, byte for byte and second by second; faults by chance."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from distribute_async.emulator import Emulator, Fault, fault
from tests.emulator import calls
from tests.emulator.calls import UNKNOWN_ID as ID


@pytest.fixture
async def whole_answer(emulator: Emulator) -> bytes:
    """What the emulator says to a request for an unknown task, where the fault is to close the connection anyway."""
    content = json.dumps({"message": "task not found"})
    lines = ["HTTP/1.1 404 Not Found", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "Connection: close", "", content]).encode()


async def test_status(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """A scripted status code comes with a JSON message, and with the headers of the script."""
    emulator.faults.append(fault.status(503, headers={"Retry-After": "7", "X-Request-Id": "r1"}))
    async with session.post(calls.RESULT, json={"id": ID}) as response:
        assert (response.status, response.headers["Retry-After"], response.headers["X-Request-Id"]) == (503, "7", "r1")
        assert response.headers["Content-Type"] == "application/json"
        assert await response.json() == {"message": "scripted 503"}


@pytest.mark.parametrize(
    ("scripted", "content_type", "body"),
    [
        (fault.status(502, body=b"<h1>Bad Gateway</h1>"), "text/html", b"<h1>Bad Gateway</h1>"),
        (fault.status(200, body=b"{", content_type="application/json"), "application/json", b"{"),
        (fault.status(200, body=b"", headers={"Content-Type": "x/y"}), "x/y", b""),
        (fault.status(599), "application/json", b'{"message": "scripted 599"}'),
    ],
)
async def test_status_with_a_body(
    emulator: Emulator, session: aiohttp.ClientSession, scripted: Fault, content_type: str, body: bytes
) -> None:
    """A scripted body is sent as it is: as HTML, as proxies do, where nothing else is said."""
    emulator.faults.append(scripted)
    async with session.post(calls.RESULT, json={"id": ID}) as response:
        assert (response.headers["Content-Type"], await response.read()) == (content_type, body)


@pytest.mark.looptime
async def test_silence_for_a_while(emulator: Emulator) -> None:
    """Nothing comes, and the connection is closed after so many seconds."""
    emulator.faults.append(fault.silence(2.5))
    ((moment, data),) = await calls.wire(emulator)
    assert moment == pytest.approx(2.5, abs=0.001)
    assert data == b""


@pytest.mark.looptime
async def test_silence_without_end(emulator: Emulator) -> None:
    """Nothing comes for as long as anybody waits."""
    emulator.faults.append(fault.silence())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await calls.wire(emulator)
    assert [request.status for request in emulator.requests] == [None]


@pytest.mark.parametrize("after", [0, 1, 20, 80, 1_000_000])
async def test_cut(emulator: Emulator, whole_answer: bytes, after: int) -> None:
    """So many bytes of the answer come, then the end of the connection."""
    emulator.faults.append(fault.cut(after))
    assert b"".join(data for _, data in await calls.wire(emulator)) == whole_answer[:after]


async def test_a_cut_request_has_had_its_effect(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Where the answer to a create call is lost, the task exists all the same."""
    twin = Emulator(seed=7)
    emulator.faults.append(fault.cut())
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await calls.create(session)
    assert (await calls.result(session, twin.add_task()))["status"] == "CREATED"


@pytest.mark.looptime
async def test_delay(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """The answer comes so many seconds late, and says what is true then."""
    task_id = emulator.add_task([(0, "QUEUED"), (5, "PROCESSING")], faults=[fault.delay(6)])
    start = asyncio.get_running_loop().time()
    assert await calls.status(session, task_id) == "PROCESSING"
    assert asyncio.get_running_loop().time() - start == pytest.approx(6, abs=0.001)


@pytest.mark.looptime
async def test_drip(emulator: Emulator, whole_answer: bytes) -> None:
    """Each byte comes alone, one each interval, and after the last one the end."""
    emulator.faults.append(fault.drip(2))
    came = await calls.wire(emulator)
    assert [data for _, data in came] == [bytes([byte]) for byte in whole_answer] + [b""]
    assert [moment for moment, _ in came] == pytest.approx([2.0 * n for n in range(len(whole_answer) + 1)], abs=0.001)


@pytest.mark.looptime
async def test_a_dripped_answer_can_be_read(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Who has the patience gets the usual answer."""
    task_id = emulator.add_task([(0, "QUEUED")], faults=[fault.drip()])
    assert await calls.status(session, task_id) == "QUEUED"


@pytest.mark.parametrize("data", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n\r\n\xff"])
async def test_raw(emulator: Emulator, data: bytes) -> None:
    """These bytes come as they are, then the end of the connection."""
    emulator.faults.append(fault.raw(data))
    assert b"".join(came for _, came in await calls.wire(emulator)) == data


async def test_a_fault_of_ones_own(emulator: Emulator) -> None:
    """Any async callable of the same form is a fault."""

    async def twice(answer: fault.Answer, write: fault.Write) -> web.Response | None:
        write(b"HTTP/1.1 102 Processing\r\n\r\n")
        return answer()

    emulator.faults.append(twice)
    answer = await calls.first_bytes(emulator, calls.request_bytes(emulator))
    assert answer.startswith(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 404 Not Found\r\n")


async def test_faults_come_in_order_and_are_used_once(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """The emulator's own faults come first, then the task's, each for one request, and then all is well."""
    task_id = emulator.add_task([(0, "QUEUED")], faults=[fault.status(501), fault.status(502)])
    emulator.faults.extend([fault.status(503), fault.status(504)])
    seen = [await calls.status(session, task_id) for _ in range(6)]
    assert seen == ["503", "504", "501", "502", "QUEUED", "QUEUED"]


async def test_a_tasks_faults_meet_its_own_requests(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """Requests for other tasks, or for nothing, don't use up a task's faults; its id may be in upper case."""
    task_id = emulator.add_task([(0, "QUEUED")], faults=[fault.status(502)])
    assert await calls.status(session, emulator.add_task([(0, "QUEUED")])) == "QUEUED"
    assert (await calls.post(session, calls.RESULT, [task_id]))[0] == 400
    assert [await calls.status(session, task_id.upper()) for _ in range(2)] == ["502", "QUEUED"]


async def test_a_fault_comes_before_all_checks(emulator: Emulator) -> None:
    """What stands before the service asks for no key."""
    emulator.faults.append(fault.status(502))
    async with (
        aiohttp.ClientSession(emulator.base_url) as stranger,
        stranger.get("/anything") as response,
    ):
        assert response.status == 502


async def test_down(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """While it is down every request meets that fault, others wait, and afterwards all is as before."""
    task_id = emulator.add_task([(0, "QUEUED")], faults=[fault.status(501)])
    emulator.faults.append(fault.status(502))
    emulator.down = fault.status(503)
    assert [await calls.status(session, task_id) for _ in range(3)] == ["503"] * 3
    emulator.down = None
    assert [await calls.status(session, task_id) for _ in range(3)] == ["502", "501", "QUEUED"]


async def outcomes(count: int, *, rate: float, seed: int = 7) -> list[tuple[float, object]]:
    """What so many requests for the same task come to: seconds, and the status code with the body or what else."""
    loop, seen = asyncio.get_running_loop(), list[tuple[float, object]]()
    async with (
        Emulator(seed=seed, fault_rate=rate) as emulator,
        aiohttp.ClientSession(emulator.base_url, headers={"Authorization": emulator.api_key}) as session,
    ):
        task_id = emulator.add_task([(0, "QUEUED")])
        for _ in range(count):
            start = loop.time()
            outcome: object
            try:
                async with session.post(calls.RESULT, json={"id": task_id}) as response:
                    outcome = response.status, response.content_type, await response.read()
            except aiohttp.ClientError as error:
                outcome = type(error)
            seen.append((round(loop.time() - start, 2), outcome))
    return seen


@pytest.mark.looptime
async def test_faults_by_chance() -> None:
    """A share of the requests meets faults of all kinds; the same seed gives the same ones, another seed others."""
    good, *usual = (await outcomes(1, rate=0))[0], *(await outcomes(1000, rate=0.3))
    bad = [outcome for outcome in usual if outcome != good]
    assert 200 < len(bad) < 400
    codes = {outcome[0] for _, outcome in bad if isinstance(outcome, tuple)}
    assert codes == {200, 429, 500, 502, 503}
    assert {outcome for _, outcome in bad if isinstance(outcome, type)} == {
        aiohttp.ServerDisconnectedError,
        aiohttp.ClientPayloadError,
    }
    assert {outcome[1] for took, outcome in bad if took == 0 and isinstance(outcome, tuple) and outcome[0] == 200} == {
        "text/html"
    }
    late = [took for took, outcome in bad if outcome == good[1]]
    silent = [took for took, outcome in bad if took and outcome == aiohttp.ServerDisconnectedError]
    assert 0.5 <= min(late) < max(late) <= 3
    assert 1 <= min(silent) < max(silent) <= 5
    assert await outcomes(1000, rate=0.3) == usual
    assert await outcomes(1000, rate=0.3, seed=8) != usual
    assert good not in await outcomes(50, rate=1)


async def test_scripted_faults_go_before_those_by_chance() -> None:
    """A request that meets a scripted fault meets none by chance."""
    async with (
        Emulator(fault_rate=1) as emulator,
        aiohttp.ClientSession(headers={"Authorization": emulator.api_key}) as session,
    ):
        emulator.faults.extend([fault.status(418)] * 5)
        task_id = emulator.add_task(faults=[fault.status(419)] * 2)
        url = emulator.base_url + calls.RESULT
        assert [(await session.post(url, json={"id": task_id})).status for _ in range(7)] == [418] * 5 + [419] * 2
        emulator.down = fault.status(420)
        assert (await session.post(url, json={"id": task_id})).status == 420


@pytest.mark.looptime
async def test_files_meet_no_faults_by_chance() -> None:
    """The fault rate is that of the API: files come, unless a fault is scripted for them."""
    async with Emulator(fault_rate=1) as emulator, aiohttp.ClientSession() as session:
        task_id = emulator.add_task([(0, "COMPLETED")], kind="speech")
        for _ in range(20):
            async with session.get(f"{emulator.files_url}/{task_id}/0.wav") as response:
                assert response.status == 200
