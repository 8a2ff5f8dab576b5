"""Spans and metrics, as the SDK exports them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, SamplingResult, StaticSampler

from distribute_async import (
    BadRequestError,
    DistributeClient,
    DistributeError,
    NotFoundError,
    ObservedWait,
    SubmitUncertainError,
    TaskFailedError,
    WaitTimeoutError,
)
from distribute_async.emulator import Emulator
from distribute_async.integrations import opentelemetry as names
from distribute_async.integrations.opentelemetry import OpenTelemetryObserver
from tests import misbehaving as bad
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.telemetry.conftest import Telemetry, client_of
from tests.waiting import ID, KEY, OTHER_ID, body, caught, ids, listed, new_client, says, turns

SECRET = "what was said"
CHAT: dict[str, Any] = {"model": "a-model", "messages": [{"role": "user", "content": SECRET}]}
CREATED = bad.good({"id": ID})
USAGE = {"completion_tokens": 7, "prompt_tokens": 5, "total_tokens": 12}


@pytest.fixture
def observer(telemetry: Telemetry) -> OpenTelemetryObserver:
    return OpenTelemetryObserver(telemetry.tracer_provider, telemetry.meter_provider)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def links(span: ReadableSpan) -> dict[Any, Any]:
    """The ids of the spans that this one is linked to, by what the link is for."""
    return {(link.attributes or {})["distribute_async.link"]: link.context.span_id for link in span.links}


def span_id(span: ReadableSpan) -> Any:
    assert span.context is not None
    return span.context.span_id


def answered(status: str, **fields: Any) -> Behaviour:
    message = {"role": "assistant", "content": SECRET}
    choices = [{"finish_reason": reason, "index": 0, "message": message} for reason in ("stop", "tool_calls")]
    return bad.good(body(status, choices=choices, **fields))


# Spans.


@pytest.mark.looptime
async def test_a_wait_is_a_span(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """A wait is one client span that says what came of it and what it cost, by the conventions' names."""
    script = [*says("QUEUED"), bad.status(500), answered("COMPLETED", id=OTHER_ID, usage=USAGE)]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await client.wait_for_result(ID)
    (span,) = telemetry.spans
    assert (span.name, span.kind, span.parent) == ("chat", trace.SpanKind.CLIENT, None)
    assert span.status.status_code is trace.StatusCode.UNSET
    about = attributes(span)
    interval = about.pop("distribute_async.last_interval")
    assert interval == pytest.approx(server.times[2] - server.times[0], abs=0.05)
    assert about == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "distribute_ai",
        "gen_ai.response.finish_reasons": ("stop", "tool_calls"),
        "gen_ai.response.id": OTHER_ID,
        "gen_ai.response.model": "a-model",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "distribute_async.attempts": 3,
        "distribute_async.is_create": False,
        "distribute_async.is_fetch": False,
        "distribute_async.outcome": "result",
        "distribute_async.polls": 2,
        "distribute_async.status": "COMPLETED",
        "distribute_async.task_id": ID,
    }
    assert [event.name for event in span.events] == ["distribute_async.transition"] * 2
    first, second = (dict(event.attributes or {}) for event in span.events)
    assert (first["distribute_async.status"], first["distribute_async.attempts"]) == ("QUEUED", 1)
    assert (second["distribute_async.status"], second["distribute_async.attempts"]) == ("COMPLETED", 3)
    assert "distribute_async.previous_status" not in first
    assert second["distribute_async.previous_status"] == "QUEUED"
    assert second["distribute_async.elapsed"] == pytest.approx(server.times[2], abs=0.05)
    assert span.links == ()


ERRORS: dict[str, tuple[list[Behaviour], type[DistributeError], dict[str, Any]]] = {
    "failed": (says("ERROR"), TaskFailedError, {"distribute_async.status": "ERROR"}),
    "timeout": (says("QUEUED"), WaitTimeoutError, {"distribute_async.status": "QUEUED"}),
    "missing": ([bad.status(404, {"message": SECRET})], NotFoundError, {"http.response.status_code": 404}),
}


@pytest.mark.looptime
@pytest.mark.parametrize(("script", "kind", "more"), ERRORS.values(), ids=ERRORS)
async def test_a_wait_that_fails_is_a_span_with_an_error(
    script: list[Behaviour],
    kind: type[DistributeError],
    more: Mapping[str, Any],
    telemetry: Telemetry,
    observer: OpenTelemetryObserver,
) -> None:
    """An error is the span's status and `error.type`, and its text stays out."""
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer, timeout=10) as client:
        await caught(client.wait_for_result(ID), kind)
    (span,) = telemetry.spans
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, None)
    assert (
        attributes(span).items()
        >= {
            "error.type": kind.__name__,
            "distribute_async.outcome": "error",
            **more,
        }.items()
    )
    assert SECRET not in span.to_json()


@pytest.mark.looptime
async def test_cancelled_and_left_are_no_errors(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """A wait that was cancelled or left has an outcome of its own, and the span's status is unset."""
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, observer=observer) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.wait_for_result(ID), 0.5)
        async for _ in client.watch(ID):
            break
        await turns(2)
    assert [attributes(span)["distribute_async.outcome"] for span in telemetry.spans] == ["cancelled", "left"]
    assert {span.status.status_code for span in telemetry.spans} == {trace.StatusCode.UNSET}
    assert [span for span in telemetry.spans if "error.type" in attributes(span)] == []


@pytest.mark.looptime
async def test_a_span_belongs_to_the_caller_s(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """Waits that share their polls are each a child of the span that was current where they began."""
    tracer = telemetry.tracer_provider.get_tracer("application")

    async def ask(name: str) -> None:
        with tracer.start_as_current_span(name):
            await client.wait_for_result(ID)
            assert trace.get_current_span().get_span_context().span_id != 0

    async with (
        MisbehavingServer(*says("QUEUED", "COMPLETED")) as server,
        new_client(server.url, observer=observer) as client,
    ):
        await asyncio.gather(*(ask(f"request {n}") for n in range(3)))
        assert len(server.requests) == 2
    named = {span.context.span_id: span for span in telemetry.spans if span.context is not None}
    children = [span for span in telemetry.spans if span.name == "chat"]
    assert sorted(named[span.parent.span_id].name for span in children if span.parent is not None) == [
        "request 0",
        "request 1",
        "request 2",
    ]
    assert {attributes(span)["distribute_async.polls"] for span in children} == {2}


@pytest.mark.looptime
async def test_a_fetch_is_a_span_of_its_own(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """A fetch is told from a wait by its name, and counts for no task."""
    async with MisbehavingServer(*says("COMPLETED")) as server, new_client(server.url, observer=observer) as client:
        await client.fetch(ID)
    (span,) = telemetry.spans
    assert span.name == "fetch chat"
    assert attributes(span)["distribute_async.is_fetch"] is True
    points = telemetry.points()
    assert "distribute_async.task.polls" not in points
    assert [dict(point.attributes)["distribute_async.is_fetch"] for point in points[names.WAIT_DURATION]] == [True]


@pytest.mark.looptime
async def test_a_create_is_a_span(
    telemetry: Telemetry, observer: OpenTelemetryObserver, caplog: pytest.LogCaptureFixture
) -> None:
    """A create is a span with the id of the task that it made, and the waits on this task are linked to it."""
    script = [bad.status(503), CREATED, *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await client.submit_and_wait(**CHAT)
        await client.fetch(ID.upper())
    create, *waits = telemetry.spans
    assert (create.name, create.kind, create.links) == ("create chat", trace.SpanKind.CLIENT, ())
    assert create.status.status_code is trace.StatusCode.UNSET
    assert attributes(create) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "distribute_ai",
        "distribute_async.is_uncertain": False,
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "distribute_async.attempts": 2,
        "distribute_async.is_create": True,
        "distribute_async.is_fetch": False,
        "distribute_async.outcome": "result",
        "distribute_async.task_id": ID,
    }
    assert [(span.name, links(span)) for span in waits] == [
        ("chat", {"create": span_id(create)}),
        ("fetch chat", {"create": span_id(create)}),
    ]
    # The SDK warns of an attribute that is None, and drops it.
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []
    assert SECRET not in create.to_json()


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("behaviour", "kind", "more"),
    [
        (bad.status(400, {"message": SECRET}), BadRequestError, {"http.response.status_code": 400}),
        (bad.close, SubmitUncertainError, {}),
    ],
    ids=["failed", "uncertain"],
)
async def test_a_create_that_fails_is_a_span_with_an_error(
    behaviour: Behaviour,
    kind: type[DistributeError],
    more: Mapping[str, Any],
    telemetry: Telemetry,
    observer: OpenTelemetryObserver,
) -> None:
    """A create that fails has the error's class in its span, an uncertain one too, and no task's id."""
    async with MisbehavingServer(behaviour) as server, new_client(server.url, observer=observer) as client:
        await caught(client.submit(**CHAT), kind)
    (span,) = telemetry.spans
    assert (span.name, span.status.status_code) == ("create chat", trace.StatusCode.ERROR)
    expected = {"error.type": kind.__name__, "distribute_async.outcome": "error", **more}
    assert attributes(span).items() >= expected.items()
    assert "distribute_async.task_id" not in attributes(span)
    assert SECRET not in span.to_json()


@pytest.mark.looptime
async def test_tokens_count_once_for_a_task(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """However many waits and fetches see the end of a task, one span has its tokens, and the others a link to it."""
    script = [*says("QUEUED"), answered("COMPLETED", usage=USAGE)]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await asyncio.gather(*(client.wait_for_result(ID) for _ in range(3)), listed(client.watch(ID)))
        await listed(client.as_completed([ID]))
        await client.fetch(ID.upper())
    counted, *others = telemetry.spans
    assert attributes(counted)["gen_ai.usage.input_tokens"] == 5
    assert attributes(counted)["gen_ai.usage.output_tokens"] == 7
    assert counted.links == ()
    assert len(others) == 5
    for span in others:
        assert [name for name in attributes(span) if name.startswith("gen_ai.usage.")] == []
        assert attributes(span)["gen_ai.response.model"] == "a-model"
        assert links(span) == {"usage": span_id(counted)}


@pytest.mark.looptime
async def test_tokens_count_once_the_task_is_over(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """What a task has used so far isn't counted: it would stand for what it has used in the end."""
    script = [answered("PROCESSING", usage={**USAGE, "completion_tokens": 1}), answered("COMPLETED", usage=USAGE)]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await client.fetch(ID)
        await client.wait_for_result(ID)
    assert [attributes(span).get("gen_ai.usage.output_tokens") for span in telemetry.spans] == [None, 7]
    assert [span.links for span in telemetry.spans] == [(), ()]


@pytest.mark.looptime
async def test_tokens_count_in_a_span_that_is_recorded(telemetry: Telemetry) -> None:
    """A span that the sampler drops doesn't take the tokens, nor the link to a create, with it."""
    sampled = itertools.cycle([False, False, True, True])

    class EveryOther(StaticSampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            return (ALWAYS_ON if next(sampled) else ALWAYS_OFF).should_sample(*args, **kwargs)

    telemetry.tracer_provider.sampler = EveryOther(Decision.DROP)
    observer = OpenTelemetryObserver(telemetry.tracer_provider, telemetry.meter_provider)
    script = [CREATED, answered("COMPLETED", usage=USAGE)]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await client.submit_and_wait(**CHAT)
        for _ in range(2):
            await client.wait_for_result(ID)
    counted, linked = telemetry.spans
    assert attributes(counted)["gen_ai.usage.output_tokens"] == 7
    assert counted.links == ()
    assert links(linked) == {"usage": span_id(counted)}


@pytest.mark.looptime
async def test_tasks_are_remembered_within_bounds(
    telemetry: Telemetry, observer: OpenTelemetryObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spans of so many tasks are kept, those of the newest and the ones asked for again; others start afresh."""
    monkeypatch.setattr(names, "_MOST_TASKS", 2)
    first, second, third = ids(3)
    script = [answered("COMPLETED", usage=USAGE)]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        for task_id in (first, second, first, third, first, second):
            await client.fetch(task_id)
    counted = [attributes(span)["distribute_async.task_id"] for span in telemetry.spans if not span.links]
    assert counted == [first, second, third, second]


async def test_tokens_count_once_for_clients_in_several_threads(
    telemetry: Telemetry, observer: OpenTelemetryObserver
) -> None:
    """An observer that clients in several threads share counts a task's tokens once."""

    async def fetch() -> None:
        async with new_client(server.url, observer=observer) as client:
            await client.fetch(ID)

    async with MisbehavingServer(answered("COMPLETED", usage=USAGE)) as server:
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, fetch()) for _ in range(8)))
    counted = [span for span in telemetry.spans if "gen_ai.usage.input_tokens" in attributes(span)]
    assert len(counted) == 1
    others = [span for span in telemetry.spans if span not in counted]
    assert [links(span) for span in others] == [{"usage": span_id(counted[0])}] * 7


@pytest.mark.looptime
async def test_what_the_service_says_can_t_spoil_an_export(
    telemetry: Telemetry, observer: OpenTelemetryObserver
) -> None:
    """Text that isn't Unicode, numbers beyond all bounds and endless words are encoded like any others."""
    usage = {"completion_tokens": 1e300, "prompt_tokens": -1, "total_tokens": 12}
    script = [answered("A_NEW_WORD"), answered("COMPLETED", id="x" * 100_000, model="\ud800" * 1_000, usage=usage)]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await client.wait_for_result(ID)
    (span,) = telemetry.spans
    about = attributes(span)
    shown = [*about.values(), *(value for event in span.events for value in dict(event.attributes or {}).values())]
    assert [value for value in shown if isinstance(value, str) and len(value.encode()) > 200] == []
    assert about["gen_ai.usage.output_tokens"] == 2**53
    assert about["gen_ai.usage.input_tokens"] == 0


# Propagation.


@pytest.mark.looptime
@pytest.mark.parametrize("propagate", [False, True])
async def test_trace_context_goes_out_only_if_asked_for(propagate: bool, telemetry: Telemetry) -> None:
    """With `propagate` each request names the oldest wait's span; without it nothing, and baggage never."""
    observer = OpenTelemetryObserver(telemetry.tracer_provider, telemetry.meter_provider, propagate=propagate)
    token = context.attach(baggage.set_baggage("customer", SECRET))
    try:
        async with (
            MisbehavingServer(*says("QUEUED", "COMPLETED")) as server,
            new_client(server.url, observer=observer) as client,
        ):
            await asyncio.gather(client.wait_for_result(ID), client.wait_for_result(ID))
    finally:
        context.detach(token)
    assert len(server.requests) == 2
    oldest = telemetry.spans[0].context
    assert oldest is not None
    expected = [f"00-{oldest.trace_id:032x}-{oldest.span_id:016x}-{oldest.trace_flags:02x}"] if propagate else []
    assert [request.header("traceparent") for request in server.requests] == [expected] * 2
    assert [request.header("baggage") for request in server.requests] == [[]] * 2
    gc.collect()
    waits = [thing for thing in gc.get_objects() if isinstance(thing, ObservedWait)]
    assert [wait for wait in waits if wait.server_port == server.port] == []  # nothing piles up


@pytest.mark.looptime
async def test_trace_context_goes_out_with_creates(telemetry: Telemetry) -> None:
    """With `propagate` the request that creates a task names the create's span, each time that it is sent."""
    observer = OpenTelemetryObserver(telemetry.tracer_provider, telemetry.meter_provider, propagate=True)
    script = [bad.status(503), CREATED, *says("COMPLETED")]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await client.submit_and_wait(**CHAT)
    create, wait = telemetry.spans
    assert [request.path.rpartition("/")[2] for request in server.requests] == ["create", "create", "result"]
    sent = [int(request.header("traceparent")[0].split("-")[2], 16) for request in server.requests]
    assert sent == [span_id(create), span_id(create), span_id(wait)]


# Metrics.


def told(points: list[Any], *wanted: str) -> list[tuple[Any, ...]]:
    """Of each data point these attributes (None where it has none), and how many values it has or counted."""
    return sorted(
        (
            (*(dict(point.attributes).get(name) for name in wanted), getattr(point, "count", None) or point.value)
            for point in points
        ),
        key=repr,
    )


@pytest.mark.looptime
async def test_each_ending_is_measured(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """How long waits took is measured by outcome and error, cancelled and left ones too."""
    endings: list[list[Behaviour]] = [says("QUEUED", "COMPLETED"), *(script for script, _, _ in ERRORS.values())]
    for script in endings:
        async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
            await asyncio.gather(
                client.watch(ID, timeout=10), client.wait_for_result(ID, timeout=10), return_exceptions=True
            )
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, observer=observer) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.wait_for_result(ID), 0.5)
        async for _ in client.watch(ID):
            break
        await turns(2)
    points = telemetry.points()
    assert told(points[names.WAIT_DURATION], "distribute_async.outcome", "error.type") == [
        ("cancelled", None, 1),
        ("error", "NotFoundError", 2),
        ("error", "TaskFailedError", 2),
        ("error", "WaitTimeoutError", 2),
        ("left", None, 1),
        ("result", None, 2),
    ]


@pytest.mark.looptime
async def test_creates_are_measured_apart_from_waits(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """Creates have a histogram of their own, by outcome and error, an uncertain one too; no wait's metric has them."""
    script = [CREATED, *says("COMPLETED"), bad.status(400), bad.close, bad.silence()]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await client.submit_and_wait(**CHAT)
        await caught(client.submit(**CHAT), BadRequestError)
        await caught(client.submit(**CHAT), SubmitUncertainError)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.submit(**CHAT), 5)
    points = telemetry.points()
    assert told(points[names.CREATE_DURATION], "distribute_async.outcome", "error.type", "gen_ai.operation.name") == [
        ("cancelled", None, "chat", 1),
        ("error", "BadRequestError", "chat", 1),
        ("error", "SubmitUncertainError", "chat", 1),
        ("result", None, "chat", 1),
    ]
    assert max(point.max for point in points[names.CREATE_DURATION]) == pytest.approx(5, abs=0.05)
    assert told(points[names.WAIT_DURATION], "distribute_async.outcome", "error.type") == [("result", None, 1)]
    (active,) = points[names.ACTIVE_WAITS]
    assert active.value == 0
    assert told(points[names.EXCHANGES], "distribute_async.is_create", "http.response.status_code", "error.type") == [
        (None, 200, None, 1),
        (True, 200, None, 1),
        (True, 400, "400", 1),
        (True, None, "cut", 1),
        (True, None, "stale", 1),
    ]
    (polls,) = points[names.TASK_POLLS]
    assert (polls.count, polls.sum) == (1, 1)


@pytest.mark.looptime
async def test_creates_that_go_on_are_no_waits(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """The number of waits that go on doesn't count a create."""
    async with MisbehavingServer(bad.silence()) as server, new_client(server.url, observer=observer) as client:
        waits = [asyncio.create_task(client.submit(**CHAT)), asyncio.create_task(client.wait_for_result(ID))]
        await asyncio.sleep(1)
        (active,) = telemetry.points()[names.ACTIVE_WAITS]
        assert active.value == 1
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


@pytest.mark.looptime
async def test_waits_that_go_on_are_counted(emulator: Emulator, telemetry: Telemetry) -> None:
    """The number of waits goes up as they start and down as they end, however that is."""
    observer = OpenTelemetryObserver(telemetry.tracer_provider, telemetry.meter_provider)
    task_id = emulator.add_task([(0, "QUEUED"), (10, "COMPLETED")])

    def active() -> int:
        (point,) = telemetry.points()[names.ACTIVE_WAITS]
        return int(point.value)

    async with client_of(emulator, observer=observer) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for _ in range(5)]
        watch = client.watch(task_id)
        await anext(watch)
        assert active() == 6
        waits[0].cancel()
        await turns(5)
        assert active() == 5
        del watch
        await turns(2)
        assert active() == 4
        await asyncio.wait(waits)
        assert active() == 0


@pytest.mark.looptime
async def test_requests_are_counted_by_what_they_came_to(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """Each HTTP exchange counts once, whoever shares it, by status code and fault; pauses and outages count too."""
    script = [
        *says("QUEUED"),
        bad.status(429, Retry_After="5"),
        bad.raw(bad.answer(b"<p>")),
        *[bad.status(502)] * 7,
        *says("QUEUED", "COMPLETED"),
    ]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await asyncio.gather(client.wait_for_result(ID), listed(client.watch(ID)))
    points = telemetry.points()
    assert told(points[names.EXCHANGES], "http.response.status_code", "error.type", names.IS_PROBE) == [
        (200, None, None, 2),
        (200, None, True, 1),
        (429, "429", None, 1),
        (502, "502", None, 5),
        (502, "502", True, 2),
        (None, "not_json", None, 1),
    ]
    assert sum(point.value for point in points[names.EXCHANGES]) == len(server.requests)
    (polls,) = points[names.TASK_POLLS]
    assert (polls.count, polls.sum) == (1, len(server.requests))
    (interval,) = points[names.LAST_INTERVAL]
    assert interval.sum == pytest.approx(server.times[-1] - server.times[-2], abs=0.05)
    (pause,) = points[names.PAUSE_DURATION]
    assert (pause.count, pause.sum) == (1, 5.0)
    (outage,) = points[names.OUTAGE_DURATION]
    assert outage.sum == pytest.approx(server.times[-2] - server.times[3], abs=0.05)


@pytest.mark.looptime
async def test_no_label_and_no_span_holds_a_secret(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """Ids are in no label, nor is anything that the service makes up; key, prompt and answer are in no span either."""
    script = [answered("A_NEW_WORD", model="a-made-up-model", prompt=SECRET), answered("COMPLETED", id=OTHER_ID)]
    async with MisbehavingServer(*script) as server, new_client(server.url, observer=observer) as client:
        await client.wait_for_result(ID)
        await client.fetch(ID)
        await listed(client.watch(ID))
    labels = {
        str(value)
        for points in telemetry.points().values()
        for point in points
        for pair in dict(point.attributes).items()
        for value in pair
    }
    assert {ID, OTHER_ID, KEY, SECRET, "A_NEW_WORD", "a-made-up-model", "a-model"} & labels == set()
    spans = "".join(span.to_json() for span in telemetry.spans)
    assert KEY not in spans
    assert SECRET not in spans
    assert ID in spans


@pytest.mark.looptime
async def test_requests_are_counted_while_waits_go_on(
    telemetry: Telemetry, observer: OpenTelemetryObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counter is at most a second behind: a wait of an hour shows its requests as it goes."""
    monkeypatch.setattr(names, "time", SimpleNamespace(monotonic=asyncio.get_running_loop().time))
    async with MisbehavingServer(*says("QUEUED")) as server, new_client(server.url, observer=observer) as client:
        waiting = asyncio.create_task(client.wait_for_result(ID))
        for seconds in (0.5, 10, 100):
            await asyncio.sleep(seconds)
            (point,) = telemetry.points()[names.EXCHANGES]
            assert 0 <= len(server.requests) - point.value <= 1
        waiting.cancel()
        await asyncio.wait([waiting])
        (point,) = telemetry.points()[names.EXCHANGES]
        assert point.value == len(server.requests)


# The extra.


@pytest.mark.looptime
async def test_what_is_exported_says_who_made_it(telemetry: Telemetry, observer: OpenTelemetryObserver) -> None:
    """Spans and metrics name the library, its version and the schema of their names."""
    async with MisbehavingServer(*says("COMPLETED")) as server, new_client(server.url, observer=observer) as client:
        await client.wait_for_result(ID)
    scopes = [span.instrumentation_scope for span in telemetry.spans] + telemetry.scopes()
    assert len(scopes) == 2
    for scope in scopes:
        assert scope is not None
        expected = ("distribute_async", version("distribute-async"), names.SCHEMA_URL)
        assert (scope.name, scope.version, scope.schema_url) == expected


def test_a_bundle_without_metadata_has_no_version() -> None:
    """Where the package's metadata was left behind, as in a frozen application, an observer has no version to name."""
    program = (
        "import importlib.metadata as m, sys; find = m.version\n"
        "def version(name):\n"
        "    if name == 'distribute-async': raise m.PackageNotFoundError(name)\n"
        "    return find(name)\n"
        "m.version = version\n"
        "from distribute_async.integrations.opentelemetry import OpenTelemetryObserver; OpenTelemetryObserver()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_process_s_own_providers_are_the_default() -> None:
    """Without providers an observer uses those of the process, which do nothing where the application sets none."""
    async with (
        MisbehavingServer(*says("COMPLETED")) as server,
        DistributeClient(KEY, base_url=server.url, observer=OpenTelemetryObserver()) as client,
    ):
        assert (await client.wait_for_result(ID)).text


def test_without_the_extra_it_says_which() -> None:
    """Where OpenTelemetry's API is missing, importing the integration names the extra to install."""
    program = "import sys; sys.modules['opentelemetry'] = None; import distribute_async.integrations.opentelemetry"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'distribute-async[otel]'" in done.stderr.splitlines()[-1]
