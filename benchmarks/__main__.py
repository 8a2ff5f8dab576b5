"""This library and its peers on the same local server, the same seeded workloads, in random order, round after round.

    python -m benchmarks [--quick] [--rounds 3] [--only log-normal,cpu] [--clients ours,sleep]
                         [--results FILE] [--write docs/benchmarks.md]

Prints the tables; with --write they replace the generated part of a page, and the plots go beside it. With --results
what is measured is added to that file, so that a long benchmark can be made in pieces (--only none reports alone).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.clients import CLIENTS, OURS
from benchmarks.peers.ours import CAN_LEARN
from benchmarks.peers.report import plot, replace_generated, report
from benchmarks.peers.results import Measured, Results, Run
from benchmarks.peers.workloads import WORKLOADS
from distribute_async import DistributeClient

WAITS = tuple(name for name in WORKLOADS if name != "endless")
QUICK = ("log-normal", "finished", "crowd", "cpu", "wakes", "memory")
CPU_SUBJECTS = ("bare", "ours", "ours without orjson", "bare on uvloop", "ours on uvloop")
CPU_ROUNDS = 5
#: Seconds after which a measure is killed.
MEASURE_LIMIT = 240


class Server:
    """The server's process, and how it is told about runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def tell(self, what: str, **about: object) -> Any:
        request = urllib.request.Request(f"{self.url}/bench/{what}", json.dumps(about).encode(), method="POST")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


def python(module: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.peers.{module}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving() -> Iterator[Server]:
    with python("server") as process:
        assert process.stdout is not None
        yield Server(process.stdout.readline().strip())
        process.communicate()  # the end of its input ends it


def run(server: Server, client: str, name: str, count: int, number: int) -> Run | None:
    """One client, one workload. None where it couldn't begin; one that had to be killed has ended no task."""
    workload = WORKLOADS[name]
    # What a client learns from is another seed's; the counted one is the same for all.
    seeds = [number + 1000, number] if CLIENTS[client].learns and workload.is_learnt else [number]
    with python("runner", client, name, count, server.url, *seeds) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # A client whose loop is choked by its own callbacks doesn't come to see the limit.
        killer = threading.Timer(len(seeds) * (workload.limit + 60), process.kill)
        killer.daemon = True
        killer.start()
        line = ""
        for seed in seeds:
            if not process.stdout.readline():
                return None  # it has said why on standard error
            start = time.monotonic() + 0.5
            server.tell("begin", workload=name, seed=seed, count=count, start=start)
            process.stdin.write(f"{start}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        killer.cancel()
    killed: dict[str, Any] = {
        "seconds": workload.limit + 60,
        "cpu": math.nan,
        "memory": math.nan,
        "had": {},
        "errors": {"killed": 1},
    }
    outcome: dict[str, Any] = json.loads(line) if line else killed
    log = server.tell("log")
    ends = {task.id: task.end for task in workload.tasks(number, count)}
    requests = sum(log["requests"].values())
    return Run(
        client=client,
        workload=name,
        round=number,
        count=count,
        seconds=outcome["seconds"],
        cpu=outcome["cpu"],
        memory=outcome["memory"],
        delays=tuple(had - ends[task_id] for task_id, had in outcome["had"].items()),
        handovers=tuple(had - log["told"][task_id] for task_id, had in outcome["had"].items()),
        requests=requests,
        exchanges=requests + log["started"],
        errors=outcome["errors"],
    )


def measure(server: Server, name: str, subject: str, count: int, number: int) -> Measured | None:
    server.tell("begin", workload="endless", seed=0, count=count, start=time.monotonic())
    with python("measures", name, subject, count, server.url) as process:
        try:
            line, _ = process.communicate(timeout=MEASURE_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
    if not line:
        return None
    return Measured(measure=name, subject=subject, round=number, count=count, values=json.loads(line))


def takes_part(client: str, workload: str) -> bool:
    about = CLIENTS[client]
    if about.workloads:
        return workload in about.workloads
    return about.is_about_pacing or not WORKLOADS[workload].is_about_pacing


def rounds_of(only: list[str], clients: list[str], rounds: int, quick: bool) -> Iterator[tuple[str, str, int, int]]:
    """What to run: workload or measure, client or subject, how many tasks, which round."""
    for number in range(rounds):
        for workload in only:
            if workload in WAITS:
                count = WORKLOADS[workload].count // (4 if quick else 1)
                taking_part = [client for client in clients if takes_part(client, workload)]
                if quick:  # those that would only be seen to fail take the longest
                    taking_part = [client for client in taking_part if count <= CLIENTS[client].most_held]
                for client in random.sample(taking_part, len(taking_part)):
                    yield workload, client, count, number
    for number in range(CPU_ROUNDS):
        for name in ("cpu", "wakes"):
            subjects = CPU_SUBJECTS if name == "cpu" else CPU_SUBJECTS[:2]
            if name in only and (name == "cpu" or number == 0):
                for subject in random.sample(subjects, len(subjects)):
                    yield name, subject, 20, number
    if "memory" in only:
        yield "suspended", "asyncio", 10_000, 0
        for waits in (500, 1_000) if quick else (500, 1_000, 10_000):
            for client in clients:
                if takes_part(client, "finished") and not CLIENTS[client].learns and waits <= CLIENTS[client].most_held:
                    yield "hold", client, waits + 100, 0
        if hasattr(DistributeClient, "as_completed"):
            yield "many", OURS, (10_000 if quick else 100_000) + 100, 0
        else:
            print("skipped: this version has no as_completed", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of the tasks, one round, no workloads about pacing"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help=f"of {', '.join((*WAITS, 'cpu', 'wakes', 'memory'))}; or none")
    parser.add_argument("--clients", default=",".join(CLIENTS), help=f"of {', '.join(CLIENTS)}")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    only = given.only.split(",") if given.only else list(QUICK if given.quick else (*WAITS, "cpu", "wakes", "memory"))
    clients = given.clients.split(",")
    if not CAN_LEARN:
        print("skipped: this version doesn't learn", file=sys.stderr)
        clients = [client for client in clients if not CLIENTS[client].learns]
    # Some peers open a connection for each wait.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    results = Results.load(given.results) if given.results else Results()
    with serving() as server:
        for name, subject, count, number in rounds_of(only, clients, 1 if given.quick else given.rounds, given.quick):
            made: Run | Measured | None
            if name in WAITS:
                made = run(server, subject, name, count, number)
            else:
                made = measure(server, name, subject, count, number)
            if isinstance(made, Run):
                results.runs.append(made)
            elif made:
                results.measured.append(made)
            print(f"{name}, {subject}, round {number + 1}{'' if made else ': gave nothing'}", file=sys.stderr)
            if given.results:
                results.save(given.results)
    if given.write:
        folder = given.write.with_suffix("")
        plots = [str(path.relative_to(given.write.parent)) for path in plot(results, folder)]
        replace_generated(given.write, report(results, plots))
    else:
        print(report(results, []))


if __name__ == "__main__":
    main()
