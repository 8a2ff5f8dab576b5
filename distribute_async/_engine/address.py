"""The URLs of the service and of the proxy, validated. Reads the environment; otherwise pure.

Used by `client`, `http`, `download` and `shared`.
"""

from __future__ import annotations

import ipaddress
import os
from base64 import b64encode
from typing import Any

from yarl import URL

from distribute_async._engine.credentials import Secret
from distribute_async._wire.errors import ConfigurationError

#: The server in the specification.
DEFAULT_BASE_URL = "https://api.distribute.ai"
BASE_URL_VARIABLE = "DISTRIBUTE_BASE_URL"


def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address, is this machine. Names are not resolved."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def service_url(base_url: str | None, *, allow_insecure: bool) -> URL:
    """The service's URL: the argument, else DISTRIBUTE_BASE_URL, else the server in the specification.

    Raises `ConfigurationError` for anything but an http or https URL without credentials, query and fragment. Also for
    plain http to another machine, unless `allow_insecure`, since the API key would be sent unencrypted.
    """
    text = base_url if base_url is not None else os.environ.get(BASE_URL_VARIABLE, DEFAULT_BASE_URL)
    # These errors don't repeat the text, which may contain a password.
    url = _parsed(text)
    if url is None:
        raise ConfigurationError("base_url is not a valid URL: check its host and port")
    host = url.host
    if url.scheme not in {"http", "https"} or not host:
        raise ConfigurationError("base_url must start with https://, followed by a host")
    if url.user is not None or url.password is not None:
        raise ConfigurationError("base_url must not contain a user or password: pass the key as api_key=")
    if url.query_string or url.fragment:
        raise ConfigurationError("base_url must not have a query or fragment")
    if url.scheme == "http" and not (allow_insecure or is_loopback(host)):
        raise ConfigurationError(
            "base_url is plain http, so the key would be sent unencrypted: use https, or pass allow_insecure=True"
        )
    return url


def _parsed(text: Any) -> URL | None:
    """The URL in a text; None if it isn't one, or if its host or port is invalid.

    It raises nothing, since a traceback could show what else is in the text, such as a password.
    """
    try:
        url = URL(text)
        host = url.host or ""
        host.encode("idna")  # as for a DNS lookup
    except (TypeError, ValueError):
        return None
    return None if url.port == 0 or not host.isprintable() or " " in host else url


def checked_proxy(proxy: Secret | None) -> Secret | None:
    """The URL of an HTTP proxy, as given. Raises `ConfigurationError` if it isn't one."""
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
    """The secrets in a proxy's URL: the password, and the user and password as they are sent."""
    url = None if proxy is None else URL(proxy)
    if url is None or not url.password:
        return ()
    return Secret(url.password), Secret(b64encode(_basic_credentials(url)).decode())
