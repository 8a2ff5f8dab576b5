"""Waits and creates as OpenTelemetry spans, and metrics of the requests behind them. Public: `OpenTelemetryObserver`.

::

    from distribute_async.integrations.opentelemetry import OpenTelemetryObserver

    client = DistributeClient(observer=OpenTelemetryObserver())

It needs the extra `otel`, which is the API alone: the application brings the SDK and says where spans and metrics go.
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

try:
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.context import Context
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise ModuleNotFoundError(
        "distribute_async.integrations.opentelemetry needs OpenTelemetry's API: pip install 'distribute-async[otel]'",
        name=error.name,
    ) from None

from distribute_async import (
    APIConnectionError,
    APIStatusError,
    ChatResult,
    ObservedEnding,
    ObservedExchange,
    ObservedWait,
    Observer,
    Transition,
)

__all__ = ["OpenTelemetryObserver"]

# The names. Those of OpenTelemetry are from its semantic conventions 1.41.1, the last version that has the conventions
# for HTTP and for GenAI in one; since then the latter live in a repository of their own, which has no release yet.
SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.1"
ERROR_TYPE = "error.type"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OPERATION = "gen_ai.operation.name"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
PROVIDER = "gen_ai.provider.name"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
STATUS_CODE = "http.response.status_code"

# Ours, for what the conventions have no word for.
ATTEMPTS = "distribute_async.attempts"
ELAPSED = "distribute_async.elapsed"
INTERVAL = "distribute_async.last_interval"
IS_CREATE = "distribute_async.is_create"
IS_FETCH = "distribute_async.is_fetch"
IS_PROBE = "distribute_async.is_probe"
IS_UNCERTAIN = "distribute_async.is_uncertain"
LINK = "distribute_async.link"
OUTCOME = "distribute_async.outcome"
POLLS = "distribute_async.polls"
PREVIOUS = "distribute_async.previous_status"
REASON = "distribute_async.reason"
STATUS = "distribute_async.status"
TASK_ID = "distribute_async.task_id"
TRANSITION = "distribute_async.transition"

# Not `gen_ai.client.operation.duration` and `http.client.request.duration`: a hundred waits may share one task, and
# an instrumentation of aiohttp counts the same requests.
ACTIVE_WAITS = "distribute_async.wait.active"
CREATE_DURATION = "distribute_async.create.duration"
EXCHANGES = "distribute_async.exchanges"
LAST_INTERVAL = "distribute_async.task.last_interval"
OUTAGE_DURATION = "distribute_async.outage.duration"
PAUSE_DURATION = "distribute_async.pause.duration"
TASK_POLLS = "distribute_async.task.polls"
WAIT_DURATION = "distribute_async.wait.duration"

PROVIDER_NAME = "distribute_ai"
#: For the kinds of task that the conventions have a name for; else the kind itself.
OPERATIONS = {"chat": "chat", "images": "generate_content"}

# The attributes of a link: what the linked span is for this task.
_LINK_TO_CREATE = {LINK: "create"}
_LINK_TO_USAGE = {LINK: "usage"}

# Bounds of the histograms: seconds of a wait or an interval (those of `gen_ai.client.operation.duration`, and on to an
# hour and a half), polls of a task.
_WAIT_SECONDS = [0.01 * 2.0**n for n in range(20)]
_POLLS = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]

#: Characters, and finish reasons, of what the service says; words and answers in earnest are shorter.
_LONGEST_WORD = 200
_MOST_REASONS = 100
#: Tasks whose spans are kept for links, those used last.
_MOST_TASKS = 10_000


class OpenTelemetryObserver(Observer):
    """Makes a span of each wait and each create, and metrics; `docs/how-to/telemetry.md` lists their names.

    `tracer_provider`, `meter_provider`: where they go, by default to those that the application sets for the process.
    `propagate`: whether requests carry the trace context (of the oldest wait that they serve, by the process's
    propagator, without baggage) to the service; not by default.

    A span's parent is the span that is current where the wait begins. The tokens of a task are in the first span that
    ends with them. Later spans of the task have a link to that one, and each wait has a link to the create that made
    its task. The observer keeps this for the 10,000 tasks used last, so give one observer to all clients of a process,
    those in other threads too.

    Spans hold the task's id; no label of a metric holds one, nor anything else that the service can make up; neither
    holds a key, prompt or answer.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        *,
        propagate: bool = False,
    ) -> None:
        self._propagate = propagate
        version = _version()
        self._tracer = trace.get_tracer("distribute_async", version, tracer_provider, SCHEMA_URL)
        self._spans: dict[ObservedWait, trace.Span] = {}
        self._created = _TaskSpans()
        self._counted = _TaskSpans()
        # What goes out for a wait, made once: it is the same for all of its polls.
        self._headers: dict[ObservedWait, dict[str, str]] = {}
        # Good exchanges, by the kind of task and whether they were creates, that are not in the counter yet: the SDK
        # takes longer to count one than all the rest of an observer. (Clients on other threads may share it, hence the
        # lock.)
        self._good: dict[tuple[str, bool], int] = {}
        self._count_at = 0.0
        self._lock = threading.Lock()
        meter = metrics.get_meter("distribute_async", version, meter_provider, SCHEMA_URL)

        def histogram(name: str, unit: str, what: str, bounds: list[float]) -> metrics.Histogram:
            return meter.create_histogram(name, unit, what, explicit_bucket_boundaries_advisory=bounds)

        self._active = meter.create_up_down_counter(ACTIVE_WAITS, "{wait}", "Waits that go on.")
        self._waits = histogram(WAIT_DURATION, "s", "How long waits took, by how they ended.", _WAIT_SECONDS)
        self._creates = histogram(CREATE_DURATION, "s", "How long creates took, by how they ended.", _WAIT_SECONDS)
        self._exchanges = meter.create_counter(EXCHANGES, "{exchange}", "HTTP exchanges, by what they came to.")
        self._polls = histogram(
            TASK_POLLS, "{poll}", "Status reads that it took to follow a task to its end, failed ones included.", _POLLS
        )
        self._intervals = histogram(
            LAST_INTERVAL,
            "s",
            "The last interval before a task's end was seen: it was unnoticed no longer.",
            _WAIT_SECONDS,
        )
        self._pauses = histogram(PAUSE_DURATION, "s", "Pauses that the service asked for.", _WAIT_SECONDS)
        self._outages = histogram(OUTAGE_DURATION, "s", "Outages of the service, as they end.", _WAIT_SECONDS)

    def wait_started(self, wait: ObservedWait) -> None:
        """A span begins."""
        about = _about(wait.kind)
        attributes = {
            **about,
            SERVER_ADDRESS: wait.server_address,
            SERVER_PORT: wait.server_port,
            IS_CREATE: wait.is_create,
            IS_FETCH: wait.is_fetch,
        }
        links = []
        if wait.task_id is not None:
            attributes[TASK_ID] = wait.task_id
            created = self._created.get(wait.task_id)
            if created is not None:
                links.append(trace.Link(created, _LINK_TO_CREATE))
        if not wait.is_create:
            self._active.add(1, about)
        doing = "create " if wait.is_create else "fetch " if wait.is_fetch else ""
        self._spans[wait] = self._tracer.start_span(
            f"{doing}{about[OPERATION]}", kind=trace.SpanKind.CLIENT, attributes=attributes, links=links
        )

    def wait_moved(self, wait: ObservedWait, transition: Transition[Any]) -> None:
        """The span gets an event."""
        about: dict[str, Any] = {
            STATUS: _word(transition.status or ""),
            ELAPSED: transition.elapsed,
            ATTEMPTS: transition.polls,
        }
        if transition.previous is not None:
            about[PREVIOUS] = _word(transition.previous)
        self._spans[wait].add_event(TRANSITION, about)

    def wait_ended(self, wait: ObservedWait, ending: ObservedEnding) -> None:
        """The span ends, with what the wait came to and cost."""
        about = {**_about(wait.kind), OUTCOME: ending.outcome}
        if ending.error is not None:
            about[ERROR_TYPE] = type(ending.error).__name__
        self._count_good()
        if wait.is_create:
            about[IS_UNCERTAIN] = ending.is_uncertain
            self._creates.record(ending.elapsed, about)
        else:
            self._active.add(-1, _about(wait.kind))
            self._waits.record(ending.elapsed, {**about, IS_FETCH: wait.is_fetch})
        self._headers.pop(wait, None)
        span = self._spans.pop(wait)
        if span.is_recording():
            span.set_attributes({**about, ATTEMPTS: ending.attempts, **_of_ending(ending)})
            if wait.is_create:
                self._end_create(span, ending)
            else:
                span.set_attribute(POLLS, ending.polls)
                self._count_tokens(span, ending)
            if ending.error is not None:
                # Not the error's text, nor its traceback: what the service said may be in them.
                span.set_status(trace.StatusCode.ERROR)
        span.end()

    def _end_create(self, span: trace.Span, ending: ObservedEnding) -> None:
        """The span gets the id of the task that was created, and is kept for the waits on that task."""
        if ending.task_id is not None:
            span.set_attribute(TASK_ID, ending.task_id)
            self._created.claim(ending.task_id, span.get_span_context())

    def _count_tokens(self, span: trace.Span, ending: ObservedEnding) -> None:
        """The first span that ends with the tokens of a task gets them, any other a link to that one."""
        usage = _usage(ending)
        if usage and ending.task_id is not None:
            counted = self._counted.claim(ending.task_id, span.get_span_context())
            if counted is None:
                span.set_attributes(usage)
            else:
                span.add_link(counted, _LINK_TO_USAGE)

    def exchange_ended(self, exchange: ObservedExchange) -> None:
        """An exchange is counted, and with the last one its task is measured."""
        if exchange.fault is not None or exchange.is_probe:
            self._exchanges.add(1, _of_exchange(exchange))
        else:
            with self._lock:
                key = exchange.kind, exchange.is_create
                self._good[key] = self._good.get(key, 0) + 1
            if time.monotonic() >= self._count_at:
                self._count_good()
        if exchange.is_last:
            self._polls.record(exchange.attempt, _about(exchange.kind))
            if exchange.interval is not None:
                self._intervals.record(exchange.interval, _about(exchange.kind))

    def _count_good(self) -> None:
        """At most once a second, and whenever a wait ends."""
        with self._lock:
            good, self._good = self._good, {}
            self._count_at = time.monotonic() + 1
        for (kind, is_create), count in good.items():
            labels = {**_about(kind), STATUS_CODE: 200}
            if is_create:
                labels[IS_CREATE] = True
            self._exchanges.add(count, labels)

    def request_headers(self, waits: tuple[ObservedWait, ...]) -> Mapping[str, str]:
        """The trace context, where it was asked for."""
        if not (self._propagate and waits):
            return {}
        oldest = waits[0]
        if oldest not in self._headers:
            headers = self._headers[oldest] = {}
            # Into a context of its own, so that no baggage goes out.
            propagate.inject(headers, trace.set_span_in_context(self._spans[oldest], Context()))
        return self._headers[oldest]

    def paused(self, seconds: float) -> None:
        """A pause is counted."""
        self._pauses.record(seconds, {PROVIDER: PROVIDER_NAME})

    def outage_ended(self, seconds: float) -> None:
        """An outage is counted."""
        self._outages.record(seconds, {PROVIDER: PROVIDER_NAME})


class _TaskSpans:
    """One span for each of the tasks used last, for other spans to link to. Threads may share it."""

    def __init__(self) -> None:
        self._spans: OrderedDict[str, trace.SpanContext] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, task_id: str) -> trace.SpanContext | None:
        """The task's span; None where none is kept."""
        with self._lock:
            return self._get(task_id.lower())

    def claim(self, task_id: str, span: trace.SpanContext) -> trace.SpanContext | None:
        """Keep a span as the task's and return None, or return the one that is kept already."""
        key = task_id.lower()  # an id is one id in any case of letters
        with self._lock:
            earlier = self._get(key)
            if earlier is None:
                self._spans[key] = span
                if len(self._spans) > _MOST_TASKS:
                    self._spans.popitem(last=False)
            return earlier

    def _get(self, key: str) -> trace.SpanContext | None:
        if key in self._spans:
            self._spans.move_to_end(key)
        return self._spans.get(key)


def _version() -> str:
    """The version of this library; empty where its metadata is missing, as in a frozen application."""
    try:
        return importlib.metadata.version("distribute-async")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _about(kind: str) -> dict[str, Any]:
    return {OPERATION: OPERATIONS.get(kind, kind), PROVIDER: PROVIDER_NAME}


def _of_exchange(exchange: ObservedExchange) -> dict[str, Any]:
    labels = _about(exchange.kind)
    if exchange.is_create:
        labels[IS_CREATE] = True
    if exchange.is_probe:
        labels[IS_PROBE] = True
    if exchange.status_code is not None:
        labels[STATUS_CODE] = exchange.status_code
    if exchange.fault is not None:
        labels[ERROR_TYPE] = exchange.fault
    return labels


def _of_ending(ending: ObservedEnding) -> dict[str, Any]:
    """What only a span may hold: the service has a say in it."""
    about: dict[str, Any] = {}
    error, result = ending.error, ending.result
    if ending.interval is not None:
        about[INTERVAL] = ending.interval
    if isinstance(error, APIStatusError):
        about[STATUS_CODE] = error.status_code
    if isinstance(error, APIConnectionError):
        about[REASON] = error.reason
    if result is not None:
        about[STATUS] = _word(result.status)
        about[RESPONSE_MODEL] = _word(result.model)
        if result.id is not None:
            about[RESPONSE_ID] = _word(result.id)
    if isinstance(result, ChatResult) and result.choices:
        about[FINISH_REASONS] = [_word(choice.finish_reason) for choice in result.choices[:_MOST_REASONS]]
    return about


def _usage(ending: ObservedEnding) -> dict[str, int]:
    """The tokens of a task that is over. Before that they are not final, and would be counted in place of those."""
    result = ending.result
    if not isinstance(result, ChatResult) or result.usage is None or not result.is_over:
        return {}
    return {INPUT_TOKENS: _count(result.usage.prompt_tokens), OUTPUT_TOKENS: _count(result.usage.completion_tokens)}


# The service may say anything. What can't be encoded is lost in an exporter, with an error in the log each time.


def _word(text: str) -> str:
    return text[:_LONGEST_WORD].encode(errors="replace").decode()


def _count(number: float) -> int:
    return int(max(0, min(number, 2**53)))
