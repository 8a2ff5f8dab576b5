"""What a client can be told: by arguments, by the environment, and what it refuses."""

from __future__ import annotations

import base64
import ssl
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from distribute_async import (
    APIConnectionError,
    ConfigurationError,
    DistributeClient,
    Limits,
    Pacing,
    PermissionDeniedError,
    Retry,
)
from tests import misbehaving as bad
from tests import seams
from tests.misbehaving import MisbehavingServer
from tests.waiting import (
    ID,
    KEY,
    assert_is_ours,
    body,
    caught,
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
    for scheme in ("", "two words", "Bea\nrer", "B\xe9arer", " ", "Bearer:", "Bea,rer", 7):
        with pytest.raises(ConfigurationError, match="auth_scheme"):
            DistributeClient(KEY, auth_scheme=scheme)  # type: ignore[arg-type]


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
        *({name: "x"} for name in ("Host: evil", "X Y", "X:", " X", "X ", "X\t", "(X)", "X/Y", 'X"', "X\x7f", "\xe9")),
        *({name: "x"} for name in ("Connection", "Expect", "Content-Encoding", "TE", "Trailer", "Upgrade")),
        *({name: "x"} for name in ("keep-alive", "Proxy-Authorization", "proxy-connection", "Proxy-Anything")),
    ],
    ids=repr,
)
async def test_headers_that_harm_are_refused(headers: Any) -> None:
    """What would replace the key, change how the request is framed or can't be sent is refused at the start."""
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


FIELDS: dict[type, list[str]] = {
    kind: [field.name for field in attrs.fields(kind) if field.init and field.name != "jitter"]
    for kind in (Pacing, Retry, Limits)
}


@pytest.mark.parametrize("digits", [400, 5_000])
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FIELDS.items() for name in names])
def test_a_number_beyond_a_double_is_refused(kind: Any, name: str, digits: int) -> None:
    """A whole number that no double holds is refused like any other that can't work, however many digits it has."""
    for number in (10**digits, -(10**digits)):
        with pytest.raises(ConfigurationError, match=rf"{kind.__name__}\.{name} must be ") as raised:
            kind(**{name: number})
        assert raised.value.__context__ is None
        assert len(str(raised.value)) < 200


@pytest.mark.parametrize("digits", [400, 5_000])
async def test_an_argument_beyond_a_double_is_refused(digits: int) -> None:
    """A timeout or window that no double holds is refused where it is given."""
    client = DistributeClient(KEY, base_url="http://127.0.0.1:1")
    calls: list[Callable[[int], Any]] = [
        lambda number: DistributeClient(KEY, timeout=number),
        lambda number: client.watch(ID, timeout=number),
        lambda number: client.as_completed([], timeout=number),
        lambda number: client.as_completed([], window=number),
    ]
    for call in calls:
        for number in (10**digits, -(10**digits)):
            with pytest.raises(ConfigurationError, match="must be") as raised:
                call(number)
            assert raised.value.__context__ is None


def test_a_backoff_that_grows_past_a_double_stays_at_its_cap() -> None:
    """Steps that no double holds are the cap, whatever the numbers are."""
    for pacing in (Pacing(initial=1e-300, factor=1e308, max=1e308), Pacing(initial=1e-300, factor=2, max=1e308)):
        assert pacing.interval(20_000) >= 1e308 / 2


async def test_a_context_that_does_not_verify_is_refused() -> None:
    """TLS is always verified: a context that checks no certificate or no name is refused."""
    lax, nameless = ssl.create_default_context(), ssl.create_default_context()
    lax.check_hostname = nameless.check_hostname = False
    lax.verify_mode = ssl.CERT_NONE
    for context in (lax, nameless, ssl._create_unverified_context()):  # noqa: SLF001 - of the standard library
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


PROXIES = [
    *("", " ", "proxy", "proxy:3128", "//proxy:3128", "ftp://proxy", "socks5://proxy:1080", "http://", "http://:3128"),
    *(
        "http:///proxy",
        "http:proxy",
        "http://proxy:99999",
        "http://proxy:x",
        "http://proxy:0",
        "http://[::1",
        "http://a..b",
    ),
    *(
        "http://" + "a" * 70,
        "http://proxy/path",
        "http://proxy?a=b",
        "http://proxy#a",
        "http://us er@",
        b"http://proxy",
        7,
    ),
    *("http://us%3Aer:pa55word@proxy", "http://user:pa55word%E2%82%AC@proxy"),
    *("http://user:pa55word@", "ftp://user:pa55word@proxy", "http://user:pa55word@proxy:99999", "http://pa55word@a..b"),
]


@pytest.mark.parametrize("proxy", PROXIES, ids=repr)
async def test_a_proxy_that_cannot_work_is_refused(proxy: Any) -> None:
    """What is no plain address of an HTTP proxy is refused at the start, by name, and a password in it isn't shown."""
    with pytest.raises(ConfigurationError, match="proxy") as raised:
        DistributeClient(KEY, proxy=proxy)
    assert_is_ours(raised.value)
    assert "pa55word" not in shown(raised.value)


def shown(error: BaseException) -> str:
    """An error as a logger with locals shows it, but for the frames of the test."""
    traced = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [repr(frame.locals) for frame in traced.stack if "distribute_async" in frame.filename]
    return "".join([str(error), repr(error), repr(vars(error)), *frames])


@pytest.mark.parametrize("wrong", [{"timeout": -1}, {"base_url": "nowhere"}, {"headers": {"Host": "x"}}, {"limits": 5}])
async def test_the_password_of_a_proxy_is_not_shown(wrong: Any) -> None:
    """A proxy's user and password go to the proxy alone: no repr shows them, nor an error about something else."""
    proxy = "http://us3r:pa55word@127.0.0.1:9"
    with pytest.raises(ConfigurationError) as raised:
        DistributeClient(KEY, proxy=proxy, **wrong)
    assert "pa55word" not in shown(raised.value)
    async with DistributeClient(KEY, base_url="http://127.0.0.1:9", proxy=proxy, retry=Retry(attempts=1)) as client:
        error = await caught(client.fetch(ID), APIConnectionError)
        assert error.reason == "proxy"
        seen = shown(error) + repr(client) + repr(vars(client)) + repr(vars(seams.http_of(client)))
        assert "pa55word" not in seen
        assert "us3r" not in seen


async def test_a_proxy_gets_its_password() -> None:
    """The user and password in `proxy=` reach the proxy, and what it echoes of them is cut out of its error."""
    basic = base64.b64encode(b"us3r:pa55word").decode()
    echo = bad.status(403, {"message": f"Basic {basic} is us3r with pa55word"})
    async with MisbehavingServer(echo) as proxy:
        url = proxy.url.replace("://", "://us3r:pa55word@")
        async with new_client("http://127.0.0.1:9", proxy=url) as client:
            error = await caught(client.fetch(ID), PermissionDeniedError)
        assert proxy.requests[0].header("proxy-authorization") == [f"Basic {basic}"]
    assert "pa55word" not in shown(error)
    assert basic not in shown(error)


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
