"""The API key, the headers that carry it, and the TLS settings, validated. Reads the environment; otherwise pure.

Used by `client`, which makes them, and by `http`, which sends them.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping

from distribute_async._wire.errors import ConfigurationError

API_KEY_VARIABLE = "DISTRIBUTE_API_KEY"


class Secret(str):
    """A string whose repr doesn't show it, so that tracebacks with local variables don't either."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"


def secret(text: str | None) -> Secret | None:
    """The text as a `Secret`; an empty one for a value that isn't a string, which validation then refuses.

    It raises nothing, since a traceback could show the text in this function's local variables.
    """
    if text is None:
        return None
    return Secret(text) if isinstance(text, str) else Secret()


def secret_key(api_key: str | None) -> Secret | None:
    """The API key: the argument, else DISTRIBUTE_API_KEY, else None. Raises nothing, as `secret` doesn't."""
    return secret(os.environ.get(API_KEY_VARIABLE) if api_key is None else api_key)


class SecretHeaders(dict[str, str]):
    """The headers to send, with the API key: a dict whose repr shows the names only."""

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"


def request_headers(key: Secret | None, *, auth_scheme: str | None, headers: Mapping[str, str] | None) -> SecretHeaders:
    """The headers of each request.

    Raises `ConfigurationError` if there is no key, if the key, `auth_scheme` or a header is invalid, and if a header of
    the caller would replace one that the client sets.
    """
    if key is None:
        raise ConfigurationError(f"no API key: set {API_KEY_VARIABLE} or pass api_key=")
    if not key or not _is_sendable(key) or key != key.strip():
        raise ConfigurationError(
            "the API key can't be sent in a header: it must be visible ASCII, without a line break or blanks around it"
        )
    if auth_scheme is not None and not (isinstance(auth_scheme, str) and _TOKEN.fullmatch(auth_scheme)):
        raise ConfigurationError('auth_scheme must be one word that a header may contain, such as "Bearer"')
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
    """The caller's headers. Raises `ConfigurationError` for invalid ones, and for those that the client sets itself."""
    for name, value in headers.items():
        if not (isinstance(name, str) and _TOKEN.fullmatch(name)):
            raise ConfigurationError(
                "headers must have names of ASCII letters, digits and -, without blanks or a colon"
            )
        if not (isinstance(value, str) and _is_sendable(value)):
            raise ConfigurationError("headers must be visible ASCII text, names and values")
        if name.lower() in _RESERVED_HEADERS or name.lower().startswith("proxy-"):
            raise ConfigurationError(
                f"headers must not set {name.lower()}: the client sets it (pass the key as api_key=)"
            )
    return dict(headers)


#: The name of a header or a scheme (RFC 9110 §5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: Headers that only the client sets: the key, the content, the host, the framing of the request, and the use of the
#: connection (RFC 9110 §7.6.1, RFC 9112).
_RESERVED_HEADERS = {
    *("authorization", "content-type", "host"),
    *("content-length", "content-encoding", "transfer-encoding", "te", "trailer", "expect"),
    *("connection", "keep-alive", "upgrade"),
}


def _is_sendable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def checked_ssl_context(context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """The caller's context. Raises `ConfigurationError` if it doesn't verify certificates and host names."""
    if context is not None and not (context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname):
        raise ConfigurationError(
            "ssl_context must verify certificates and host names: to trust a private authority, load its certificate"
        )
    return context
