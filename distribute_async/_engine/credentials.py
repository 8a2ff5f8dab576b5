"""The key: where it comes from, the headers that carry it, and the TLS that protects it. Pure but for the environment.

Used by `http`, which sends the headers, and by `client`, which makes them.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping

from distribute_async._wire.errors import ConfigurationError

API_KEY_VARIABLE = "DISTRIBUTE_API_KEY"


class Secret(str):
    """Text whose repr, and so every traceback's locals, doesn't show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"


def secret(text: str | None) -> Secret | None:
    """A text that may hold a secret, hidden; an empty one for what is no text. Raises nothing: it has it readable."""
    if text is None:
        return None
    return Secret(text) if isinstance(text, str) else Secret()


def secret_key(api_key: str | None) -> Secret | None:
    """The key: the argument, else DISTRIBUTE_API_KEY, else None. Raises nothing: its locals hold the key readable."""
    return secret(os.environ.get(API_KEY_VARIABLE) if api_key is None else api_key)


class SecretHeaders(dict[str, str]):
    """Headers to send, the key among them: a dict whose repr, and so every traceback's locals, shows names only."""

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"


def request_headers(key: Secret | None, *, auth_scheme: str | None, headers: Mapping[str, str] | None) -> SecretHeaders:
    """The headers of each request.

    Raises `ConfigurationError` where there is no key, where it or a header can't be sent, and where a header
    given by the caller would replace the key or the content type.
    """
    if key is None:
        raise ConfigurationError(f"no API key: set {API_KEY_VARIABLE} or pass api_key=")
    if not key or not _is_sendable(key) or key != key.strip():
        raise ConfigurationError(
            "the API key can't be sent in a header: it must be visible ASCII, without a line break or blanks around it"
        )
    if auth_scheme is not None and not (isinstance(auth_scheme, str) and _TOKEN.fullmatch(auth_scheme)):
        raise ConfigurationError('auth_scheme must be one word of a header, such as "Bearer"')
    sent = SecretHeaders(
        {
            "authorization": f"{auth_scheme} {key}" if auth_scheme else str(key),
            "accept": "application/json",
            "content-type": "application/json",
        }
    )
    sent.update(checked_headers(headers or {}))
    return sent


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers besides ours. Raises `ConfigurationError` for what can't be sent and for what the client sets itself."""
    for name, value in headers.items():
        if not (isinstance(name, str) and _TOKEN.fullmatch(name)):
            raise ConfigurationError(
                "headers must have names of ASCII letters, digits and -, without blanks or a colon"
            )
        if not (isinstance(value, str) and _is_sendable(value)):
            raise ConfigurationError("headers must be visible ASCII text, names and values")
        if name.lower() in _RESERVED_HEADERS or name.lower().startswith("proxy-"):
            raise ConfigurationError(f"headers must not set {name.lower()}: the client does (the key goes in api_key=)")
    return dict(headers)


#: A name of a header or a scheme (RFC 9110 §5.6.2): with anything else in it, it may be read as another one.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: What tells who asks whom for what, and how a request is framed and the connection used (RFC 9110 §7.6.1, RFC 9112).
_RESERVED_HEADERS = {
    *("authorization", "content-type", "host"),
    *("content-length", "content-encoding", "transfer-encoding", "te", "trailer", "expect"),
    *("connection", "keep-alive", "upgrade"),
}


def _is_sendable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def checked_ssl_context(context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """The caller's context; raises `ConfigurationError` where it doesn't verify the service's certificate and name."""
    if context is not None and not (context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname):
        raise ConfigurationError(
            "ssl_context must verify certificates and host names: to trust a private authority, load it into one"
        )
    return context
