"""Answers in any form that HTTP allows, and each status code."""

from __future__ import annotations

import aiohttp
import pytest

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    DistributeError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    Retry,
)
from tests import misbehaving as bad
from tests.faults.cases import BODY, ID, caught, new_client, now, rule_of, task
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.seams import RULES


@pytest.mark.looptime
@pytest.mark.parametrize(
    "behaviour",
    [
        bad.http10(BODY),
        bad.raw_and_close(bad.head() + BODY),
        bad.chunked(BODY[:7], BODY[7:]),
        bad.chunked(*[BODY[n : n + 1] for n in range(len(BODY))]),
        bad.drip(bad.answer(task()), pause=0.001),
        bad.raw(bad.head(100) * 3 + bad.head(103, {"Link": "</x>"}) + bad.answer(task())),
        bad.raw(bad.answer(task(), headers={"Content-Type": "text/html; charset=nonsense"})),
        bad.raw(bad.answer(task(), headers={"Content-Encoding": "identity"})),
        bad.raw(bad.answer(task(), headers={"Connection": "close"})),
        bad.raw(bad.answer(task(), headers={"Set-Cookie": "a=b", "Location": "http://127.0.0.1:9/"})),
        bad.raw(bad.answer(b"\r\n\t " + BODY + b" \n")),
        bad.raw(bad.answer(task(), headers={f"x-{n}": "y" for n in range(90)})),
        bad.raw(bad.answer(task(), headers={"x": "\xff\xfe"})),
    ],
)
async def test_a_sound_answer_is_taken_in_any_form(behaviour: Behaviour) -> None:
    """What HTTP allows is no fault: two polls of it give two results."""
    async with MisbehavingServer(behaviour) as server, new_client(server.url, retry=Retry(attempts=1)) as client:
        for _ in range(2):
            assert (await client.fetch(ID)).text == "the answer"


def expected_error(code: int) -> type[DistributeError]:
    named: dict[int, type[DistributeError]] = dict.fromkeys((400, 422), BadRequestError)
    named |= {401: AuthenticationError, 402: PermissionDeniedError, 403: PermissionDeniedError}
    named |= {404: NotFoundError, 410: NotFoundError, 429: RateLimitError}
    if 500 <= code < 600:
        return InternalServerError
    return named.get(code, APIStatusError) if 300 <= code < 500 else APIResponseValidationError


@pytest.mark.looptime
async def test_every_status_code_ends_well() -> None:
    """Each code from 100 to 999 is a result or one typed error; 1xx but 101 announce an answer, which never comes."""
    codes = [code for code in range(100, 1000) if code != 200]
    script = [
        bad.raw_and_close(bad.head(code)) if code < 200 else bad.status(code, b"", Retry_After="0") for code in codes
    ]
    seen: dict[int, DistributeError] = {}
    async with MisbehavingServer(*script) as server, aiohttp.ClientSession() as session:
        for code in codes:
            # One client each: what one code did to a client must not spare the next one its request.
            async with new_client(server.url, session=session, retry=Retry(attempts=1)) as client:
                seen[code] = await caught(client.fetch(ID))
        assert len(server.requests) == len(codes)
    for code, error in seen.items():
        if code < 200 and code != 101:
            assert isinstance(error, APIConnectionError)
            continue
        assert type(error) is expected_error(code), code
        assert rule_of(code if isinstance(error, APIStatusError) else "code") in RULES
        assert str(code) in str(error)


@pytest.mark.looptime
async def test_a_1xx_that_stays_alone_is_a_timeout() -> None:
    """An announcement without the answer is cut by the exchange's timeout."""
    async with (
        MisbehavingServer(bad.raw(bad.head(102))) as server,
        new_client(server.url, retry=Retry(attempts=1)) as client,
    ):
        began = now()
        assert isinstance(await caught(client.fetch(ID)), APITimeoutError)
        assert now() - began == pytest.approx(30.0, abs=0.1)


@pytest.mark.looptime
@pytest.mark.parametrize("line", ["HTTP/1.1 20", "HTTP/1.1 2000 OK", "HTTP/1.1 099 No", "HTTP/1.1 -1 No", "HTTP/1.1"])
async def test_no_status_code_is_a_protocol_fault(line: str) -> None:
    """What isn't three digits is no HTTP."""
    data = f"{line}\r\nContent-Length: 0\r\n\r\n".encode()
    async with (
        MisbehavingServer(bad.raw_and_close(data)) as server,
        new_client(server.url, retry=Retry(attempts=1)) as client,
    ):
        error = await caught(client.fetch(ID))
    assert isinstance(error, APIConnectionError | APIResponseValidationError)
