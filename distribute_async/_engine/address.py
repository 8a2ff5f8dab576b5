"""Where the service is, and the proxy on the way there: URLs, checked. Pure but for the environment."""

from __future__ import annotations

import ipaddress
import os
from base64 import b64encode
from typing import Any

from yarl import URL

from distribute_async._engine.credentials import Secret
from distribute_async._wire.errors import ConfigurationError

#: The server that the specification names.
DEFAULT_BASE_URL = "https://api.distribute.ai"
BASE_URL_VARIABLE = "DISTRIBUTE_BASE_URL"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def service_url(base_url: str | None, *, allow_insecure: bool) -> URL:
    """The service's address: the argument, else DISTRIBUTE_BASE_URL, else the specification's server.

    Raises `ConfigurationError` for what is no plain http(s) address, and for http to anything but this machine
    unless `allow_insecure`: the key would travel readable.
    """
    text = base_url if base_url is not None else os.environ.get(BASE_URL_VARIABLE, DEFAULT_BASE_URL)
    # The text itself is not repeated in these errors: it may hold a password.
    url = _parsed(text)
    if url is None:
        raise ConfigurationError("base_url is not a URL, or has a host or port that can't be")
    host = url.host
    if url.scheme not in {"http", "https"} or not host:
        raise ConfigurationError("base_url must start with https:// and name a host")
    if url.user is not None or url.password is not None:
        raise ConfigurationError("base_url must not hold a user or password: the key goes in api_key=")
    if url.query_string or url.fragment:
        raise ConfigurationError("base_url must not have a query or fragment")
    if url.scheme == "http" and not (allow_insecure or is_loopback(host)):
        raise ConfigurationError(
            "base_url is plain http, so the key would travel readable: use https, or say allow_insecure=True"
        )
    return url


def _parsed(text: Any) -> URL | None:
    """The URL in a text; None where there is none, or one whose host or port can't be. Raises nothing: it has no say in
    what else may be in it, such as a password."""
    try:
        url = URL(text)
        host = url.host or ""
        host.encode("idna")  # as it is done to look the name up
    except (TypeError, ValueError):
        return None
    return None if url.port == 0 or not host.isprintable() or " " in host else url


def checked_proxy(proxy: Secret | None) -> Secret | None:
    """The URL of an HTTP proxy, as it was given. Raises `ConfigurationError` for what can't be one."""
    if proxy is not None and not _is_proxy(proxy):
        raise ConfigurationError(
            "proxy must be the URL of an HTTP proxy, such as http://user:password@host:3128, without a path"
        )
    return proxy


def _is_proxy(text: str) -> bool:
    url = _parsed(text)
    if url is None or url.scheme not in {"http", "https"} or not url.host:
        return False
    if url.path not in {"", "/"} or url.query_string or url.fragment:
        return False
    try:
        _basic_credentials(url)
    except ValueError:
        return False
    return ":" not in (url.user or "")


def _basic_credentials(url: URL) -> bytes:
    return f"{url.user or ''}:{url.password or ''}".encode("latin-1")  # as aiohttp sends them


def proxy_secrets(proxy: Secret | None) -> tuple[Secret, ...]:
    """What must not be shown of a proxy's URL: the password, and both in the form in which they are sent."""
    url = None if proxy is None else URL(proxy)
    if url is None or not url.password:
        return ()
    return Secret(url.password), Secret(b64encode(_basic_credentials(url)).decode())
