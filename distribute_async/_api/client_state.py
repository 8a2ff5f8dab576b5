"""What a client is made of: its checked settings and, from its first use on, its engine.

Used by `client` and `shared`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import aiohttp

from distribute_async._engine.address import checked_proxy, service_url
from distribute_async._engine.credentials import Secret, checked_ssl_context, request_headers
from distribute_async._engine.engine import Engine
from distribute_async._engine.http import HttpSession
from distribute_async._engine.observer import Observer, Stats
from distribute_async._engine.poller import Poller
from distribute_async._engine.subscription import closed
from distribute_async._engine.telemetry import ObserverTelemetry, Telemetry
from distribute_async._policy.adaptive import LearnedPacing, PacingMemory
from distribute_async._policy.attempts import RequestPolicy
from distribute_async._policy.pacing import Pacing, retry_steps
from distribute_async._policy.settings import DEFAULT_TIMEOUT, Limits, Retry
from distribute_async._policy.throttle import Throttle
from distribute_async._wire.arguments import DEFAULT, Default, is_number, wait_timeout
from distribute_async._wire.errors import ConfigurationError


class ClientState:
    """The parts of one client. Arguments as for `DistributeClient`, with the key and the proxy hidden from tracebacks.

    `closes_when_idle`: its connections are kept only as long as somebody waits.
    """

    # For the repr of one whose settings were refused, which a traceback with locals shows.
    host: str = "nowhere"
    is_closed: bool = False

    def __init__(
        self,
        api_key: Secret | None,
        *,
        base_url: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        session: aiohttp.ClientSession | None = None,
        pacing: Pacing | None = None,
        retry: Retry | None = None,
        limits: Limits | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: Secret | None = None,
        ssl_context: ssl.SSLContext | None = None,
        auth_scheme: str | None = None,
        allow_insecure: bool = False,
        observer: Observer | None = None,
        closes_when_idle: bool = False,
    ) -> None:
        if session is not None and (proxy is not None or ssl_context is not None):
            raise ConfigurationError(
                "proxy= and ssl_context= belong to a session: set them up in the one given as session="
            )
        for name, given, kind in (("pacing", pacing, Pacing), ("retry", retry, Retry), ("limits", limits, Limits)):
            if not (given is None or isinstance(given, kind)):
                raise ConfigurationError(f"{name} must be a {kind.__name__}, not {given!r}")
        self._timeout = wait_timeout(timeout)
        self._limits = limits or Limits()
        url = service_url(base_url, allow_insecure=allow_insecure)
        self.host = url.host or ""
        self.http = HttpSession(
            url,
            request_headers(api_key, auth_scheme=auth_scheme, headers=headers),
            self._limits,
            given=session,
            proxy=checked_proxy(proxy),
            ssl_context=checked_ssl_context(ssl_context),
        )
        if not (observer is None or isinstance(observer, Observer)):
            raise ConfigurationError("observer must be an Observer: derive its class from it")
        self._telemetry = Telemetry() if observer is None else ObserverTelemetry(observer, self.host, url.port or 0)
        retry, pacing = retry or Retry(), pacing or Pacing()
        self._policy = RequestPolicy(pacing, retry, retry_steps(retry), PacingMemory(pacing))
        self._closes_when_idle = closes_when_idle
        self.running: Engine | None = None

    def __repr__(self) -> str:
        return f"<DistributeClient for {self.host}{' (closed)' if self.is_closed else ''}>"

    def engine(self) -> Engine:
        """What polls for the client, made at its first use on the running loop. Raises `ClientClosedError`."""
        if self.is_closed:
            raise closed()
        if self.running is None:
            throttle = Throttle(self._limits, self._policy.pacing.jitter)
            poller = Poller(self.http, throttle, self._policy, self._telemetry, closes_when_idle=self._closes_when_idle)
            self.running = Engine(poller)
        return self.running

    def seconds(self, timeout: float | Default | None) -> float:
        """A call's timeout, or the client's; infinite for none."""
        return self._timeout if timeout is DEFAULT else wait_timeout(timeout)

    async def close(self, grace: float) -> None:
        """See `DistributeClient.close`."""
        if not (is_number(grace) and grace >= 0):
            raise ConfigurationError(f"grace must be a number of seconds of 0 or more, not {grace!r}")
        self.is_closed = True
        if self.running is not None:
            await self.running.close(grace)

    def stats(self) -> Stats:
        """See `DistributeClient.stats`."""
        return Stats() if self.running is None else self.running.stats()

    def pacing_report(self) -> tuple[LearnedPacing, ...]:
        """See `DistributeClient.pacing_report`."""
        return self._policy.learning.report()
