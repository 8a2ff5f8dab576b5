"""What a client can be told: `Retry`, `Limits`, its key and address. Uses `_errors`; pure but for the environment."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import ssl
from base64 import b64encode
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from attrs import Attribute, frozen
from attrs import field as _field
from yarl import URL

from distribute_async._errors import ConfigurationError

#: The server that the specification names.
DEFAULT_BASE_URL = "https://api.distribute.ai"
#: Seconds for one whole wait where nobody says otherwise.
DEFAULT_TIMEOUT = 600.0
API_KEY_VARIABLE = "DISTRIBUTE_API_KEY"
BASE_URL_VARIABLE = "DISTRIBUTE_BASE_URL"


class Default(Enum):
    """The type of `DEFAULT`, which stands for "as the client was told": None already means something else."""

    DEFAULT = "the client's"

    def __repr__(self) -> str:
        return self.value


DEFAULT: Final = Default.DEFAULT


def _refuse_unless(fits: bool, instance: object, attribute: Attribute[Any], value: object, want: str) -> None:
    if not fits:
        raise ConfigurationError(f"{type(instance).__name__}.{attribute.name} must be {want}, not {shown(value)}")


def shown(value: object) -> str:
    """A value that is refused, for the error that says so: its repr, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # Python writes no whole number of more than 4,300 digits
        return f"such a {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


_LONGEST_SHOWN = 60


def is_number(value: object) -> bool:
    """Whether `value` is a finite number that a double holds, and no bool."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def seconds(default: float) -> Any:
    """A field of seconds (or a factor): a finite number of 0 or more."""

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        _refuse_unless(is_number(value) and value >= 0, instance, attribute, value, "a number of 0 or more")

    return _field(default=default, validator=check)


def growth(default: float) -> Any:
    """A field for the growth of a backoff: a finite number of 1 or more."""

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        _refuse_unless(is_number(value) and value >= 1, instance, attribute, value, "a number of 1 or more")

    return _field(default=default, validator=check)


def positive(default: float) -> Any:
    """A field for a finite number above 0."""

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        _refuse_unless(is_number(value) and value > 0, instance, attribute, value, "a number above 0")

    return _field(default=default, validator=check)


def is_count(value: object) -> bool:
    """Whether `value` is a whole number of 1 or more that a double holds, and no bool."""
    return isinstance(value, int) and is_number(value) and value >= 1


def count(default: int) -> Any:
    """A field for a whole number of 1 or more."""

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        _refuse_unless(is_count(value), instance, attribute, value, "a whole number of 1 or more")

    return _field(default=default, validator=check)


def _rate() -> Any:
    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        fits = value is None or (is_number(value) and value > 0)
        _refuse_unless(fits, instance, attribute, value, "a number above 0, or None for no bound")

    return _field(default=None, validator=check)


@frozen(kw_only=True)
class Retry:
    """How transient faults are outlived. All times are seconds; waits between attempts get half jitter (see `Pacing`).

    `initial`, `factor`, `max`: exponential backoff after a fault. `attempts`: how often `fetch` tries. A wait goes
    on until `max_outage` has passed since its first fault after its last good response (and three polls have failed
    since it began), and then raises the last fault. `first_contact` stands in its place while the client has not had
    a single response and can't even connect (connection, DNS, TLS handshake, proxy): a wrong address is told after
    10 s and at least `attempts` tries. `not_found_grace`: how long a 404 must be the only answer before it is believed
    (a task just created may not be visible yet). `max_retry_after`: the longest `Retry-After` that is obeyed.
    """

    attempts: int = count(3)
    initial: float = positive(0.5)
    factor: float = growth(2.0)
    max: float = positive(30.0)
    max_outage: float = seconds(300.0)
    first_contact: float = seconds(10.0)
    not_found_grace: float = seconds(3.0)
    max_retry_after: float = seconds(300.0)


@frozen(kw_only=True)
class Limits:
    """What one client may use at most.

    `max_in_flight`: HTTP exchanges at once. `max_requests_per_second`: over all requests of the client; None for no
    bound. `max_body_bytes`: an answer's size after decompression; 1 MiB, because decoding holds up the loop (10 MB
    of tiny choices took 1 s; a usual answer has under 10 KB). `connect_timeout`: seconds to get a connection.
    `exchange_timeout`: seconds from having a connection to the answer's last byte.
    """

    max_in_flight: int = count(100)
    max_requests_per_second: float | None = _rate()
    max_body_bytes: int = count(1 << 20)
    connect_timeout: float = positive(5.0)
    exchange_timeout: float = positive(30.0)


def checked_count(name: str, value: int) -> int:
    """An argument that is a whole number of 1 or more; refuses all else."""
    if not is_count(value):
        raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {shown(value)}")
    return value


def wait_timeout(value: float | None) -> float:
    """A wait's `timeout=` in seconds, with infinity for None; refuses what is no number of 0 or more."""
    if value is None:
        return math.inf
    is_endless = isinstance(value, float) and value == math.inf
    if not (is_endless or (is_number(value) and value >= 0)):
        raise ConfigurationError(f"timeout must be None or a number of seconds of 0 or more, not {shown(value)}")
    return value


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
    url = _url(text)
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


def _url(text: Any) -> URL | None:
    """The URL in a text; None where there is none, or one whose host or port can't be. Raises nothing: it has no say in
    what else may be in it, such as a password."""
    try:
        url = URL(text)
        host = url.host or ""
        host.encode("idna")  # as it is done to look the name up
    except (TypeError, ValueError):
        return None
    return None if url.port == 0 or not host.isprintable() or " " in host else url


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


def checked_proxy(proxy: Secret | None) -> Secret | None:
    """The URL of an HTTP proxy, as it was given. Raises `ConfigurationError` for what can't be one."""
    if proxy is not None and not _is_proxy(proxy):
        raise ConfigurationError(
            "proxy must be the URL of an HTTP proxy, such as http://user:password@host:3128, without a path"
        )
    return proxy


def _is_proxy(text: str) -> bool:
    url = _url(text)
    if url is None or url.scheme not in {"http", "https"} or not url.host:
        return False
    if url.path not in {"", "/"} or url.query_string or url.fragment:
        return False
    try:
        _credentials(url)
    except ValueError:
        return False
    return ":" not in (url.user or "")


def _credentials(url: URL) -> bytes:
    return f"{url.user or ''}:{url.password or ''}".encode("latin-1")  # as aiohttp sends them


def proxy_secrets(proxy: Secret | None) -> tuple[Secret, ...]:
    """What must not be shown of a proxy's URL: the password, and both in the form in which they are sent."""
    url = None if proxy is None else URL(proxy)
    if url is None or not url.password:
        return ()
    return Secret(url.password), Secret(b64encode(_credentials(url)).decode())


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
        if name.lower() in _OURS or name.lower().startswith("proxy-"):
            raise ConfigurationError(f"headers must not set {name.lower()}: the client does (the key goes in api_key=)")
    return dict(headers)


#: A name of a header or a scheme (RFC 9110 §5.6.2): with anything else in it, it may be read as another one.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: What tells who asks whom for what, and how a request is framed and the connection used (RFC 9110 §7.6.1, RFC 9112).
_OURS = {
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
