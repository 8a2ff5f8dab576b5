"""The tables, as Markdown, and the plots."""

from __future__ import annotations

import collections
import datetime as dt
import importlib.metadata
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.optimum import fixed, optimum
from benchmarks.peers.clients import BY_HAND, CLIENTS, EVERY_SECOND, LEARNED, OURS
from benchmarks.peers.results import Results, Run, middle
from benchmarks.peers.workloads import WORKLOADS

BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
COLUMNS = (
    "client|ended|mean delay, s|p95 delay, s|polls a task|delay x polls|against by hand|CPU, ms a request|KiB a wait"
)


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, without an exponent."""
    if math.isnan(value):
        return "-"
    before = 0 if value == 0 else math.floor(math.log10(abs(value))) + 1
    return f"{value:,.{max(0, digits - max(before, 0))}f}"


def table(header: str, rows: list[list[str]]) -> str:
    names = header.split("|")
    lines = [names, ["---", *["--:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def row(results: Results, client: str, workload: str) -> list[str]:
    runs = results.of(client, workload)
    ended = [run for run in runs if run.delays]
    whole = [run for run in runs if run.is_whole]
    columns: tuple[tuple[list[Run], Callable[[Run], float]], ...] = (
        (ended, lambda run: run.delay),
        (ended, lambda run: run.p95),
        (runs, lambda run: run.polls),
        (whole, lambda run: run.price),
    )
    after: tuple[tuple[list[Run], Callable[[Run], float]], ...] = (
        ([run for run in runs if run.exchanges], lambda run: 1000 * run.cpu / run.exchanges),
        (runs, lambda run: run.memory / run.count / 1024),
    )
    share = "all" if len(whole) == len(runs) else f"{middle(len(run.delays) for run in runs):,.0f} of {runs[0].count:,}"
    errors = collections.Counter[str]()
    for run in runs:
        errors.update(run.errors)
    if errors:
        share += f" ({errors.most_common(1)[0][0]})"
    return [
        CLIENTS[client].title,
        share,
        *(number(middle(map(value, some))) for some, value in columns),
        number(middle(results.ratios(client, BY_HAND, workload, lambda run: run.price)), 2),
        *(number(middle(map(value, some)), 2) for some, value in after),
    ]


def workload_tables(results: Results) -> str:
    parts = []
    for name, workload in WORKLOADS.items():
        present = [client for client in CLIENTS if results.of(client, name)]
        if present:
            rounds = len({run.round for run in results.runs if run.workload == name})
            count = results.of(present[0], name)[0].count
            parts.append(f"### {workload.title}\n")
            parts.append(f"{rounds} round(s){'' if count == workload.count else f', {count:,} tasks'}.\n")
            parts.append(table(COLUMNS, [row(results, client, name) for client in present]))
    return "\n".join(parts)


def ratio_table(results: Results) -> str:
    pairs = ((OURS, BY_HAND), (LEARNED, BY_HAND), (LEARNED, EVERY_SECOND))
    names = [name for name in WORKLOADS if results.ratios(OURS, BY_HAND, name, lambda run: run.price)]
    names = [name for name in names if name not in {"finished", "crowd"}]
    rows = [
        [
            f"{CLIENTS[one].title} ÷ {CLIENTS[other].title}",
            *(number(middle(results.ratios(one, other, name, lambda run: run.price)), 2) for name in names),
        ]
        for one, other in pairs
    ]
    return f"### Delay x polls, ratios in the same round\n\n{table('|'.join(['', *names]), rows)}" if names else ""


def cost_tables(results: Results) -> str:
    parts = []
    subjects = sorted({made.subject for made in results.measured if made.measure == "cpu"})
    if subjects:
        rows = []
        for subject in subjects:
            spent, plain = results.values("cpu", subject, "cpu"), results.values("cpu", "bare", "cpu")
            ratios = [one / other for one, other in zip(spent, plain, strict=False)]
            rows.append([subject, number(1e6 * middle(spent)), number(middle(ratios)), str(len(spent))])
        parts.append("### CPU of a poll\n\n20 tasks, each asked for every 20 ms for 2 s.\n")
        parts.append(table("subject|µs a poll|against the bare loop|rounds", rows))
    woken = [
        [subject, *(number(middle(results.values("wakes", subject, name))) for name in ("timers", "own", "all"))]
        for subject in ("bare", "ours")
        if results.values("wakes", subject, "all")
    ]
    if woken:
        parts.append("### Wake-ups of the event loop for a poll\n")
        parts.append(table("subject|timers of the library|all callbacks of the library|all callbacks", woken))
    if memory := memory_rows(results):
        parts.append("### Memory of waits\n\nResident, beyond the 100 connections that were open before.\n")
        parts.append(table("what|waits|bytes each|beyond the caller's asyncio task", memory))
    return "\n".join(parts)


def memory_rows(results: Results) -> list[list[str]]:
    plain = middle(results.values("suspended", "asyncio", "bytes"))
    rows = [["an asyncio task that awaits a future", "10,000", number(plain), "0"]] if plain > 0 else []
    for client in CLIENTS:
        sizes = sorted({made.count for made in results.measured if (made.measure, made.subject) == ("hold", client)})
        for size in sizes:
            if any(results.values("hold", client, "ended", size)):
                continue
            held = middle(results.values("hold", client, "bytes", size))
            rows.append([CLIENTS[client].title, f"{size - 100:,}", number(held), number(held - plain)])
    if ids := [made for made in results.measured if made.measure == "many"]:
        held = middle(made.values["bytes"] for made in ids)
        rows.append(["`as_completed`, one asyncio task for all", f"{ids[0].count - 100:,}", number(held), "-"])
    return rows


def machine() -> str:
    """Date, machine and versions."""
    packages = dict.fromkeys(name for client in CLIENTS.values() for name in client.packages)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (*packages, "orjson", "uvloop"))
    cores = len(os.sched_getaffinity(0))
    today = dt.datetime.now(tz=dt.UTC).date()
    return (
        f"{today}, {cores} cores ({platform.machine()}), {platform.system()} {platform.release().partition('-')[0]}, "
        f"{platform.python_implementation()} {platform.python_version()}.\n{versions}.\n"
    )


def report(results: Results, plots: list[str]) -> str:
    """All that stands between the two marks."""
    rows = [[client.title, client.note] for client in CLIENTS.values()]
    images = "\n\n".join(f"![{path}]({path})" for path in plots)
    parts = [
        machine(),
        "## The clients\n",
        table("client|how it waits", rows).replace("--:", "---"),
        "## Delay and polls\n",
        workload_tables(results),
        ratio_table(results),
        "## Costs\n",
        cost_tables(results),
        "## Plots\n",
        images,
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def replace_generated(path: Path, text: str) -> None:
    """Put the report between the marks of a page."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{path} has no {BEGIN} … {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def plot(results: Results, folder: Path) -> list[Path]:
    """Draw what there are results for."""
    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "distribute-async", "svg.fonttype": "none", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in {"delay": draw_delay, "memory": draw_memory, "throughput": draw_throughput}.items():
        figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
        if draw(results, axes):
            drawn.append(folder / f"{name}.svg")
            figure.savefig(drawn[-1], metadata={"Date": None})
        plt.close(figure)
    return drawn


def plain(client: str) -> str:
    return CLIENTS[client].title.replace("*", "").replace("`", "")


def is_ours(client: str) -> bool:
    return CLIENTS[client].opener.startswith("ours:")


def draw_delay(results: Results, axes: plt.Axes) -> bool:
    name = "log-normal"
    points = {
        client: (middle(run.polls for run in runs), middle(run.delay for run in runs))
        for client in CLIENTS
        if (runs := [run for run in results.of(client, name) if run.is_whole])
    }
    if not points:
        return False
    for n, (client, (polls, delay)) in enumerate(points.items()):
        shade = plt.get_cmap("tab20")(n)
        axes.plot(polls, delay, "o" if is_ours(client) else "X", color=shade, label=plain(client), zorder=3)
    known, others = (np.array([task.life[-1][0] for task in WORKLOADS[name].tasks(n, 5_000)]) for n in (-1, -2))
    at = np.geomspace(4, 32, 60)
    axes.plot(at, [*map(optimum(known, others, floor=0.1), at)], color="grey", label="optimum, durations known")
    axes.plot(at, [*map(fixed(others), at)], "--", color="grey", label="fixed interval")
    axes.set(xscale="log", yscale="log", xlabel="polls a task", ylabel="mean delay, s", title=WORKLOADS[name].title)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return True


def draw_memory(results: Results, axes: plt.Axes) -> bool:
    held = [made for made in results.measured if made.measure == "hold" and not made.values["ended"]]
    for client in CLIENTS:
        sizes = sorted({made.count for made in held if made.subject == client})
        if sizes:
            total = [(size - 100) * middle(results.values("hold", client, "bytes", size)) / 2**20 for size in sizes]
            style = "o-" if is_ours(client) else "X:"
            axes.plot([size - 100 for size in sizes], total, style, label=plain(client))
    axes.set(xscale="log", yscale="log", xlabel="concurrent waits", ylabel="MiB beyond the start", title="memory")
    if held:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return bool(held)


def draw_throughput(results: Results, axes: plt.Axes) -> bool:
    rates = {
        client: middle(run.throughput for run in runs) for client in CLIENTS if (runs := results.of(client, "finished"))
    }
    colours = ["tab:orange" if is_ours(client) else "tab:blue" for client in rates]
    axes.barh([plain(client) for client in rates], list(rates.values()), color=colours)
    axes.invert_yaxis()
    axes.set(xlabel="results a second", title=WORKLOADS["finished"].title)
    return bool(rates)
