"""What a client can be told about faults and limits: `Retry` and `Limits`. Pure."""

from __future__ import annotations

from attrs import frozen

from distribute_async._wire.arguments import count, growth, positive, rate, seconds

#: Seconds for one whole wait where nobody says otherwise.
DEFAULT_TIMEOUT = 600.0


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
    max_requests_per_second: float | None = rate()
    max_body_bytes: int = count(1 << 20)
    connect_timeout: float = positive(5.0)
    exchange_timeout: float = positive(30.0)
