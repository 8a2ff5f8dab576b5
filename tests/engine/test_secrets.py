"""The key, and what lies beneath: neither is ever shown to whoever reads an error, a log or a repr."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import pickle
import re
import ssl
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus

import aiohttp
import pytest

from distribute_async import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    DistributeClient,
    DistributeError,
    NotFoundError,
    PermissionDeniedError,
    Retry,
    TaskFailedError,
    WaitTimeoutError,
)
from tests import misbehaving as bad
from tests import seams
from tests.fuzz.oracle import JSON_PATHS, JsonPath, reading_json_with
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.waiting import ID, KEY, assert_is_ours, body, caught, listed, new_client, says, turns

ECHO = {"message": f"no such key: {KEY}, authorization: Bearer {KEY}"}

#: What a wait meets, and the error in which it ends.
ENDINGS: dict[str, tuple[Behaviour, type[DistributeError]]] = {
    "401 with an echo": (bad.status(401, ECHO, x_request_id=f"id-{KEY}"), AuthenticationError),
    "404 with an echo": (bad.status(404, ECHO, x_request_id=KEY), NotFoundError),
    "302 with an echo": (bad.status(302, ECHO, Location=f"http://127.0.0.1:9/?key={KEY}"), APIStatusError),
    "500 with an echo": (bad.status(500, ECHO), APIStatusError),
    "429 with an echo": (bad.status(429, ECHO, Retry_After="9999"), APIStatusError),
    "a shape with an echo": (bad.good({"status": [KEY], KEY: KEY, "created": KEY}), APIResponseValidationError),
    "text with an echo": (bad.good(KEY.encode()), APIResponseValidationError),
    "a strange code with an echo": (bad.status(299, ECHO), APIResponseValidationError),
    "a head with an echo": (bad.raw(f"HTTP/1.1 {KEY}\r\n\r\n".encode()), APIConnectionError),
    "a header line with an echo": (bad.raw(bad.head()[:-2] + KEY.encode() + b"\r\n\r\n"), APIConnectionError),
    "cut off": (bad.close, APIConnectionError),
    "reset": (bad.reset, APIConnectionError),
    "cut within the body": (bad.truncated(KEY.encode()), APIConnectionError),
    "silence": (bad.silence(), WaitTimeoutError),
    "never over": (bad.good(body("QUEUED")), WaitTimeoutError),
    "failed": (bad.good(body("ERROR")), TaskFailedError),
}
WAITS: dict[str, Any] = {
    "wait_for_result": lambda client: client.wait_for_result(ID),
    "await": lambda client: client.watch(ID),
    "iterate": lambda client: listed(client.watch(ID)),
    "fetch": lambda client: client.fetch(ID),
}


#: Those raise nothing: an iteration shows the failure as a status, and a fetch takes any status.
GOOD = {("failed", "iterate"), ("failed", "fetch"), ("never over", "fetch")}


@pytest.mark.looptime
@pytest.mark.parametrize("scheme", [None, "Bearer"])
@pytest.mark.parametrize(
    ("ending", "wait"), [(ending, wait) for ending in ENDINGS for wait in WAITS if (ending, wait) not in GOOD]
)
async def test_no_error_shows_the_key_or_what_lies_beneath(
    ending: str, wait: str, scheme: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """No error holds the key in its text, attributes or our frames' locals, nor any object of a library beneath."""
    behaviour, kind = ENDINGS[ending]
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    async with MisbehavingServer(behaviour) as server:
        settings = {"retry": Retry(attempts=2, max_outage=20.0), "timeout": 60.0, "auth_scheme": scheme}
        async with new_client(server.url, **settings) as client:
            error = await caught(WAITS[wait](client), kind)
    shown = [str(error), repr(error), repr(error.args), repr(vars(error)), repr(client), repr(vars(client))]
    shown += [repr(pickle.dumps(error)), *(record.getMessage() + str(record.exc_text) for record in caplog.records)]
    shown += [repr(seams.http_of(client)), repr(client.chat)]
    assert [text for text in shown if KEY in text] == []
    assert error.task_id == ID


ODD_KEY = """a/b"c'd\\e&f<g>h%i+j k=="""
KEYS = {"hexadecimal": KEY, "odd": ODD_KEY, "with its scheme": f"Bearer {KEY}", "base64": "QUJD/RUZ+Rw=="}


def each(key: str, form: str) -> str:
    """A key with each of its characters in another form."""
    return "".join(form.format(ord(character)) for character in key)


def echoes(key: str) -> dict[str, bytes]:
    """JSON bodies that hold a key in their message, in each way that a service may come to write it."""

    def said(text: str) -> bytes:
        return json.dumps({"message": f"no such key: {text}."}).encode()

    def escaped(text: str) -> bytes:
        return b'{"message": "no such key: ' + text.encode() + b'."}'

    plain = json.dumps(key)[1:-1]
    return {
        "as it is": said(key),
        "with slashes escaped": escaped(plain.replace("/", "\\/")),
        "escaped, lower case": escaped(each(key, "\\u{:04x}")),
        "escaped, upper case": escaped(each(key, "\\u{:04X}")),
        "escaped in part": escaped(each(key[0], "\\u{:04x}") + json.dumps(key[1:])[1:-1]),
        "escaped in the midst": escaped(
            json.dumps(key[:5])[1:-1] + each(key[5], "\\u{:04X}") + json.dumps(key[6:])[1:-1]
        ),
        "JSON in JSON": said(json.dumps({"key": key})),
        "JSON in JSON in JSON": said(json.dumps(json.dumps({"key": key}))),
        "JSON in JSON, escaped": said(f'{{"key": "{each(key, chr(92) + "u{:04X}")}"}}'),
        "JSON in JSON, with slashes escaped": said(json.dumps(key).replace("/", "\\/")),
        "a Python repr": said(repr(key.encode())),
        "bytes": said(each(key, "\\x{:02x}")),
        "in a URL": said(quote(key, safe="")),
        "in a URL, lower case": said(each(key, "%{:02x}")),
        "in a query": said(quote_plus(key)),
        "in a URL in a URL": said(quote(quote(key, safe=""), safe="")),
        "HTML": said(html.escape(key)),
        "HTML in HTML": said(html.escape(html.escape(key))),
        "HTML, decimal": said(each(key, "&#{};")),
        "HTML, hexadecimal": said(each(key, "&#X{:x};")),
        "in capitals": said(key.upper()),
        "with a scheme": said(f"Bearer {key}"),
        "with a scheme, in a URL": said(quote(f"bearer {key}", safe="")),
        "cut by the length of a message": said("x" * 270 + key),
        "cut before the length of a message": said(" " * 560 + key + "y" * 1000),
        "many times": said(f"{key} " * 60 + key[:-2]),
        "with a mark": b"\xef\xbb\xbf" + said(key),
        "with lone surrogates": b'{"message": "\\ud800 ' + plain.encode() + b'"}',
    }


def told_forms(key: str) -> set[str]:
    """What would give a key away to who reads it: any five of its characters in a row, in any form."""
    key = key.removeprefix("Bearer ").lower()
    return {key[at : at + 5] for at in range(len(key) - 4)}


@pytest.mark.parametrize("json_path", JSON_PATHS)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
async def test_an_echo_does_not_show_the_key_however_it_is_written(key: str, json_path: JsonPath) -> None:
    """A service's words, and its request id, don't show the key, however they are encoded, escaped or cut."""
    for name, echo in echoes(key).items():
        ids = [key, quote(key), html.escape(key), f"Bearer {key}", each(key, "\\u{:04X}"), "x" * 290 + key]
        script = [bad.status(403, echo, x_request_id=text) for text in ids]
        with reading_json_with(json_path):
            async with MisbehavingServer(*script) as server, DistributeClient(key, base_url=server.url) as client:
                for _ in ids:
                    error = await caught(client.fetch(ID), PermissionDeniedError)
                    for text in (error.message or "", error.request_id or "", str(error), repr(error)):
                        assert "[key" in text, (name, text)
                        seen = fully_decoded(text)
                        assert [part for part in told_forms(key) if part in seen] == [], (name, text)


def fully_decoded(text: str) -> str:
    """A text with all that may be undone in it undone, in lower case."""
    for _ in range(4):
        text = re.sub(r"\\+u00([0-9a-fA-F]{2})|\\+x([0-9a-fA-F]{2})", lambda hit: chr(int(hit[1] or hit[2], 16)), text)
        text = re.sub(r"\\(.)", r"\1", html.unescape(unquote_plus(text)))
    return text.lower()


async def test_what_is_no_key_is_left_as_it_is() -> None:
    """The words of a service stay as they are where the key isn't in them, escapes and all."""
    words = r"100% of C:\\u0041 &amp; https://a.example/?b=%41+c"
    async with MisbehavingServer(bad.status(403, {"message": words})) as server, new_client(server.url) as client:
        assert (await caught(client.fetch(ID), PermissionDeniedError)).message == words


async def test_the_end_of_a_long_text_shows_no_part_of_the_key() -> None:
    """However much of a message the key takes up, what is left of the message ends before a key that is cut."""
    form = each(KEY, "\\u{:04x}")
    for count in range(75, 95):
        script = bad.status(403, {"message": f"{form} " * count + f"{'y' * 5} {KEY} " * 500})
        async with MisbehavingServer(script) as server, new_client(server.url) as client:
            message = (await caught(client.fetch(ID), PermissionDeniedError)).message or ""
        seen = fully_decoded(message)
        assert [part for part in told_forms(KEY) if part in seen] == []


@pytest.mark.looptime
async def test_waits_that_are_closed_or_cut_show_nothing() -> None:
    """The errors of closing, of a session closed beneath and of a wrong address are as clean as the others."""
    async with MisbehavingServer(bad.silence()) as server:
        client = new_client(server.url)
        waiting = asyncio.create_task(client.wait_for_result(ID))
        await asyncio.sleep(1)
        await client.close()
        await caught(waiting, ClientClosedError)
        async with aiohttp.ClientSession() as session, new_client(server.url, session=session) as client:
            waiting = asyncio.create_task(client.wait_for_result(ID))
            await asyncio.sleep(1)
            await session.close()
            assert_is_ours(await caught(waiting, DistributeError))


REFUSED: dict[str, dict[str, Any]] = {
    "a newline": {"api_key": KEY + "\n"},
    "not ASCII": {"api_key": KEY + "\xe9"},
    "a blank": {"api_key": " " + KEY},
    "bytes": {"api_key": KEY.encode()},
    "a list": {"api_key": [KEY]},
    "address": {"base_url": "http://host.example"},
    "headers": {"headers": {"Host": "other"}},
    "scheme": {"auth_scheme": "two words"},
    "timeout": {"timeout": -1},
    "TLS": {"ssl_context": ssl._create_unverified_context()},
}


@pytest.mark.parametrize("settings", REFUSED.values(), ids=REFUSED)
def test_a_setting_that_is_refused_does_not_show_the_key(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the error that refuses a setting shows the key, nor do our frames in its traceback."""
    monkeypatch.setenv("DISTRIBUTE_API_KEY", KEY)
    with pytest.raises(ConfigurationError) as raised:
        DistributeClient(**settings)
    assert_is_ours(raised.value)


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {"base_url": f"https://user:{KEY}@host"},
            {"base_url": f"https://host?key={KEY}"},
            {"auth_scheme": f"a {KEY}"},
        ),
        *({"headers": {"Authorization": KEY}}, {"headers": {"X": f"{KEY}\n"}}, {"headers": {f"{KEY}\n": "x"}}),
    ],
    ids=["password", "query", "scheme", "authorization", "header's value", "header's name"],
)
def test_a_key_in_a_wrong_place_is_not_repeated(settings: dict[str, Any]) -> None:
    """Who puts the key where it doesn't belong isn't answered with it."""
    with pytest.raises(ConfigurationError) as raised:
        DistributeClient("a-key", **settings)
    assert KEY not in str(raised.value) + repr(raised.value)


@pytest.mark.looptime
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_the_key_never_goes_to_another_origin(code: int) -> None:
    """A redirect, to another host or the same one, is never followed: it is an error that says so."""
    async with MisbehavingServer(*says("COMPLETED")) as elsewhere:
        for place in (elsewhere.url, "/async/chat/result", f"https://127.0.0.1:{elsewhere.port}/"):
            async with (
                MisbehavingServer(bad.status(code, b"", Location=place)) as server,
                new_client(server.url) as client,
            ):
                error = await caught(client.wait_for_result(ID), APIStatusError)
                assert error.status_code == code
                assert "redirects are not followed" in str(error)
                assert len(server.requests) == 1
        await turns(5)
        assert elsewhere.connections == 0


@pytest.mark.looptime
async def test_the_key_goes_out_once_for_each_request() -> None:
    """The key is in the `authorization` header of a request, and nowhere else in it."""
    async with MisbehavingServer(*says("QUEUED", "COMPLETED")) as server, new_client(server.url) as client:
        await client.wait_for_result(ID)
    for request in server.requests:
        assert request.raw.count(KEY.encode()) == 1
        assert request.header("authorization") == [KEY]
