"""Learned pacing: what is remembered of tasks, and the polls that follow, without a clock."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distribute_async import ChatResult, DistributeClient, Pacing, TaskStatus
from distribute_async._policy.adaptive import (
    MAX_MODELS,
    MEMORY_TASKS,
    AdaptivePacer,
    LearnedPacing,
    PacingMemory,
    Phase,
)
from distribute_async._policy.hazard import BINS, EDGES, PRIOR, HazardEstimate
from distribute_async.emulator import Emulator
from tests.waiting import now

WAITING, WORKING = Phase.WAITING, Phase.WORKING


def none(span: float) -> float:
    return 0.0


def all_of_it(span: float) -> float:
    return span


def new_memory(polls_per_task: float = 10.0, *, jitter: Callable[[float], float] = none) -> PacingMemory:
    return PacingMemory(Pacing.learned(polls_per_task, jitter=jitter))


def follow(memory: PacingMemory, durations: Iterable[tuple[float, float]], model: str = "m") -> list[tuple[int, float]]:
    """Polls tasks that wait and work so long, one after another: each one's polls, and how late its end was seen."""
    found = []
    for waiting, working in durations:
        phase: Phase | None = None
        now = last = since = 0.0
        quiet = 0
        for polls in itertools.count(1):
            seen = WAITING if now < waiting else WORKING if now < waiting + working else None
            if phase is not None:
                memory.record("chat", model, phase, last - since, now - since, left=seen is not phase)
            if seen is None:
                found.append((polls, now - waiting - working))
                break
            since, quiet = (since, quiet + 1) if seen is phase else (now, 0)
            phase, last = seen, now
            now += memory.interval("chat", model, seen, now - since, quiet, waited=now)
    return found


def about(seconds: float, count: int, *, spread: float = 0.1) -> list[tuple[float, float]]:
    """Durations without a queue, and with about so many seconds of work."""
    rng = random.Random(count)
    return [(0.0, seconds * rng.lognormvariate(0, spread)) for _ in range(count)]


def mean_polls(found: list[tuple[int, float]]) -> float:
    return statistics.mean(polls for polls, _ in found)


def mean_delay(found: list[tuple[int, float]]) -> float:
    return statistics.mean(delay for _, delay in found)


def cost(found: list[tuple[int, float]]) -> float:
    return mean_polls(found) * mean_delay(found)


def response(status: str) -> ChatResult:
    return ChatResult(status=TaskStatus(status), created=0, model="m", choices=())


def only(memory: PacingMemory) -> LearnedPacing:
    (learned,) = memory.report()
    return learned


@pytest.mark.parametrize("jitter", [none, all_of_it])
def test_a_cold_start_is_plain_backoff(jitter: Callable[[float], float]) -> None:
    """Until a task is seen to end, intervals are exactly those of plain backoff, running tasks or not."""
    memory, plain = new_memory(jitter=jitter), Pacing(jitter=jitter)
    expected = [plain.interval(n) for n in range(20)]
    assert [memory.interval("chat", "m", WORKING, 5.0, n, waited=5.0) for n in range(20)] == expected
    for n in range(100):
        memory.record("chat", "m", WORKING, n, n + 1, left=False)
    assert [memory.interval("chat", "m", WORKING, 5.0, n, waited=5.0) for n in range(20)] == expected
    assert memory.report() == ()


def test_a_pacing_that_does_not_learn_stays_plain() -> None:
    """Without `polls_per_task` nothing is remembered, and intervals stay those of plain backoff."""
    memory = PacingMemory(Pacing(jitter=none))
    found = follow(memory, about(20.0, 50))
    assert memory.report() == ()
    assert found == follow(PacingMemory(Pacing(jitter=none)), about(20.0, 50))


def test_other_models_and_phases_are_learned_apart() -> None:
    """What is seen of one kind, model or phase changes nothing for another."""
    memory = new_memory()
    follow(memory, about(20.0, 100))
    plain = Pacing(jitter=none).interval(3)
    assert memory.interval("chat", "m", WORKING, 4.0, 3, waited=4.0) != plain
    assert memory.interval("chat", "other", WORKING, 4.0, 3, waited=4.0) == plain
    assert memory.interval("images", "m", WORKING, 4.0, 3, waited=4.0) == plain
    assert memory.interval("chat", "m", WAITING, 4.0, 3, waited=4.0) == plain


@pytest.mark.parametrize("asked", [10, 20])
def test_polls_go_where_tasks_end(asked: float) -> None:
    """Once learned, tasks take about the polls asked for, and their ends are seen much earlier than by backoff."""
    durations = about(20.0, 200)
    learned = follow(new_memory(asked), durations)[100:]
    plain = follow(PacingMemory(Pacing(jitter=none)), durations)[100:]
    assert mean_polls(learned) == pytest.approx(asked, rel=0.15)
    assert cost(learned) < 0.3 * cost(plain)


def test_trust_grows_with_the_ends_seen() -> None:
    """From plain backoff to what was learned there is no jump: each end seen moves the interval a little."""
    memory = new_memory()
    intervals = []
    for n in range(40):
        intervals.append(memory.interval("chat", "m", WORKING, 19.5, 12, waited=19.5))
        memory.record("chat", "m", WORKING, 0.0, 19.0 + n % 4 / 2, left=False)
        memory.record("chat", "m", WORKING, 19.0 + n % 4 / 2, 19.5 + n % 4 / 2, left=True)
    assert intervals[0] == Pacing(jitter=none).interval(12)
    assert intervals[-1] < intervals[0] / 4
    assert all(later > 0.5 * earlier for earlier, later in itertools.pairwise(intervals))


seconds = st.floats(0.0, 200.0)
polls = st.tuples(st.sampled_from(Phase), seconds, st.floats(0.001, 100.0), st.booleans())


@settings(deadline=None, max_examples=60)
@given(
    seen=st.lists(polls, max_size=40),
    phase=st.sampled_from(Phase),
    age=st.floats(0.0, 1e6),
    before=st.floats(0.0, 1e6),
    numbers=st.tuples(st.floats(2.0, 100.0), st.floats(0.0, 2.0), st.floats(0.01, 100.0)),
    jitter=st.sampled_from([none, all_of_it]),
)
def test_bounds_are_always_kept(
    *,
    seen: list[tuple[Phase, float, float, bool]],
    phase: Phase,
    age: float,
    before: float,
    numbers: tuple[float, float, float],
    jitter: Callable[[float], float],
) -> None:
    """An interval is at least `floor`, at most `max`, and `initial` plus half of the waited and the usual time."""
    asked, floor, most = numbers
    pacing = Pacing.learned(asked, floor=floor, max=most, jitter=jitter)
    memory = PacingMemory(pacing)
    for where, earlier, interval, left in seen:
        memory.record("chat", "m", where, earlier, earlier + interval, left=left)
    interval = memory.interval("chat", "m", phase, age, 5, waited=before + age)
    assert floor <= interval <= max(floor, most)
    for learned in memory.report():
        assert 0 < learned.median_age <= learned.p90_age
        assert floor <= learned.shortest_gap <= learned.longest_gap <= max(floor, most)
        if learned.phase == phase:
            assert interval <= max(floor, pacing.initial + (before + age + learned.median_age) / 2)


def test_a_first_interval_is_half_of_what_is_usual() -> None:
    """No interval, blended or not, is longer than `initial` plus half of the waited and the usual time."""
    sure, unsure = PacingMemory(Pacing.learned(max=1000.0, jitter=none)), new_memory()
    for _ in range(100):
        sure.record("chat", "m", WORKING, 0.0, 58.0, left=False)
        sure.record("chat", "m", WORKING, 58.0, 62.0, left=True)
    intervals = [sure.interval("chat", "m", WORKING, 0.0, 0, waited=waited) for waited in (0.0, 5.0)]
    assert 20.0 < intervals[0] <= 0.5 + 60.0 / 2
    assert intervals[1] == pytest.approx(intervals[0] + 5.0 / 2)
    for _ in range(5):
        unsure.record("chat", "m", WORKING, 0.0, 0.9, left=False)
        unsure.record("chat", "m", WORKING, 0.9, 1.1, left=True)
    assert unsure.interval("chat", "m", WORKING, 0.0, 30, waited=0.0) <= 0.5 + 1.0 / 2


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_drift_is_followed(factor: float) -> None:
    """When tasks come to take three times as long, or a third, backoff is no better even then, and soon worse."""
    memory = new_memory()
    follow(memory, about(20.0, 200))
    assert only(memory).median_age == pytest.approx(20.0, rel=0.1)
    durations = about(20.0 * factor, 300)
    found, plain = follow(memory, durations), follow(PacingMemory(Pacing(jitter=none)), durations)
    assert only(memory).median_age == pytest.approx(20.0 * factor, rel=0.15)
    assert cost(found[:100]) < cost(plain[:100])
    assert cost(found[200:]) < 0.3 * cost(plain[200:])


def test_a_wrong_model_costs_little() -> None:
    """Tasks that take a twentieth of what others did are seen at most `max` late, and soon as early as by backoff."""
    memory = new_memory()
    follow(memory, about(60.0, 200))
    durations = about(3.0, 200)
    found, plain = follow(memory, durations), follow(PacingMemory(Pacing(jitter=none)), durations)
    assert all(delay < 10.0 for _, delay in found)
    assert cost(found[100:]) < cost(plain[100:])


def test_running_tasks_count() -> None:
    """Tasks that were on at an age and did not end make an end there less likely, poll by poll, before any ends."""
    some, more = new_memory(), new_memory()
    for memory in (some, more):
        for n in range(50):
            memory.record("chat", "m", WORKING, 0.0, 4.0, left=False)
            memory.record("chat", "m", WORKING, 4.0, 5.0 + n % 5 / 10, left=True)
        memory.interval("chat", "m", WORKING, 0.0, 0, waited=0.0)
    for _ in range(500):
        more.record("chat", "m", WORKING, 0.0, 8.0, left=False)
    intervals = [memory.interval("chat", "m", WORKING, 4.5, 5, waited=4.5) for memory in (some, more)]
    assert intervals[1] > 1.5 * intervals[0]
    assert only(some).median_age < 5.5
    assert only(more).median_age > 8.0


def test_an_end_may_be_anywhere_between_two_polls() -> None:
    """An end seen late counts over the whole interval, not at the poll that saw it."""
    memory = new_memory()
    for _ in range(100):
        memory.record("chat", "m", WORKING, 0.0, 4.0, left=False)
        memory.record("chat", "m", WORKING, 4.0, 8.0, left=True)
    assert 5.0 < only(memory).median_age < 7.0
    assert 6.5 < only(memory).p90_age < 8.5


def test_the_part_of_a_bin_that_a_task_was_on_counts() -> None:
    """A task counts in a bin by the part of it that it was on: half of it where it left within, or came so far."""
    start, end = EDGES[60], EDGES[61]
    middle = (start + end) / 2
    left, on = HazardEstimate(), HazardEstimate()
    for _ in range(100):
        left.add(start, end, left=True)
        on.add(start, middle, left=False)
    assert [left.ended[60], left.exposure[60]] == pytest.approx([100, 50])
    assert [on.ended[60], on.exposure[60]] == pytest.approx([0, 50])
    left.update(1.0)
    assert left.survival(end) / left.survival(start) == pytest.approx(math.exp(-(100 + PRIOR) / (50 + 1)))


def test_the_queue_gets_few_polls_where_the_work_is_seen() -> None:
    """Queue and work of one length: where work is seen, the queue's end delays nothing, and most polls go to the work;
    where half of the tasks end without having been seen at work, most go to the queue."""
    rng = random.Random(1)
    lengths = [(10 * rng.lognormvariate(0, 0.3), 10 * rng.lognormvariate(0, 0.3)) for _ in range(300)]
    seen, half_seen = new_memory(12), new_memory(12)
    follow(seen, lengths)
    follow(half_seen, [(queue, 0.001 if n % 2 else work) for n, (queue, work) in enumerate(lengths)])
    waiting, working = (learned.polls for learned in seen.report())
    assert working > 1.6 * waiting
    waiting, working = (learned.polls for learned in half_seen.report())
    assert waiting > 1.4 * working


def test_what_is_reported_is_what_is_done() -> None:
    """The intervals in the report are those of a task that is on for long, in the queue and at work after it."""
    rng = random.Random(1)
    memory = PacingMemory(Pacing.learned(6, max=1000.0, jitter=lambda span: span / 2))
    # Half of the tasks have no queue.
    follow(memory, [(40.0 * rng.uniform(0.9, 1.1) * (n % 2), 40.0 * rng.uniform(0.9, 1.1)) for n in range(300)])
    for learned in memory.report():
        queue = 0.0 if learned.phase == "waiting" else 0.5 * 40.0
        age, intervals = 0.0, []
        while age < 40.0:
            intervals.append(memory.interval("chat", "m", Phase(learned.phase), age, 99, waited=queue + age))
            age += intervals[-1]
        assert learned.longest_gap == pytest.approx(max(intervals), rel=0.05)


def test_what_was_never_seen_may_happen() -> None:
    """A task that is on for longer than all before it is asked for at a few hundredths of its age, as none is surer."""
    memory = PacingMemory(Pacing.learned(max=1000.0, jitter=none))
    for _ in range(100):
        memory.record("chat", "m", WORKING, 0.0, 58.0, left=False)
        memory.record("chat", "m", WORKING, 58.0, 62.0, left=True)
    for age in (120.0, 200.0, 400.0):
        assert memory.interval("chat", "m", WORKING, age, 0, waited=age) < 0.05 * age


def test_tasks_that_needed_too_many_polls_spoil_nothing() -> None:
    """Where `max` forced many more polls than were asked for, quicker tasks later take as many as were asked for."""
    memory = PacingMemory(Pacing.learned(max=1.0, jitter=none))
    for age, count in [(100.0, 60), (5.0, 300)]:
        for _ in range(count):
            memory.record("chat", "m", WORKING, 0.0, age - 0.1, left=False)
            memory.record("chat", "m", WORKING, age - 0.1, age + 0.1, left=True)
            memory.interval("chat", "m", WORKING, 0.0, 0, waited=0.0)
    assert only(memory).median_age == pytest.approx(5.0, rel=0.02)
    assert 1 + only(memory).polls == pytest.approx(10, rel=0.1)


def test_time_in_the_queue_allows_longer_intervals_at_work() -> None:
    """An interval is may be as long as half of what was waited in all, the queue before it included."""
    memory = PacingMemory(Pacing.learned(max=1000.0, jitter=none))
    for _ in range(100):
        memory.record("chat", "m", WORKING, 0.0, 58.0, left=False)
        memory.record("chat", "m", WORKING, 58.0, 62.0, left=True)
    queued, begun = (response("QUEUED"), response("PROCESSING"))
    late, early = AdaptivePacer(memory, "chat", 0.0), AdaptivePacer(memory, "chat", 0.0)
    late.interval(queued, 0, 0.0)
    late.interval(queued, 1, 9.0)
    assert late.interval(begun, 0, 10.0) > early.interval(begun, 0, 0.0) + 4.0


def test_each_phase_has_its_clock() -> None:
    """Work is learned from its own start, however long the queue was, and both phases share the polls asked for."""
    rng = random.Random(1)
    durations = [(rng.expovariate(1 / 15), 8 * rng.lognormvariate(0, 0.1)) for _ in range(300)]
    memory = new_memory(12)
    found = follow(memory, durations)[100:]
    waiting, working = memory.report()
    assert (waiting.phase, working.phase) == ("waiting", "working")
    assert waiting.median_age == pytest.approx(15 * 0.69, rel=0.3)
    assert 5 < working.median_age < 8  # the queue's end is seen a little late
    assert working.median_age < working.p90_age < 9
    assert 1 + waiting.polls + working.polls == pytest.approx(12, rel=0.1)
    assert mean_polls(found) == pytest.approx(12, rel=0.15)


def test_a_queue_that_hides_the_work_is_watched_closely() -> None:
    """Where tasks end without having been seen at work, the queue's end is the result, and gets the polls."""
    rng = random.Random(1)
    queues = [rng.uniform(5, 10) for _ in range(300)]
    hidden = follow(new_memory(), [(queue, 0.001) for queue in queues])[200:]
    plain = follow(PacingMemory(Pacing(jitter=none)), [(queue, 0.001) for queue in queues])[200:]
    assert mean_polls(hidden) == pytest.approx(10, rel=0.15)
    assert mean_delay(hidden) < 0.6 * mean_delay(plain)


def test_the_report_is_plain_numbers() -> None:
    """The report says of each phase how many ends were seen, how long it lasts, and how it is polled."""
    memory = new_memory(8)
    for _ in range(100):
        memory.record("chat", "m", WORKING, 0.0, 4.9, left=False)
        memory.record("chat", "m", WORKING, 4.9, 5.1, left=True)
    learned = only(memory)
    assert (learned.kind, learned.model, learned.phase) == ("chat", "m", "working")
    assert learned.ends == pytest.approx(100, rel=0.3)
    assert learned.ends < 100  # the older ones count less
    assert learned.median_age == pytest.approx(5.0, rel=0.05)
    assert learned.p90_age == pytest.approx(5.1, rel=0.05)
    assert learned.polls == pytest.approx(7, rel=0.1)
    assert 0.1 <= learned.shortest_gap < 0.3 < learned.longest_gap < 3.5
    assert learned == only(memory)


def test_only_an_eighth_of_a_learned_interval_is_random() -> None:
    """The random part is drawn by `jitter`, and makes a learned interval at most an eighth shorter."""
    intervals = []
    for jitter in (none, all_of_it):
        memory = new_memory(jitter=jitter)
        for _ in range(100):
            memory.record("chat", "m", WORKING, 0.0, 4.9, left=False)
            memory.record("chat", "m", WORKING, 4.9, 5.1, left=True)
        intervals.append(memory.interval("chat", "m", WORKING, 1.0, 1, waited=1.0))
    assert intervals[1] == pytest.approx(intervals[0] * 7 / 8)


def test_memory_is_bounded() -> None:
    """However many models a service names and however many tasks end, what is kept stays small; the newest names are kept."""  # noqa: E501
    memory = new_memory()
    for n in range(2_000):
        memory.record("chat", f"model {n}", WORKING, 0.0, 1.0, left=True)
        memory.record("chat", "in use", WORKING, 0.0, 1.0, left=True)
        if n % 100 == 0:
            memory.interval("chat", "in use", WORKING, 0.0, 0, waited=0.0)
    models = [learned.model for learned in memory.report()]
    assert len(models) == MAX_MODELS
    assert set(models) == {"in use", *(f"model {n}" for n in range(2_000 - MAX_MODELS + 1, 2_000))}
    (used,) = [learned for learned in memory.report() if learned.model == "in use"]
    assert MEMORY_TASKS / 2 < used.ends < 2 * MEMORY_TASKS  # heard of all the time, it was never forgotten
    memory.record("chat", "x" * 1_000_000, WORKING, 0.0, 1.0, left=True)
    assert max(len(learned.model) for learned in memory.report()) == 100
    (estimate, _) = next(iter(memory._statistics.values())).phases.values()
    assert len(estimate.ended) == len(estimate.exposure) == BINS


def test_ages_past_all_bins_are_harmless() -> None:
    """A task that is on for days is polled at `max`, and nothing of it is counted."""
    memory = new_memory()
    follow(memory, about(20.0, 30))
    memory.record("chat", "m", WORKING, 1e6, 1e6 + 10, left=False)
    memory.record("chat", "m", WORKING, 1e6 + 10, 1e6 + 20, left=True)
    assert only(memory).median_age == pytest.approx(20.0, rel=0.1)
    assert memory.interval("chat", "m", WORKING, 1e6, 50, waited=1e6) == 10.0


@pytest.mark.parametrize(
    ("status", "before", "phase"),
    [
        *(("CREATED", None, WAITING), ("QUEUED", None, WAITING), ("POSTPONED", WORKING, WAITING)),
        *(("ASSIGNED_CONNECTIONS", None, WORKING), ("PROCESSING", WAITING, WORKING)),
        *(("NEW", None, WAITING), ("NEW", WAITING, WAITING), ("NEW", WORKING, WORKING)),
    ],
)
def test_the_phase_of_a_status(status: str, before: Phase | None, phase: Phase) -> None:
    """Before a task is assigned it waits, from then on it works, and an unknown status changes nothing."""
    assert Phase.of(TaskStatus(status), before) is phase


# Through the public face.


@pytest.mark.looptime
async def test_a_client_learns_from_the_tasks_that_it_follows(emulator: Emulator) -> None:
    """Once a client has seen tasks of a kind and model end, it polls the next ones when they are about to."""

    async def delays_of(client: DistributeClient, count: int) -> list[float]:
        rng = random.Random(count)
        delays = []
        for _ in range(count):
            end = 6.0 + 20.0 * rng.lognormvariate(0, 0.03)
            began = now()
            await client.wait_for_result(emulator.add_task([(0, "QUEUED"), (6, "PROCESSING"), (end, "COMPLETED")]))
            delays.append(now() - began - end)
        return delays

    rng = random.Random(1)
    pacing = Pacing.learned(12, jitter=lambda span: rng.uniform(0, span))
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url, pacing=pacing) as client:
        assert client.pacing_report() == ()
        first = await delays_of(client, 10)
        await delays_of(client, 80)
        before = len(emulator.requests)
        later = await delays_of(client, 40)
        assert (len(emulator.requests) - before) / 40 < 14
        waiting, working = client.pacing_report()
        assert (waiting.kind, waiting.phase, working.phase) == ("chat", "waiting", "working")
        assert working.median_age == pytest.approx(20.0, rel=0.1)
        assert working.ends > 50
        # A fetch teaches nothing.
        for _ in range(30):
            await client.fetch(emulator.add_task([(0, "COMPLETED")]))
        assert client.pacing_report() == (waiting, working)
    assert statistics.mean(later) < statistics.mean(first) / 4
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url) as client:
        await delays_of(client, 5)
        assert client.pacing_report() == ()
