"""What an observer costs: the CPU seconds of one poll with and without it, in interleaved runs.

    python benchmarks/telemetry.py [--rounds 60] [--seconds 0.3]

The emulator runs in a process of its own, so that this one's CPU is the client's alone. Each round runs every variant
once, in random order. Shown are the cheapest run of each variant (other programs only ever add to a run) against the
cheapest without an observer, and over all rounds the middle half of the ratios to the run without an observer in the
same round. "none again" is the same as "none": its spread is what this machine can't tell apart.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from distribute_async import DistributeClient, Observer, Pacing
from distribute_async.emulator import Emulator
from distribute_async.integrations.opentelemetry import OpenTelemetryObserver

TASKS = 20
#: Each task is asked for every 20 ms: far more often than in earnest, which is all that makes it a measurement.
OFTEN = Pacing(initial=0.02, factor=1.0, max=0.02, floor=0.0)


def otel(*, propagate: bool) -> OpenTelemetryObserver:
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    return OpenTelemetryObserver(tracer_provider, MeterProvider([InMemoryMetricReader()]), propagate=propagate)


VARIANTS: dict[str, Callable[[], Observer | None]] = {
    "none": lambda: None,
    "none again": lambda: None,
    "Observer()": Observer,
    "OpenTelemetry": lambda: otel(propagate=False),
    "with propagation": lambda: otel(propagate=True),
}


def serve(pipe: Connection) -> None:
    async def main() -> None:
        async with Emulator() as emulator:
            ids = [emulator.add_task([(0, "QUEUED")]) for _ in range(TASKS)]
            pipe.send((emulator.api_key, emulator.base_url, ids))
            while not pipe.poll():
                emulator.requests.clear()
                await asyncio.sleep(0.5)

    asyncio.run(main())


async def run(service: tuple[str, str, list[str]], observer: Observer | None, seconds: float) -> float:
    """CPU seconds for each poll."""
    key, url, ids = service
    async with DistributeClient(key, base_url=url, pacing=OFTEN, observer=observer) as client:
        waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids]
        await asyncio.sleep(0.3)
        polls, began = client.stats().polls, time.process_time()
        await asyncio.sleep(seconds)
        spent, polls = time.process_time() - began, client.stats().polls - polls
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
    return spent / polls


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=60)
    arguments.add_argument("--seconds", type=float, default=0.3, help="of each run")
    given = arguments.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    service = ours.recv()
    spent: dict[str, list[float]] = {name: [] for name in VARIANTS}
    gc.disable()
    try:
        for _ in range(given.rounds):
            for name in random.sample(list(VARIANTS), len(VARIANTS)):
                gc.collect()
                spent[name].append(asyncio.run(run(service, VARIANTS[name](), given.seconds)))
    finally:
        ours.send(None)
        server.join()
    print(f"{'observer':<18}{'µs a poll':>10}{'ratio':>8}{'each round':>20}")
    for name, costs in spent.items():
        low, _, high = statistics.quantiles(
            (mine / plain for mine, plain in zip(costs, spent["none"], strict=True)), n=4
        )
        best, plain = min(costs), min(spent["none"])
        print(f"{name:<18}{best * 1e6:>10.1f}{best / plain:>8.3f}{low:>12.3f} … {high:.3f}")


if __name__ == "__main__":
    main()
