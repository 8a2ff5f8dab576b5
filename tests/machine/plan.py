"""What a random run is made of, as data, and how it is drawn. Used by `service`, `run`, `check` and the tests."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import evolve, frozen
from hypothesis import strategies as st

from distribute_async import Limits, Pacing, Retry

#: Statuses on the way. The last one is none that the specification knows.
ON_THE_WAY = ["CREATED", "QUEUED", "POSTPONED", "ASSIGNED_CONNECTIONS", "PROCESSING", "WARMING"]
#: The ends of a task; the last two are unknown statuses with `finished` set, one with an answer and one without.
ENDS = ["COMPLETED", "ERROR", "DONE", "GONE"]

#: Faults that say that the service is down, in a connection's words or a gateway's.
DOWN = ["cut", "stale", "body", "garbage", "connect", "silence", "silence", "unreachable", "502", "503", "504"]
#: Faults that a wait outlives. "foreign" and "middleware" are cancellations that the client did not cause, after the
#: request was sent and before it; with "poisoned" and "connect" nothing is sent either.
PASSING = [
    *DOWN,
    "poisoned",
    "foreign",
    "foreign",
    "middleware",
    "bug",
    "500",
    "520",
    "408",
    "425",
    "429",
    "404",
    "404",
    "html",
    "shape",
    "shape",
    "nan",
    "700",
]
#: Faults with a `Retry-After` (+seconds).
PAUSING = ["429+1", "503+3", "429+12", "503+45", "429+500", "500+5", "429+-1"]
#: Faults that end a wait.
FINAL = ["401", "302", "huge", "certificate"]
#: Faults that only the creation of a task can meet: an id that nobody could ask for.
CREATING = ["id"]

#: No task has this id, which an outage is probed with where only creates wait.
PROBE_ID = "ffffffff-ffff-4fff-bfff-ffffffffffff"

#: Kinds of actor that follow all tasks at once.
MANY = ["completed", "changes"]
#: All kinds of actor.
KINDS = ["wait", "await", "iterate", "iterate", "both", "nibble", "visit", "keep", "fetch", "submit", "submit", *MANY]


@frozen(kw_only=True)
class Life:
    """A task: (seconds from the start, status) in order, and the faults that its first requests meet, "" for none."""

    timeline: tuple[tuple[float, str], ...] = ((0.0, "QUEUED"), (5.0, "COMPLETED"))
    faults: tuple[str, ...] = ()


@frozen(kw_only=True)
class Front:
    """A time in which every request meets a fault, or every one for one task; "" for none.

    `delay`: seconds until their answers, if not the plan's.
    """

    start: float = 0.0
    seconds: float = 1.0
    fault: str = "503"
    task: int | None = None
    delay: float | None = None


@frozen(kw_only=True)
class Actor:
    """Somebody who waits.

    `kind`: "wait" (`wait_for_result`), "fetch", "await", "iterate" (`lingers` seconds in the loop's body, leaves the
    loop after `most` statuses), "both" (iterates and awaits one watch), "nibble" (awaits each status for at most
    0.3 s and `lingers`, again and again), "visit" (the same, and stays away for `away` seconds between), "keep"
    (awaits, and keeps the watch for a while); "completed" and "changes" (`as_completed` and `watch_many` over all
    tasks, left after `most` items, `task` coming first); "submit" (creates the task, meeting `faults`, and awaits what
    it gets where `most` is more than 2). Cancelled `cancel` seconds after it began, and so many turns of the loop
    later; twice in a row where `twice`. `shouts`: it writes the id in capitals.
    """

    task: int = 0
    kind: str = "await"
    at: float = 0.0
    timeout: float | None = None
    cancel: float | None = None
    turns: int = 0
    twice: bool = False
    lingers: float = 0.0
    away: float = 5.0
    most: int = 100
    shouts: bool = False
    faults: tuple[str, ...] = ()


@frozen(kw_only=True)
class Settings:
    """What the client is told."""

    max_in_flight: int = 100
    connect_timeout: float = 2.0
    max_requests_per_second: float | None = None
    exchange_timeout: float = 3.0
    max_outage: float = 30.0
    first_contact: float = 10.0
    not_found_grace: float = 3.0
    max_retry_after: float = 60.0
    attempts: int = 3
    initial: float = 0.5
    longest: float = 10.0
    backs_off_to: float = 8.0
    learns: bool = False

    @property
    def limits(self) -> Limits:
        """With a small cap for bodies, so that one over it costs little."""
        return Limits(
            max_in_flight=self.max_in_flight,
            max_requests_per_second=self.max_requests_per_second,
            exchange_timeout=self.exchange_timeout,
            connect_timeout=self.connect_timeout,
            max_body_bytes=4096,
        )

    @property
    def retry(self) -> Retry:
        """The rest of the backoff is as usual."""
        return Retry(
            attempts=self.attempts,
            max=self.backs_off_to,
            max_outage=self.max_outage,
            first_contact=self.first_contact,
            not_found_grace=self.not_found_grace,
            max_retry_after=self.max_retry_after,
        )

    @property
    def pacing(self) -> Pacing:
        """The jitter is the usual one."""
        polls = 10.0 if self.learns else None
        return Pacing(initial=self.initial, max=max(self.initial, self.longest), polls_per_task=polls)


#: What the client of the module-level functions goes by.
USUAL = Settings(connect_timeout=5.0, exchange_timeout=30.0, max_outage=300.0, max_retry_after=300.0, backs_off_to=30.0)


@frozen(kw_only=True)
class Plan:
    """A whole run. The n-th request of all is answered after the n-th of `delays`, which repeat.

    `close`: (seconds, turns of the loop) after which the client is closed, with a `grace`, which another close ends
    `hurry` seconds later. `raids`: (seconds, turns of the loop) after which somebody cancels all asyncio tasks that
    aren't the actors' own. `module`: the module-level functions are used, with a client of the environment. `crowd`: so
    many others wait besides, each for a task of its own. `seed`: of the jitter.
    """

    lives: tuple[Life, ...] = (Life(),)
    actors: tuple[Actor, ...] = (Actor(),)
    fronts: tuple[Front, ...] = ()
    delays: tuple[float, ...] = (0.01,)
    settings: Settings = Settings()
    close: tuple[float, int] | None = None
    grace: float = 0.0
    hurry: float | None = None
    raids: tuple[tuple[float, int], ...] = ()
    module: bool = False
    crowd: int = 0
    seed: int = 0

    @property
    def everybody(self) -> tuple[Actor, ...]:
        """All who wait."""
        others = (Actor(task=len(self.lives) + n, kind="wait", at=n / 100) for n in range(self.crowd))
        return (*self.actors, *others)

    @property
    def all_lives(self) -> tuple[Life, ...]:
        """All tasks."""
        others = (Life(timeline=((0.0, "QUEUED"), (40.0 + n, "COMPLETED"))) for n in range(self.crowd))
        return (*self.lives, *others)

    def task_id(self, task: int) -> str:
        """The id of a task."""
        return f"{task:08x}-0000-4000-8000-0000000000ab"


def _mostly(usual: list[Any], rare: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One of the usual values, three times out of four."""
    return st.sampled_from(usual) | st.sampled_from(usual) | st.sampled_from(usual) | rare


def _seconds(*usual: float, most: float) -> st.SearchStrategy[float]:
    """Mostly one of the usual values, else anything on a grid of hundredths."""
    return _mostly(list(usual), st.integers(0, int(most * 100)).map(lambda n: n / 100))


def _timeline(parts: tuple[list[tuple[float, str]], str | None, float]) -> tuple[tuple[float, str], ...]:
    steps, end, gap = parts
    at, timeline = 0.0, []
    for wait, status in steps:
        timeline.append((round(at, 2), status))
        at += wait
    if end is not None:
        timeline.append((round(at + gap, 2), end))
    return tuple(timeline)


_timelines = st.tuples(
    st.lists(
        st.tuples(_seconds(0.0, 0.3, 1.0, 4.0, 10.0, most=20), st.sampled_from(ON_THE_WAY)), min_size=1, max_size=8
    ),
    st.sampled_from([*ENDS, "COMPLETED", "COMPLETED", None]),
    _seconds(0.5, 5.0, 20.0, 40.0, 80.0, most=90),
).map(_timeline)

_faults = st.sampled_from([""] * 25 + PASSING * 3 + PAUSING * 2 + FINAL)
_create_faults = st.sampled_from([*PASSING, *PAUSING, *FINAL, *CREATING, "429", "503", "connect", "middleware"])
# A few kinds for each task, so that they come again and again, in a row and between each other.
_scripts = st.lists(_faults, min_size=1, max_size=3).flatmap(
    lambda kinds: st.lists(st.sampled_from(kinds), max_size=10)
)
_lives = st.builds(Life, timeline=_timelines, faults=st.just(()) | _scripts.map(tuple))


def _actors(tasks: int) -> st.SearchStrategy[Actor]:
    return st.builds(
        Actor,
        task=st.integers(0, tasks - 1),
        kind=st.sampled_from(KINDS),
        at=_seconds(0.0, 0.0, 0.5, 1.0, 10.0, most=40),
        timeout=_mostly([None, None, None, None, 20.0, 90.0], st.sampled_from([0.0, 0.03, 1.0, 5.0, 12.34])),
        cancel=_mostly([None], st.sampled_from([0.0, 0.005, 0.5, 1.0, 3.0, 10.0, 30.0])),
        turns=st.integers(0, 6),
        twice=st.booleans(),
        lingers=st.sampled_from([0.0, 0.0, 0.4, 3.0, 15.0]),
        away=st.sampled_from([5.0, 0.7, 20.0, 60.0]),
        most=_mostly([100], st.sampled_from([1, 2])),
        shouts=_mostly([False], st.booleans()),
        faults=st.just(()) | st.lists(_create_faults, max_size=4).map(tuple),
    )


def _fronts(tasks: int) -> st.SearchStrategy[Front]:
    return st.builds(
        Front,
        start=_seconds(0.0, 1.0, 10.0, 20.0, most=40),
        seconds=_seconds(0.5, 5.0, 20.0, 60.0, most=60),
        fault=st.sampled_from([*DOWN, *DOWN, *PASSING, "503+3", "429+12"]),
        task=_mostly([None], st.integers(0, tasks - 1)),
    )


_settings = st.builds(
    Settings,
    max_in_flight=st.sampled_from([100, 100, 1, 2]),
    max_requests_per_second=st.sampled_from([None, None, None, 2.0, 0.5]),
    exchange_timeout=st.sampled_from([3.0, 0.5, 10.0]),
    max_outage=st.sampled_from([30.0, 5.0, 0.0, 300.0]),
    first_contact=st.sampled_from([10.0, 2.0, 0.0, 40.0]),
    not_found_grace=st.sampled_from([3.0, 0.0, 10.0]),
    max_retry_after=st.sampled_from([60.0, 5.0]),
    attempts=st.sampled_from([3, 1, 5]),
    initial=st.sampled_from([0.5, 0.05, 2.0]),
    longest=st.sampled_from([10.0, 2.0]),
    backs_off_to=st.sampled_from([8.0, 1.0]),
    learns=st.sampled_from([False, False, False, True]),
)


_times = st.tuples(_seconds(0.0, 1.0, 20.0, most=90), st.integers(0, 6))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any run, of one to four tasks and one to ten who wait; now and then bent to what is rare otherwise."""
    tasks = draw(st.integers(1, 4))
    is_of_module = draw(st.sampled_from([False, False, False, True]))
    plan = Plan(
        lives=tuple(draw(st.lists(_lives, min_size=tasks, max_size=tasks))),
        actors=tuple(draw(st.lists(_actors(tasks), min_size=1, max_size=10))),
        fronts=tuple(draw(st.just([]) | st.lists(_fronts(tasks), min_size=1, max_size=3))),
        delays=tuple(draw(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.2, 1.0, 4.0]), min_size=1, max_size=4))),
        settings=USUAL if is_of_module else draw(_settings),
        close=draw(_mostly([None], _times)),
        grace=draw(st.sampled_from([0.0, 0.0, 0.5, 5.0, 60.0])),
        hurry=draw(_mostly([None], st.sampled_from([0.0, 0.3, 2.0]))),
        raids=tuple(draw(_mostly([[]], st.lists(_times, min_size=1, max_size=3)))),
        module=is_of_module,
        crowd=draw(st.sampled_from([0] * 14 + [30])),
        seed=draw(st.integers(0, 1000)),
    )
    bend = draw(st.sampled_from([_as_it_is] * 5 + [_pauses, _is_busy, _closes, _creates_alone, _fails]))
    return bend(draw, plan)


def _as_it_is(draw: st.DrawFn, plan: Plan) -> Plan:
    return plan


def _pauses(draw: st.DrawFn, plan: Plan) -> Plan:
    """Pauses come while many requests are under way, some of which are answered well within them."""
    at = draw(_seconds(0.0, 1.0, 10.0, most=30))
    fault, delay = draw(st.sampled_from(PAUSING)), draw(st.sampled_from([None, 0.3, 0.5, 2.0]))
    turned_away = Front(start=at, seconds=draw(st.sampled_from([0.02, 0.2, 1.0])), fault=fault, delay=delay)
    slow = Front(start=at, seconds=draw(st.sampled_from([0.5, 3.0])), fault="", delay=delay)
    kinds = st.sampled_from(["fetch", "wait", "await", "nibble", *([] if plan.module else ["submit"])])
    moments = st.sampled_from([0.0, 0.2, 0.6, 3.0, 8.0]).map(lambda after: at + after)
    calls = st.builds(Actor, task=st.just(0), kind=kinds, at=moments, timeout=st.sampled_from([None, 0.4, 5.0, 12.0]))
    return evolve(
        plan,
        actors=(*plan.actors[:5], *draw(st.lists(calls, max_size=4))),
        fronts=(turned_away, slow, *plan.fronts[:1]),
        delays=tuple(draw(st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.2, 1.0, 2.5]), min_size=1, max_size=5))),
        crowd=draw(st.sampled_from([5, 15, 40])),
    )


def _is_busy(draw: st.DrawFn, plan: Plan) -> Plan:
    """Creates and fetches come while polls wait for their turn."""
    if plan.module:
        return plan
    kind = st.sampled_from(["submit", "fetch", "wait"])
    calls = st.builds(Actor, kind=kind, at=_seconds(5.0, 10.0, 20.0, most=60), timeout=st.sampled_from([None, 10.0]))
    return evolve(
        plan,
        actors=(*plan.actors[:3], *draw(st.lists(calls, min_size=1, max_size=8))),
        settings=evolve(plan.settings, max_requests_per_second=draw(st.sampled_from([0.5, 1.0, 2.0, 5.0]))),
        crowd=draw(st.sampled_from([5, 12, 30])),
    )


def _closes(draw: st.DrawFn, plan: Plan) -> Plan:
    """The client is closed with a grace while tasks are created."""
    if plan.module:
        return plan
    at = draw(_seconds(1.0, 5.0, most=20))
    moments = st.sampled_from([0.0, 0.1, 0.7, 3.0]).map(lambda before: max(0.0, at - before))
    faults = st.just(()) | st.lists(_create_faults, max_size=2).map(tuple)
    creates = st.builds(
        Actor, kind=st.just("submit"), at=moments, timeout=st.sampled_from([None, 5.0, 1.0]), faults=faults
    )
    delays = draw(st.lists(st.sampled_from([0.05, 0.2, 1.0, 4.0]), min_size=1, max_size=3))
    return evolve(
        plan,
        actors=(*plan.actors[:5], *draw(st.lists(creates, min_size=1, max_size=4))),
        close=(at, draw(st.integers(0, 6))),
        grace=draw(st.sampled_from([0.3, 1.0, 5.0, 60.0])),
        delays=tuple(delays),
    )


def _creates_alone(draw: st.DrawFn, plan: Plan) -> Plan:
    """Only creates are left to wait for the end of an outage."""
    if plan.module:
        return plan
    leave = st.sampled_from([2.0, 4.0, 9.0])
    reads = st.builds(Actor, task=st.just(0), kind=st.sampled_from(["wait", "iterate"]), cancel=leave)
    moments = _seconds(1.0, 3.0, 10.0, most=20)
    creates = st.builds(Actor, kind=st.just("submit"), at=moments, timeout=st.sampled_from([None, 3.0, 15.0]))
    down = Front(seconds=draw(st.sampled_from([10.0, 25.0, 60.0])), fault=draw(st.sampled_from(DOWN)))
    return evolve(
        plan,
        actors=(*draw(st.lists(reads, min_size=1, max_size=3)), *draw(st.lists(creates, min_size=1, max_size=4))),
        fronts=(down, *plan.fronts[:1]),
        delays=plan.delays if down.fault == "silence" else (0.01, *plan.delays),
        settings=evolve(plan.settings, backs_off_to=1.0),
        crowd=0,
    )


def _fails(draw: st.DrawFn, plan: Plan) -> Plan:
    """One task fails again and again, though the service is well, and its readers come and go."""
    kinds = draw(
        st.lists(
            st.sampled_from(["500", "520", "408", "foreign", "middleware", "bug", "html", "404"]),
            min_size=1,
            max_size=2,
        )
    )
    faults = draw(st.lists(st.sampled_from([*kinds * 4, ""]), min_size=30, max_size=30))
    life = Life(timeline=((0.0, "QUEUED"), (200.0, "COMPLETED")), faults=tuple(faults))
    kind = st.sampled_from(["wait", "iterate", "nibble", "visit", "visit", "visit", "completed"])
    readers = st.builds(
        Actor,
        task=st.just(0),
        kind=kind,
        at=_seconds(0.0, 1.0, 3.0, 8.0, most=20),
        cancel=_mostly([None], st.sampled_from([2.0, 6.0])),
        lingers=st.sampled_from([0.0, 3.0, 8.0]),
        away=st.sampled_from([2.0, 20.0]),
    )
    settings = evolve(
        plan.settings,
        max_outage=draw(st.sampled_from([5.0, 12.0, 30.0])),
        not_found_grace=draw(st.sampled_from([3.0, 10.0])),
    )
    return evolve(
        plan,
        lives=(life, *plan.lives[1:]),
        actors=(*plan.actors[: draw(st.sampled_from([0, 2]))], *draw(st.lists(readers, min_size=1, max_size=4))),
        fronts=(),
        settings=plan.settings if plan.module else settings,
    )


def written(value: object) -> str:
    """`value` as a program would write it: like its repr, without what is by default."""
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))}{',' if len(value) == 1 else ''})"
    if not attrs.has(type(value)):
        return repr(value)
    kind: Any = type(value)
    told = {field.name: getattr(value, field.name) for field in attrs.fields(kind)}
    parts = [f"{name}={written(part)}" for name, part in told.items() if part != getattr(kind(), name)]
    return f"{type(value).__name__}({', '.join(parts)})"
