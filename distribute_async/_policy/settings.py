"""The settings for faults and limits: `Retry` and `Limits`. Pure; used by `_policy`, `_engine` and `client`."""

from __future__ import annotations

from attrs import frozen

from distribute_async._wire.arguments import count, growth, positive, rate, seconds

#: Seconds for one whole wait, by default.
DEFAULT_TIMEOUT = 600.0


@frozen(kw_only=True)
class Retry:
    """How transient faults are retried. All times are seconds.

    - `attempts`: attempts of one `fetch` or one submission; 3 by default.
    - `initial`, `factor`, `max`: exponential backoff between attempts, with half jitter as in `Pacing`; 0.5 s, 2 and
      30 s by default.
    - `max_outage`: how long a wait goes on without a good response; 300 by default. The time counts from its first
      fault after its last good response, and at least three polls must have failed. Then the wait raises the last
      fault.
    - `first_contact`: replaces `max_outage` until the client has had its first response, for faults of the connection
      (connect, DNS, TLS handshake, proxy); 10 by default. At least `attempts` polls must have failed. So a wrong
      address is reported early.
    - `not_found_grace`: how long 404 must be the only response before a wait raises `NotFoundError`; 3 by default. A
      task just created may not be visible yet.
    - `max_retry_after`: the longest `Retry-After` that is obeyed; 300 by default. A longer one ends the wait that
      received it.

    Raises `ConfigurationError` for a number out of range.
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
    """The resources that one client may use.

    - `max_in_flight`: HTTP exchanges at the same time; 100 by default.
    - `max_requests_per_second`: over all requests of the client. None, the default, for no limit.
    - `max_body_bytes`: the size of a response's body after decompression; 1 MiB by default. Decoding blocks the event
      loop: 10 MB of tiny choices took 1 s. A usual response has less than 10 KB.
    - `connect_timeout`: seconds to get a connection; 5 by default.
    - `exchange_timeout`: seconds from having a connection to the last byte of the response; 30 by default.

    Raises `ConfigurationError` for a number out of range.
    """

    max_in_flight: int = count(100)
    max_requests_per_second: float | None = rate()
    max_body_bytes: int = count(1 << 20)
    connect_timeout: float = positive(5.0)
    exchange_timeout: float = positive(30.0)
