"""What a client can be told: by arguments, by the environment, and what it refuses."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distribute_async import (
    ConfigurationError,
    DistributeClient,
    Limits,
    Pacing,
    Retry,
)
from tests import misbehaving as bad
from tests.misbehaving import MisbehavingServer
from tests.waiting import (
    ID,
    KEY,
    body,
    new_client,
    says,
)

DONE = bad.good(body())


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISTRIBUTE_API_KEY", "DISTRIBUTE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


async def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the key and the address are the environment's; an argument wins over it."""
    async with MisbehavingServer(DONE) as server:
        monkeypatch.setenv("DISTRIBUTE_API_KEY", KEY)
        monkeypatch.setenv("DISTRIBUTE_BASE_URL", server.url)
        async with DistributeClient() as client:
            await client.fetch(ID)
        monkeypatch.setenv("DISTRIBUTE_BASE_URL", "https://elsewhere.invalid")
        async with DistributeClient("another-key", base_url=server.url) as client:
            await client.fetch(ID)
        assert [request.header("authorization") for request in server.requests] == [[KEY], ["another-key"]]


async def test_the_address_is_the_specifications_where_none_is_given() -> None:
    """Without any setting the client goes to the server that the specification names."""
    assert repr(DistributeClient(KEY)) == "<DistributeClient for api.distribute.ai>"


@pytest.mark.parametrize("prefix", ["", "/", "/gateway", "/gateway/", "/a/b%20c"])
async def test_calls_go_below_the_address(prefix: str) -> None:
    """A path in the address is a gateway's prefix: the call's path is appended to it, once."""
    async with MisbehavingServer(DONE) as server, new_client(server.url + prefix) as client:
        await client.fetch(ID)
        assert [request.path for request in server.requests] == [f"{prefix.rstrip('/')}/async/chat/result"]


@pytest.mark.parametrize(
    "base_url",
    [
        *("", " ", "api.distribute.ai", "//api.distribute.ai", "ftp://api.distribute.ai", "https://", "https:///path"),
        *(
            "https://user@host",
            "https://user:secret@host",
            "https://:secret@host",
            "https://host?a=b",
            "https://host#a",
        ),
        *(
            "http://api.distribute.ai",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://10.0.0.1",
        ),
        *(
            "http://0.0.0.0",
            "https://host:99999",
            "https://host:x",
            "https://[::1",
            b"https://host",
            7,
            ["https://host"],
        ),
        *("file:///etc/passwd", "HTTP://EXAMPLE.COM"),
    ],
    ids=repr,
)
async def test_an_address_that_cannot_work_is_refused(base_url: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no plain https address is refused at the start, from an argument and from the environment alike."""
    with pytest.raises(ConfigurationError, match="base_url") as raised:
        DistributeClient(KEY, base_url=base_url)
    assert isinstance(raised.value, ValueError)
    assert "secret" not in str(raised.value)
    if isinstance(base_url, str):
        monkeypatch.setenv("DISTRIBUTE_BASE_URL", base_url)
        with pytest.raises(ConfigurationError, match="base_url"):
            DistributeClient(KEY)


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1", "http://127.1.2.3", "http://[::1]:1", "http://localhost:1"])
async def test_plain_http_is_for_this_machine(base_url: str) -> None:
    """Loopback needs no TLS; anything else needs it, or a plain word that the key may travel readable."""
    DistributeClient(KEY, base_url=base_url)
    with pytest.raises(ConfigurationError, match="allow_insecure"):
        DistributeClient(KEY, base_url="http://gateway.example")
    DistributeClient(KEY, base_url="http://gateway.example", allow_insecure=True)


@pytest.mark.parametrize(
    "key",
    ["", " ", " key", "key ", "ke\ny", "key\n", "key\r", "ke\0y", "ke\x7fy", "k\xe9y", "key\u2028", b"key", 7, ["k"]],
)
async def test_a_key_that_cannot_be_sent_is_refused(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that can't be a header's value is refused at the start, without being shown."""
    with pytest.raises(ConfigurationError, match="API key") as raised:
        DistributeClient(key)
    assert raised.value.__context__ is None
    if isinstance(key, str) and "\0" not in key:
        monkeypatch.setenv("DISTRIBUTE_API_KEY", key)
        with pytest.raises(ConfigurationError, match="API key"):
            DistributeClient()


async def test_no_key_is_told_with_the_way_out() -> None:
    """Without any key the error names the variable and the argument."""
    with pytest.raises(ConfigurationError, match=r"DISTRIBUTE_API_KEY.*api_key="):
        DistributeClient()


async def test_a_scheme_may_stand_before_the_key() -> None:
    """`auth_scheme` is put before the key; the service itself takes the bare key."""
    async with MisbehavingServer(DONE) as server, new_client(server.url, auth_scheme="Bearer") as client:
        await client.fetch(ID)
        assert server.requests[0].header("authorization") == [f"Bearer {KEY}"]
    for scheme in ("", "two words", "Bea\nrer", "B\xe9arer", " "):
        with pytest.raises(ConfigurationError, match="auth_scheme"):
            DistributeClient(KEY, auth_scheme=scheme)


@pytest.mark.looptime
async def test_headers_are_sent_along() -> None:
    """Headers of the caller's go out with each request, and may replace the harmless ones of ours."""
    headers = {"X-Team": "blue", "Accept": "application/json; q=1", "User-Agent": "mine/1"}
    async with (
        MisbehavingServer(*says("QUEUED", "COMPLETED")) as server,
        new_client(server.url, headers=headers) as client,
    ):
        await client.wait_for_result(ID)
        for request in server.requests:
            assert request.header("x-team") == ["blue"]
            assert request.header("user-agent") == ["mine/1"]
            assert request.header("accept") == ["application/json; q=1"]
            assert request.header("authorization") == [KEY]


@pytest.mark.parametrize(
    "headers",
    [
        *({name: "x"} for name in ("Authorization", "authorization", "Content-Type", "CONTENT-LENGTH", "Host")),
        *(
            {"Transfer-Encoding": "chunked"},
            {"": "x"},
            {"X": "a\r\nauthorization: other"},
            {"X\r\nY": "z"},
            {"X": "\xe9"},
        ),
        *({"X": 7}, {7: "x"}, {"X": None}, {"X": b"x"}),
    ],
    ids=repr,
)
async def test_headers_that_harm_are_refused(headers: Any) -> None:
    """What would replace the key, break the request or can't be sent is refused at the start."""
    with pytest.raises(ConfigurationError, match="header"):
        DistributeClient(KEY, headers=headers)


@pytest.mark.parametrize(
    "make",
    [
        *(lambda value=value: Pacing(initial=value) for value in (0, -1, float("nan"), float("inf"), "1", None, True)),
        *(lambda: Pacing(factor=0.9), lambda: Pacing(max=0), lambda: Pacing(floor=-0.1)),
        *(lambda: Retry(attempts=0), lambda: Retry(attempts=1.5), lambda: Retry(max_outage=-1), lambda: Retry(max="1")),  # type: ignore[arg-type]
        *(lambda: Limits(max_in_flight=0), lambda: Limits(max_requests_per_second=0)),
        *(lambda: Limits(exchange_timeout=0), lambda: Limits(connect_timeout=float("inf"))),
        lambda: Limits(max_body_bytes=True),
    ],
)  # fmt: skip
def test_numbers_that_cannot_work_are_refused(make: Callable[[], object]) -> None:
    """A number out of its range is refused where it is given, by the name of its field."""
    with pytest.raises(ConfigurationError, match=r"(Pacing|Retry|Limits)\.\w+ must be "):
        make()


async def test_a_context_that_does_not_verify_is_refused() -> None:
    """TLS is always verified: a context that checks no certificate or no name is refused."""
    lax, nameless = ssl.create_default_context(), ssl.create_default_context()
    lax.check_hostname = nameless.check_hostname = False
    lax.verify_mode = ssl.CERT_NONE
    for context in (lax, nameless, ssl._create_unverified_context()):
        with pytest.raises(ConfigurationError, match="ssl_context must verify"):
            DistributeClient(KEY, ssl_context=context)
    DistributeClient(KEY, ssl_context=ssl.create_default_context())


# What the environment could slip in.


async def test_the_environments_proxy_and_passwords_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxies and `.netrc` of the environment have no say: the request goes straight, with our key alone."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n")
    netrc.chmod(0o600)
    async with MisbehavingServer(DONE) as proxy, MisbehavingServer(DONE) as server:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(netrc))
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        async with new_client(server.url) as client:
            await client.fetch(ID)
        assert proxy.connections == 0
        assert server.requests[0].header("authorization") == [KEY]


async def test_the_proxy_that_is_told_is_used() -> None:
    """With `proxy=` the requests go to it, and to nobody else."""
    async with MisbehavingServer(DONE) as proxy, new_client("http://127.0.0.1:9", proxy=proxy.url) as client:
        await client.fetch(ID)
        assert [request.path for request in proxy.requests] == ["http://127.0.0.1:9/async/chat/result"]


@pytest.mark.looptime
async def test_cookies_are_not_kept() -> None:
    """What a service sets as a cookie doesn't come back with the next request."""
    script = bad.good(body("QUEUED"), **{"Set-Cookie": "a=b; Path=/"})
    async with (
        MisbehavingServer(script, DONE) as server,
        new_client(server.url.replace("127.0.0.1", "localhost")) as client,
    ):
        await client.wait_for_result(ID)
        assert [request.header("cookie") for request in server.requests] == [[], []]


@pytest.mark.parametrize(
    ("name", "wrong"), [("pacing", "learned"), ("pacing", {"initial": 1}), ("retry", 3), ("limits", Retry())]
)
def test_settings_of_another_type_are_refused(name: str, wrong: object) -> None:
    """What is no `Pacing`, `Retry` or `Limits` is refused when the client is made, not at its first call."""
    settings: dict[str, Any] = {name: wrong}
    with pytest.raises(ConfigurationError, match=f"{name} must be a {name.capitalize()}, not"):
        DistributeClient("key", **settings)
