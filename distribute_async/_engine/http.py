"""The aiohttp session wrapper: one HTTP exchange, its errors as values. It and `download` alone know aiohttp's client.

Used by `exchanges`, which also cuts what takes too long. It knows nothing of tasks: a path and a request body go in, a
`Response` or an error comes out.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable, Mapping
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from attrs import frozen
from yarl import URL

from distribute_async._engine.address import is_loopback, proxy_secrets
from distribute_async._engine.credentials import Secret, SecretHeaders
from distribute_async._policy.settings import Limits
from distribute_async._wire.codec import status_error
from distribute_async._wire.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    DistributeError,
)
from distribute_async._wire.redaction import Redaction

#: Of a body, read or written at a time; aiohttp unpacks compressed bodies in pieces of at most this size too.
_PIECE = 1 << 16
_UNREQUESTED = APIConnectionError("a kept-alive connection held a response that nobody requested", "stale")


@frozen
class Response:
    """A whole 200, as it came; the codec decodes it. (Other status codes become errors at once.)"""

    status_code: int
    headers: Mapping[str, str]
    body: bytes
    #: Whether the service is on this machine.
    is_local: bool = False


class _WithheldError(ConnectionError):
    """Tells aiohttp to send nothing of a request, its head neither."""


class _Body(Payload):
    """A request body that says when it is written, which is when the exchange has its connection.

    aiohttp tells that by trace hooks too, but those belong to a session, and a caller's session stays unchanged. (Its
    own body of bytes warns about one of over a mebibyte, which a conversation may be.)
    """

    _autoclose = True  # there is nothing to close

    def __init__(self, content: bytes, may_send: Callable[[], bool]) -> None:
        super().__init__(content, content_type="application/json")
        self._size = len(content)
        self._content = content
        self._may_send = may_send
        self.protocol: object = None
        #: Nothing was sent: something had come on the connection that nobody asked for, or it is wanted no longer.
        self.is_withheld = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._content.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002
        self.protocol = getattr(writer, "protocol", None)
        # aiohttp takes what came while the connection was idle (a server's 408 before it closes, a forgery) for the
        # response to the next request. (Before Python 3.12 it does so even before it comes here.)
        self.is_withheld = getattr(self.protocol, "should_close", False) or not self._may_send()
        if self.is_withheld:
            raise _WithheldError
        for start in range(0, len(self._content), _PIECE):
            await writer.write(self._content[start : start + _PIECE])


class HttpSession:
    """Exchanges with the service, over a session of its own (made on first use) or over the caller's.

    `connect_timeout` and `exchange_timeout`: seconds within which an exchange is to have a connection, and from then
    on its whole response. Waiting for a place in the caller's pool is no fault of the service's, and not counted.
    """

    def __init__(
        self,
        url: URL,
        headers: SecretHeaders,
        limits: Limits,
        *,
        given: aiohttp.ClientSession | None,
        proxy: Secret | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._url = url
        self._is_local = is_loopback(url.host or "")
        self._targets: dict[str, URL] = {}
        self._headers = headers
        self.connect_timeout = math.inf if given else limits.connect_timeout
        self.exchange_timeout = limits.exchange_timeout
        self._max_body_bytes = limits.max_body_bytes
        # `total` would count waiting for a place in the caller's pool, too.
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_timeout)
        self._given = given
        self._own: aiohttp.ClientSession | None = None
        self._closing = asyncio.Lock()
        self._proxy = proxy
        self._ssl = ssl_context
        authorization = headers["authorization"]
        # With its scheme, without it, and without one that is in the key itself.
        self._redaction = Redaction(
            [authorization, authorization.partition(" ")[2], authorization.rpartition(" ")[2], *proxy_secrets(proxy)]
        )
        # Connections that have served an exchange: only those can have gone stale.
        self._used: WeakSet[object] = WeakSet()

    def __repr__(self) -> str:
        return f"<HttpSession for {self._url.host}>"

    @property
    def address(self) -> str:
        """Where it connects to, for people: host and port."""
        return f"{self._url.host_subcomponent}:{self._url.port}"

    def _target(self, path: str) -> URL:
        if path not in self._targets:
            self._targets[path] = self._url.joinpath(*path.split("/"))
        return self._targets[path]

    def _session(self) -> aiohttp.ClientSession:
        if self._given is not None:
            return self._given
        if self._own is None:
            # The throttle bounds what is under way, so the pool needs no bound of its own: waiting for it would count
            # as the exchange's time. No cookies, no proxies or passwords from the environment.
            self._own = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl or True),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy,
                trust_env=False,
            )
        return self._own

    async def close(self) -> None:
        """Close the session that was made here, if any; the next exchange would make another."""
        async with self._closing:  # who comes while another one closes it sees it closed, too
            own, self._own = self._own, None
            if own is not None:
                await own.close()

    async def post(
        self,
        path: str,
        content: bytes,
        extra: Mapping[str, str] | None = None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Response | DistributeError:
        """One exchange, with `extra` headers. Whatever goes wrong is returned; only cancellation is raised.

        `may_send` is asked once there is a connection, just before anything is sent: from then on the service may have
        got it.
        """
        session = self._session()
        if session.closed:
            return ClientClosedError("the aiohttp session given as session= is closed")
        body = _Body(content, may_send)
        try:
            return await self._exchange(session, path, body, extra)
        except Exception as error:  # nothing of aiohttp's may reach the caller
            if body.is_withheld:
                return _UNREQUESTED
            if type(error) is ValueError and body.protocol is None:
                # aiohttp refuses credentials of the session's own (its auth=, or .netrc by trust_env) beside our key.
                return ConfigurationError("the session given as session= can't send the key: it has credentials too")
            return connection_fault(error, self.address, was_used=body.protocol in self._used)
        finally:
            if body.protocol is not None:
                self._used.add(body.protocol)

    async def _exchange(
        self, session: aiohttp.ClientSession, path: str, request: _Body, extra: Mapping[str, str] | None
    ) -> Response | DistributeError:
        async with session.post(
            self._target(path),
            data=request,
            headers=SecretHeaders({**self._headers, **extra}) if extra else self._headers,
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=True,
            timeout=self._timeout,
        ) as response:
            if request.protocol is None or request.is_withheld:  # it came before the request was sent
                response.close()
                return _UNREQUESTED
            pieces: list[bytes] = []
            size = 0
            while not response.content.at_eof():
                piece = await response.content.read(_PIECE)
                size += len(piece)
                if size > self._max_body_bytes:
                    response.close()
                    return APIResponseValidationError(
                        f"the response is larger than {self._max_body_bytes} bytes (Limits.max_body_bytes)",
                        "too_large",
                    )
                pieces.append(piece)
            body = b"".join(pieces)
        if response.status != 200:
            # An error's words are shown to people: what a service echoes of the key in them is cut out.
            return status_error(response.status, response.headers, body, self._redaction)
        return Response(response.status, response.headers, body, self._is_local)


def connection_fault(error: BaseException, address: str = "the service", *, was_used: bool = False) -> DistributeError:
    """Ours for whatever aiohttp, the socket or TLS raised; no text of theirs is taken over (it can hold headers).

    `address`: host and port, which its text names. `was_used`: the connection had served an exchange before, so a
    disconnect without a byte means that it was stale.
    """
    if isinstance(error, aiohttp.InvalidURL):
        return ConfigurationError("base_url is no address that can be connected to")
    if isinstance(error, TimeoutError):
        return APITimeoutError("no response in time")
    if isinstance(
        error,
        ssl.SSLCertVerificationError | aiohttp.ClientConnectorCertificateError | aiohttp.ServerFingerprintMismatch,
    ):
        return APIConnectionError(
            "the service's certificate doesn't verify (for a private authority, pass ssl_context=)",
            "certificate",
        )
    if was_used and _is_without_response(error):
        return APIConnectionError("a kept-alive connection was closed before the response", "stale")
    for kind, message, reason in _FAULTS:
        if isinstance(error, kind):
            return APIConnectionError(message.format(address=address), reason)
    return APIConnectionError(f"the exchange broke with {type(error).__name__}", "unexpected")


def _is_without_response(error: BaseException) -> bool:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        # Where part of a response came, `message` is that part.
        return isinstance(error.message, str)
    return isinstance(error, ConnectionResetError | BrokenPipeError | aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    )


# In the order in which they are asked: the first that fits counts.
_FAULTS: tuple[tuple[type[BaseException], str, str], ...] = (
    (
        aiohttp.ClientProxyConnectionError,
        "the proxy on the way to {address} can't be reached: check the address in proxy=",
        "proxy",
    ),
    (aiohttp.ClientHttpProxyError, "the proxy refuses to connect to {address}: check proxy= and base_url", "proxy"),
    (
        aiohttp.ClientConnectorDNSError,
        "the host name of {address} isn't found: check its spelling in base_url, and this machine's network and DNS",
        "dns",
    ),
    (
        aiohttp.ClientSSLError,
        "the TLS handshake with {address} failed: check that base_url should be https, and what is on the way there",
        "tls",
    ),
    (ssl.SSLError, "the TLS connection broke", "tls"),
    (
        aiohttp.ClientConnectorError,
        "can't connect to {address}: check base_url, that the service listens there, and firewalls",
        "connect",
    ),
    (aiohttp.ClientConnectionError, "the connection was lost before the response", "disconnected"),
    (aiohttp.ClientPayloadError, "the connection was lost within the response", "body"),
    (aiohttp.ClientResponseError, "the response is not HTTP", "protocol"),
    (aiohttp.ClientError, "the exchange failed", "protocol"),
    (OSError, "the connection broke", "disconnected"),
)
