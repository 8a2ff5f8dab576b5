"""For the tests of telemetry: an observer that writes down what it is told, and the SDK's exporters in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, ScopeMetrics
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from distribute_async import (
    DistributeClient,
    ObservedEnding,
    ObservedExchange,
    ObservedWait,
    Observer,
    Transition,
)
from distribute_async.emulator import Emulator
from tests.waiting import EVERY_SECOND


class Recorder(Observer):
    """Writes down what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.waits: list[ObservedWait] = []
        self.endings: list[ObservedEnding] = []
        self.exchanges: list[ObservedExchange] = []
        self.served: list[tuple[ObservedWait, ...]] = []
        self.headers: Mapping[str, str] = {}

    def wait_started(self, wait: ObservedWait) -> None:
        self.waits.append(wait)
        self.told.append(("started", self.waits.index(wait)))

    def wait_moved(self, wait: ObservedWait, transition: Transition[Any]) -> None:
        self.told.append((str(transition.status), self.waits.index(wait)))

    def wait_ended(self, wait: ObservedWait, ending: ObservedEnding) -> None:
        asyncio.get_running_loop()  # raises in another thread
        self.endings.append(ending)
        self.told.append((ending.outcome, self.waits.index(wait)))

    def exchange_ended(self, exchange: ObservedExchange) -> None:
        self.exchanges.append(exchange)

    def request_headers(self, waits: tuple[ObservedWait, ...]) -> Mapping[str, str]:
        self.served.append(waits)
        return self.headers

    def paused(self, seconds: float) -> None:
        self.told.append(("paused", seconds))

    def outage_began(self) -> None:
        self.told.append(("down", None))

    def outage_ended(self, seconds: float) -> None:
        self.told.append(("up", round(seconds, 3)))


class Telemetry:
    """Providers of the SDK whose spans and metrics stay in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader])

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended."""
        return self._exporter.get_finished_spans()

    def points(self) -> dict[str, list[Any]]:
        """The data points of all metrics, by the metric's name."""
        return {metric.name: list(metric.data.data_points) for of in self._of_scopes() for metric in of.metrics}

    def scopes(self) -> list[InstrumentationScope]:
        """Who made metrics."""
        return [of.scope for of in self._of_scopes()]

    def _of_scopes(self) -> list[ScopeMetrics]:
        data = self._reader.get_metrics_data()
        return [] if data is None else [metrics for of in data.resource_metrics for metrics in of.scope_metrics]

    def close(self) -> None:
        """End what the SDK keeps."""
        self.tracer_provider.shutdown()
        with contextlib.suppress(Exception):
            self.meter_provider.shutdown()


def client_of(emulator: Emulator, **settings: Any) -> DistributeClient:
    """A client of the emulator that polls every second."""
    return DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=EVERY_SECOND, **settings)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.close()
