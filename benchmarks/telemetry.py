"""What an observer costs: the CPU of one poll with and without it, in interleaved runs.

    python benchmarks/telemetry.py [--rounds 300]

The emulator runs in a process of its own, so that this one's CPU is the client's alone. A round runs each variant for
two hundred polls, in random order, and compares it with what a poll cost without an observer in the same round.
Shown is the median over the rounds with its standard error; "none again" is the same as "none", and so must show 1.
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
from contextlib import AsyncExitStack
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


async def so_many(client: DistributeClient, polls: int) -> int:
    """Let at least so many polls go by; tells how many."""
    before = client.stats().polls
    while client.stats().polls < before + polls:  # noqa: ASYNC110 - nobody says when
        await asyncio.sleep(0.01)
    return client.stats().polls - before


async def cost(client: DistributeClient, ids: list[str]) -> float:
    """CPU seconds for each poll, without the starts and ends of the waits."""
    waits = [asyncio.create_task(client.wait_for_result(task_id)) for task_id in ids]
    # By polls, not by the clock: on a busy machine the beginning of the waits would last into what is measured.
    await so_many(client, 3 * TASKS)
    began = time.process_time()
    polls = await so_many(client, 10 * TASKS)
    spent = time.process_time() - began
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)
    return spent / polls


async def measure(service: tuple[str, str, list[str]], rounds: int) -> dict[str, list[float]]:
    key, url, ids = service
    spent: dict[str, list[float]] = {name: [] for name in VARIANTS}
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(
                DistributeClient(key, base_url=url, pacing=OFTEN, observer=make_observer())
            )
            for name, make_observer in VARIANTS.items()
        }
        for _ in range(rounds):
            gc.collect()
            for name in random.sample(list(VARIANTS), len(VARIANTS)):
                spent[name].append(await cost(clients[name], ids))
    return spent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=300)
    rounds = arguments.parse_args().rounds
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    gc.disable()
    try:
        spent = asyncio.run(measure(ours.recv(), rounds))
    finally:
        ours.send(None)
        server.join()
    print(f"{'observer':<18}{'µs a poll':>10}{'against none':>14}")
    for name, costs in spent.items():
        ratios = [cost / plain for cost, plain in zip(costs, spent["none"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        error = 1.25 * (high - low) / 1.35 / rounds**0.5  # of a median, with the deviation from the quartiles
        print(f"{name:<18}{statistics.median(costs) * 1e6:>10.1f}{middle:>8.3f} ± {error:.3f}")


if __name__ == "__main__":
    main()
