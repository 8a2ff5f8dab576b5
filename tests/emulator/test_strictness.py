"""What the emulator refuses, how it says so, and what it takes."""

from __future__ import annotations

import gzip
import json

import aiohttp
import pytest

from distribute_async.emulator import Emulator
from tests.emulator import calls
from tests.emulator.calls import GOOD_BODY, JSON, refusal, send

ID = calls.UNKNOWN_ID
PATHS = [f"/async/{kind}/{call}" for kind in calls.BODIES for call in ("create", "result")]


async def test_an_unknown_task(session: aiohttp.ClientSession) -> None:
    """A well-formed question for an unknown task gets the documented 404."""
    assert await send(session) == (404, {"message": "task not found"})


@pytest.mark.parametrize(
    "value",
    [
        *("", "1", ID[:-1], ID + "0", ID + "\n", "\n" + ID, f"{{{ID}}}", f"urn:uuid:{ID}", ID.replace("-", "")),
        ID.replace("-4", "-1"),
        ID.replace("-9", "-7"),
        ID.replace("b", "g"),
        ID.replace("1", "١"),  # noqa: RUF001 - a digit to Python's \d, not to the specification
        *(None, 1, 1.5, True, [], [ID], {}, {"id": ID}),
    ],
)
async def test_an_id_must_match_the_pattern(session: aiohttp.ClientSession, value: object) -> None:
    """An id that isn't a string of the specification's pattern, the whole of it, is a bad request."""
    assert await refusal(session, body=json.dumps({"id": value}).encode()) == 400


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(GOOD_BODY + b"x", id="something after it"),
        pytest.param(b"\xef\xbb\xbf" + GOOD_BODY, id="byte order mark"),
        pytest.param(GOOD_BODY.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"id": "\xff"}', id="no UTF-8"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"1" * 5000, id="number without end"),
        pytest.param(b"[" * 100_000, id="too deep"),
        *[pytest.param(body, id=body.decode()) for body in (b"null", b"[]", b'"x"', b"1", b"{}", b'{"ID": "x"}')],
    ],
)
async def test_a_body_must_be_a_json_object_with_an_id(session: aiohttp.ClientSession, body: bytes) -> None:
    """What is no JSON, no object or has no id is a bad request."""
    assert await refusal(session, body=body) == 400


async def test_a_body_is_not_compressed(session: aiohttp.ClientSession) -> None:
    """Nothing says that the service takes compressed bodies, so one is no JSON."""
    headers = {**JSON, "Content-Encoding": "gzip"}
    assert await refusal(session, body=gzip.compress(GOOD_BODY), headers=headers) == 400


async def test_no_additional_properties(session: aiohttp.ClientSession) -> None:
    """A property that the specification doesn't name is a bad request, and isn't repeated in the answer."""
    code, answer = await send(session, body=json.dumps({"id": ID, "secret": 1}).encode())
    assert (code, answer) == (400, {"message": "body must not have additional properties"})


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        *[(text, 404) for text in ("application/json", "Application/JSON", "application/json;charset=utf-8")],
        *[(text, 404) for text in ('application/json; charset="UTF-8"', "application/json; x=y")],
        *[(text, 400) for text in (None, "", "text/plain", "application/jsonp", "application/x-www-form-urlencoded")],
        *[(text, 400) for text in ("application/problem+json", "application/json garbage", "application/json, text/x")],
        *[(text, 400) for text in ("application/json; charset=utf-16", "application/json; charset=latin-1", "json")],
    ],
)
async def test_the_content_type_must_be_json(
    session: aiohttp.ClientSession, content_type: str | None, code: int
) -> None:
    """JSON is taken with whatever parameters as long as it is in UTF-8; anything else is a bad request."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert await refusal(session, headers=headers) == code


@pytest.mark.parametrize("keys", [[], [""], ["wrong"], ["Bearer right"], ["RIGHT"], ["right", "right"], ["ríght"]])
async def test_the_key_is_required_and_checked(keys: list[str]) -> None:
    """Exactly the key, once, in the authorization header: anything else is unauthorized, whatever else is wrong."""
    async with Emulator("right") as emulator, aiohttp.ClientSession(emulator.base_url) as session:
        lines = ["POST /async/chat/result HTTP/1.1", "Host: localhost", "Content-Length: 0"]
        # By hand: not all of these can be sent with aiohttp.
        request = "\r\n".join([*lines, *(f"Authorization: {key}" for key in keys), "", ""])
        answer = await calls.first_bytes(emulator, request.encode())
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert [await refusal(session, path=path) for path in PATHS] == [401] * len(PATHS)
        assert not any(request.authorized for request in emulator.requests)
        assert "right" not in repr(emulator.requests)


async def test_the_key_may_be_what_a_gateway_wants() -> None:
    """A key with a word before it is checked as a whole."""
    async with Emulator("Bearer right") as emulator, aiohttp.ClientSession(emulator.base_url) as session:
        assert await refusal(session, headers={**JSON, "Authorization": "Bearer right"}) == 404
        assert await refusal(session, headers={**JSON, "Authorization": "right"}) == 401


@pytest.mark.parametrize("key", ["", " ", " key", "key ", "a\nb", "kéy"])
def test_a_key_must_be_one_that_can_be_sent(key: str) -> None:
    """An emulator that could never be talked to isn't made."""
    with pytest.raises(ValueError, match="api_key"):
        Emulator(key)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"])
@pytest.mark.parametrize("path", PATHS)
async def test_only_post_is_allowed(session: aiohttp.ClientSession, method: str, path: str) -> None:
    """Any other method is refused, and told which one is allowed."""
    assert await refusal(session, method=method, path=path) == 405
    async with session.request(method, path) as response:
        assert response.headers["Allow"] == "POST"


async def test_head_has_no_body(session: aiohttp.ClientSession) -> None:
    """HEAD is refused like the others, in the way of HEAD."""
    assert await send(session, method="HEAD", body=b"") == (405, None)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/async/chat", "/async/chat/result/", "/async//chat/result", "/async/chat/Result"),
        *("/async/video/result", "/async/video/create", "/async/images/cancel", "/v1/async/speech/create"),
    ],
)
async def test_other_paths_are_unknown(session: aiohttp.ClientSession, path: str) -> None:
    """A path that the service doesn't have is a 404."""
    assert await send(session, path=path) == (404, {"message": "no such path"})


async def test_a_body_may_be_too_large(session: aiohttp.ClientSession) -> None:
    """A body over a mebibyte is refused without being kept."""
    assert await refusal(session, body=b" " * (1 << 20) + GOOD_BODY) == 413


async def test_a_request_with_a_broken_body_is_no_request(emulator: Emulator) -> None:
    """A body whose chunks are broken is refused as what it is, and the emulator goes on."""
    head = calls.request_bytes(emulator).partition(b"Content-Length")[0]
    broken = head + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"
    assert b" 400 " in (await calls.first_bytes(emulator, broken)).partition(b"\r\n")[0]
    assert (await calls.first_bytes(emulator, calls.request_bytes(emulator))).startswith(b"HTTP/1.1 404 ")


async def test_an_inner_failure_is_the_documented_500() -> None:
    """Where the emulator itself fails, the client gets a 500 `{message}`, and the owner hears of it in the end."""
    emulator, twin = await Emulator("key").__aenter__(), Emulator()
    # The id that the next task would draw, so that creating it must fail.
    emulator.add_task(id=[twin.add_task() for _ in range(2)][1])
    async with aiohttp.ClientSession(emulator.base_url, headers={"Authorization": "key"}) as session:
        assert await calls.post(session, calls.CREATE, calls.A_CHAT) == (500, {"message": "internal server error"})
    with pytest.raises(ExceptionGroup, match="emulator failed") as raised:
        await emulator.__aexit__(None, None, None)
    assert "already" in str(raised.value.exceptions[0])


async def fail_inside() -> None:
    async with (
        Emulator("key") as emulator,
        aiohttp.ClientSession(emulator.base_url, headers={"Authorization": "key"}) as session,
    ):
        task_id = emulator.add_task([(0, "QUEUED")], answer={"model": object()})
        assert await calls.status(session, task_id) == "500"
        raise KeyError


async def test_a_failure_does_not_hide_an_error() -> None:
    """Where the block raises, that is what comes out, and not what the emulator has to say."""
    with pytest.raises(KeyError):
        await fail_inside()
