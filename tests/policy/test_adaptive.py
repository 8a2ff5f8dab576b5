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
from distribute_async._policy.adaptive import MEMORY, MOST_MODELS, Course, LearnedPacing, Learning, Phase
from distribute_async._policy.hazard import BINS, EDGES, PRIOR, Ages
from distribute_async.emulator import Emulator
from tests.waiting import now

WAITING, WORKING = Phase.WAITING, Phase.WORKING


def none(span: float) -> float:
    return 0.0


def all_of_it(span: float) -> float:
    return span


def new_learning(polls_per_task: float = 10.0, *, jitter: Callable[[float], float] = none) -> Learning:
    return Learning(Pacing.learned(polls_per_task, jitter=jitter))


def follow(learning: Learning, lives: Iterable[tuple[float, float]], model: str = "m") -> list[tuple[int, float]]:
    """Polls tasks that wait and work so long, one after another: each one's polls, and how late its end was seen."""
    found = []
    for waiting, working in lives:
        phase: Phase | None = None
        now = last = since = 0.0
        quiet = 0
        for polls in itertools.count(1):
            seen = WAITING if now < waiting else WORKING if now < waiting + working else None
            if phase is not None:
                learning.observed("chat", model, phase, last - since, now - since, left=seen is not phase)
            if seen is None:
                found.append((polls, now - waiting - working))
                break
            since, quiet = (since, quiet + 1) if seen is phase else (now, 0)
            phase, last = seen, now
            now += learning.interval("chat", model, seen, now - since, quiet, waited=now)
    return found


def about(seconds: float, count: int, *, spread: float = 0.1) -> list[tuple[float, float]]:
    """Lives without a queue, that work for about so long."""
    rng = random.Random(count)
    return [(0.0, seconds * rng.lognormvariate(0, spread)) for _ in range(count)]


def mean_polls(found: list[tuple[int, float]]) -> float:
    return statistics.mean(polls for polls, _ in found)


def mean_delay(found: list[tuple[int, float]]) -> float:
    return statistics.mean(delay for _, delay in found)


def cost(found: list[tuple[int, float]]) -> float:
    return mean_polls(found) * mean_delay(found)


def answer(status: str) -> ChatResult:
    return ChatResult(status=TaskStatus(status), created=0, model="m", choices=())


def only(learning: Learning) -> LearnedPacing:
    (learned,) = learning.report()
    return learned


@pytest.mark.parametrize("jitter", [none, all_of_it])
def test_a_cold_start_is_plain_backoff(jitter: Callable[[float], float]) -> None:
    """Until a task is seen to end, intervals are exactly those of plain backoff, running tasks or not."""
    learning, plain = new_learning(jitter=jitter), Pacing(jitter=jitter)
    expected = [plain.interval(n) for n in range(20)]
    assert [learning.interval("chat", "m", WORKING, 5.0, n, waited=5.0) for n in range(20)] == expected
    for n in range(100):
        learning.observed("chat", "m", WORKING, n, n + 1, left=False)
    assert [learning.interval("chat", "m", WORKING, 5.0, n, waited=5.0) for n in range(20)] == expected
    assert learning.report() == ()


def test_a_pacing_that_does_not_learn_stays_plain() -> None:
    """Without `polls_per_task` nothing is remembered, and intervals stay those of plain backoff."""
    learning = Learning(Pacing(jitter=none))
    found = follow(learning, about(20.0, 50))
    assert learning.report() == ()
    assert found == follow(Learning(Pacing(jitter=none)), about(20.0, 50))


def test_other_models_and_phases_are_learned_apart() -> None:
    """What is seen of one kind, model or phase changes nothing for another."""
    learning = new_learning()
    follow(learning, about(20.0, 100))
    plain = Pacing(jitter=none).interval(3)
    assert learning.interval("chat", "m", WORKING, 4.0, 3, waited=4.0) != plain
    assert learning.interval("chat", "other", WORKING, 4.0, 3, waited=4.0) == plain
    assert learning.interval("images", "m", WORKING, 4.0, 3, waited=4.0) == plain
    assert learning.interval("chat", "m", WAITING, 4.0, 3, waited=4.0) == plain


@pytest.mark.parametrize("asked", [10, 20])
def test_polls_go_where_tasks_end(asked: float) -> None:
    """Once learned, tasks take about the polls asked for, and their ends are seen much earlier than by backoff."""
    lives = about(20.0, 200)
    learned = follow(new_learning(asked), lives)[100:]
    plain = follow(Learning(Pacing(jitter=none)), lives)[100:]
    assert mean_polls(learned) == pytest.approx(asked, rel=0.15)
    assert cost(learned) < 0.3 * cost(plain)


def test_trust_grows_with_the_ends_seen() -> None:
    """From plain backoff to what was learned there is no jump: each end seen moves the interval a little."""
    learning = new_learning()
    intervals = []
    for n in range(40):
        intervals.append(learning.interval("chat", "m", WORKING, 19.5, 12, waited=19.5))
        learning.observed("chat", "m", WORKING, 0.0, 19.0 + n % 4 / 2, left=False)
        learning.observed("chat", "m", WORKING, 19.0 + n % 4 / 2, 19.5 + n % 4 / 2, left=True)
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
    """A gap is at least `floor`, at most `max`, and at most `initial` plus half of what was waited and is usual."""
    asked, floor, most = numbers
    pacing = Pacing.learned(asked, floor=floor, max=most, jitter=jitter)
    learning = Learning(pacing)
    for where, earlier, gap, left in seen:
        learning.observed("chat", "m", where, earlier, earlier + gap, left=left)
    gap = learning.interval("chat", "m", phase, age, 5, waited=before + age)
    assert floor <= gap <= max(floor, most)
    for learned in learning.report():
        assert 0 < learned.median_age <= learned.p90_age
        assert floor <= learned.shortest_gap <= learned.longest_gap <= max(floor, most)
        if learned.phase == phase:
            assert gap <= max(floor, pacing.initial + (before + age + learned.median_age) / 2)


def test_a_first_gap_is_half_of_what_is_usual() -> None:
    """However sure it is, no gap is longer than `initial` plus half of what was waited and is usual, blended or not."""
    sure, unsure = Learning(Pacing.learned(max=1000.0, jitter=none)), new_learning()
    for _ in range(100):
        sure.observed("chat", "m", WORKING, 0.0, 58.0, left=False)
        sure.observed("chat", "m", WORKING, 58.0, 62.0, left=True)
    gaps = [sure.interval("chat", "m", WORKING, 0.0, 0, waited=waited) for waited in (0.0, 5.0)]
    assert 20.0 < gaps[0] <= 0.5 + 60.0 / 2
    assert gaps[1] == pytest.approx(gaps[0] + 5.0 / 2)
    for _ in range(5):
        unsure.observed("chat", "m", WORKING, 0.0, 0.9, left=False)
        unsure.observed("chat", "m", WORKING, 0.9, 1.1, left=True)
    assert unsure.interval("chat", "m", WORKING, 0.0, 30, waited=0.0) <= 0.5 + 1.0 / 2


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_drift_is_followed(factor: float) -> None:
    """When tasks come to take three times as long, or a third, backoff is no better even then, and soon worse."""
    learning = new_learning()
    follow(learning, about(20.0, 200))
    assert only(learning).median_age == pytest.approx(20.0, rel=0.1)
    lives = about(20.0 * factor, 300)
    found, plain = follow(learning, lives), follow(Learning(Pacing(jitter=none)), lives)
    assert only(learning).median_age == pytest.approx(20.0 * factor, rel=0.15)
    assert cost(found[:100]) < cost(plain[:100])
    assert cost(found[200:]) < 0.3 * cost(plain[200:])


def test_a_wrong_model_costs_little() -> None:
    """Tasks that take a twentieth of what others did are seen at most `max` late, and soon as early as by backoff."""
    learning = new_learning()
    follow(learning, about(60.0, 200))
    lives = about(3.0, 200)
    found, plain = follow(learning, lives), follow(Learning(Pacing(jitter=none)), lives)
    assert all(delay < 10.0 for _, delay in found)
    assert cost(found[100:]) < cost(plain[100:])


def test_running_tasks_count() -> None:
    """Tasks that were on at an age and did not end make an end there less likely, poll by poll, before any ends."""
    some, more = new_learning(), new_learning()
    for learning in (some, more):
        for n in range(50):
            learning.observed("chat", "m", WORKING, 0.0, 4.0, left=False)
            learning.observed("chat", "m", WORKING, 4.0, 5.0 + n % 5 / 10, left=True)
        learning.interval("chat", "m", WORKING, 0.0, 0, waited=0.0)
    for _ in range(500):
        more.observed("chat", "m", WORKING, 0.0, 8.0, left=False)
    gaps = [learning.interval("chat", "m", WORKING, 4.5, 5, waited=4.5) for learning in (some, more)]
    assert gaps[1] > 1.5 * gaps[0]
    assert only(some).median_age < 5.5
    assert only(more).median_age > 8.0


def test_an_end_may_be_anywhere_between_two_polls() -> None:
    """An end seen late counts over the whole gap, not at the poll that saw it."""
    learning = new_learning()
    for _ in range(100):
        learning.observed("chat", "m", WORKING, 0.0, 4.0, left=False)
        learning.observed("chat", "m", WORKING, 4.0, 8.0, left=True)
    assert 5.0 < only(learning).median_age < 7.0
    assert 6.5 < only(learning).p90_age < 8.5


def test_the_part_of_a_bin_that_a_task_was_on_counts() -> None:
    """A task counts in a bin by the part of it that it was on: half of it where it left within, or came so far."""
    start, end = EDGES[60], EDGES[61]
    middle = (start + end) / 2
    left, on = Ages(), Ages()
    for _ in range(100):
        left.add(start, end, left=True)
        on.add(start, middle, left=False)
    assert [left.ended[60], left.passed[60]] == pytest.approx([100, 50])
    assert [on.ended[60], on.passed[60]] == pytest.approx([0, 50])
    left.learn(1.0)
    assert left.still_on(end) / left.still_on(start) == pytest.approx(math.exp(-(100 + PRIOR) / (50 + 1)))


def test_the_queue_gets_few_polls_where_the_work_is_seen() -> None:
    """Queue and work of one length: where work is seen, the queue's end delays nothing, and most polls go to the work;
    where half of the tasks end without having been seen at work, most go to the queue."""
    rng = random.Random(1)
    lengths = [(10 * rng.lognormvariate(0, 0.3), 10 * rng.lognormvariate(0, 0.3)) for _ in range(300)]
    seen, half_seen = new_learning(12), new_learning(12)
    follow(seen, lengths)
    follow(half_seen, [(queue, 0.001 if n % 2 else work) for n, (queue, work) in enumerate(lengths)])
    waiting, working = (learned.polls for learned in seen.report())
    assert working > 1.6 * waiting
    waiting, working = (learned.polls for learned in half_seen.report())
    assert waiting > 1.4 * working


def test_what_is_reported_is_what_is_done() -> None:
    """The gaps in the report are those of a task that is on for long, in the queue and at work after it."""
    rng = random.Random(1)
    learning = Learning(Pacing.learned(6, max=1000.0, jitter=lambda span: span / 2))
    # Half of the tasks have no queue.
    follow(learning, [(40.0 * rng.uniform(0.9, 1.1) * (n % 2), 40.0 * rng.uniform(0.9, 1.1)) for n in range(300)])
    for learned in learning.report():
        queue = 0.0 if learned.phase == "waiting" else 0.5 * 40.0
        age, gaps = 0.0, []
        while age < 40.0:
            gaps.append(learning.interval("chat", "m", Phase(learned.phase), age, 99, waited=queue + age))
            age += gaps[-1]
        assert learned.longest_gap == pytest.approx(max(gaps), rel=0.05)


def test_what_was_never_seen_may_happen() -> None:
    """A task that is on for longer than all before it is asked for at a few hundredths of its age, as none is surer."""
    learning = Learning(Pacing.learned(max=1000.0, jitter=none))
    for _ in range(100):
        learning.observed("chat", "m", WORKING, 0.0, 58.0, left=False)
        learning.observed("chat", "m", WORKING, 58.0, 62.0, left=True)
    for age in (120.0, 200.0, 400.0):
        assert learning.interval("chat", "m", WORKING, age, 0, waited=age) < 0.05 * age


def test_tasks_that_needed_too_many_polls_spoil_nothing() -> None:
    """Where `max` forced many more polls than were asked for, quicker tasks later take as many as were asked for."""
    learning = Learning(Pacing.learned(max=1.0, jitter=none))
    for age, count in [(100.0, 60), (5.0, 300)]:
        for _ in range(count):
            learning.observed("chat", "m", WORKING, 0.0, age - 0.1, left=False)
            learning.observed("chat", "m", WORKING, age - 0.1, age + 0.1, left=True)
            learning.interval("chat", "m", WORKING, 0.0, 0, waited=0.0)
    assert only(learning).median_age == pytest.approx(5.0, rel=0.02)
    assert 1 + only(learning).polls == pytest.approx(10, rel=0.1)


def test_time_in_the_queue_allows_longer_gaps_at_work() -> None:
    """A gap may be as long as half of what was waited in all, the queue before it included."""
    learning = Learning(Pacing.learned(max=1000.0, jitter=none))
    for _ in range(100):
        learning.observed("chat", "m", WORKING, 0.0, 58.0, left=False)
        learning.observed("chat", "m", WORKING, 58.0, 62.0, left=True)
    queued, begun = (answer("QUEUED"), answer("PROCESSING"))
    late, early = Course(learning, "chat", 0.0), Course(learning, "chat", 0.0)
    late.interval(queued, 0, 0.0)
    late.interval(queued, 1, 9.0)
    assert late.interval(begun, 0, 10.0) > early.interval(begun, 0, 0.0) + 4.0


def test_each_phase_has_its_clock() -> None:
    """Work is learned from its own start, however long the queue was, and both phases share the polls asked for."""
    rng = random.Random(1)
    lives = [(rng.expovariate(1 / 15), 8 * rng.lognormvariate(0, 0.1)) for _ in range(300)]
    learning = new_learning(12)
    found = follow(learning, lives)[100:]
    waiting, working = learning.report()
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
    hidden = follow(new_learning(), [(queue, 0.001) for queue in queues])[200:]
    plain = follow(Learning(Pacing(jitter=none)), [(queue, 0.001) for queue in queues])[200:]
    assert mean_polls(hidden) == pytest.approx(10, rel=0.15)
    assert mean_delay(hidden) < 0.6 * mean_delay(plain)


def test_the_report_is_plain_numbers() -> None:
    """The report says of each phase how many ends were seen, how long it lasts, and how it is polled."""
    learning = new_learning(8)
    for _ in range(100):
        learning.observed("chat", "m", WORKING, 0.0, 4.9, left=False)
        learning.observed("chat", "m", WORKING, 4.9, 5.1, left=True)
    learned = only(learning)
    assert (learned.kind, learned.model, learned.phase) == ("chat", "m", "working")
    assert learned.ends == pytest.approx(100, rel=0.3)
    assert learned.ends < 100  # the older ones count less
    assert learned.median_age == pytest.approx(5.0, rel=0.05)
    assert learned.p90_age == pytest.approx(5.1, rel=0.05)
    assert learned.polls == pytest.approx(7, rel=0.1)
    assert 0.1 <= learned.shortest_gap < 0.3 < learned.longest_gap < 3.5
    assert learned == only(learning)


def test_only_an_eighth_of_a_learned_gap_is_random() -> None:
    """The random part is drawn by `jitter`, and makes a learned gap at most an eighth shorter."""
    gaps = []
    for jitter in (none, all_of_it):
        learning = new_learning(jitter=jitter)
        for _ in range(100):
            learning.observed("chat", "m", WORKING, 0.0, 4.9, left=False)
            learning.observed("chat", "m", WORKING, 4.9, 5.1, left=True)
        gaps.append(learning.interval("chat", "m", WORKING, 1.0, 1, waited=1.0))
    assert gaps[1] == pytest.approx(gaps[0] * 7 / 8)


def test_memory_is_bounded() -> None:
    """However many models a service names and however many tasks end, what is kept stays small; the newest names are kept."""  # noqa: E501
    learning = new_learning()
    for n in range(2_000):
        learning.observed("chat", f"model {n}", WORKING, 0.0, 1.0, left=True)
        learning.observed("chat", "in use", WORKING, 0.0, 1.0, left=True)
        if n % 100 == 0:
            learning.interval("chat", "in use", WORKING, 0.0, 0, waited=0.0)
    models = [learned.model for learned in learning.report()]
    assert len(models) == MOST_MODELS
    assert set(models) == {"in use", *(f"model {n}" for n in range(2_000 - MOST_MODELS + 1, 2_000))}
    (used,) = [learned for learned in learning.report() if learned.model == "in use"]
    assert MEMORY / 2 < used.ends < 2 * MEMORY  # heard of all the time, it was never forgotten
    learning.observed("chat", "x" * 1_000_000, WORKING, 0.0, 1.0, left=True)
    assert max(len(learned.model) for learned in learning.report()) == 100
    (ages, _) = next(iter(learning._lives.values())).phases.values()
    assert len(ages.ended) == len(ages.passed) == BINS


def test_ages_past_all_bins_are_harmless() -> None:
    """A task that is on for days is polled at `max`, and nothing of it is counted."""
    learning = new_learning()
    follow(learning, about(20.0, 30))
    learning.observed("chat", "m", WORKING, 1e6, 1e6 + 10, left=False)
    learning.observed("chat", "m", WORKING, 1e6 + 10, 1e6 + 20, left=True)
    assert only(learning).median_age == pytest.approx(20.0, rel=0.1)
    assert learning.interval("chat", "m", WORKING, 1e6, 50, waited=1e6) == 10.0


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
        # A look at a task teaches nothing.
        for _ in range(30):
            await client.fetch(emulator.add_task([(0, "COMPLETED")]))
        assert client.pacing_report() == (waiting, working)
    assert statistics.mean(later) < statistics.mean(first) / 4
    async with DistributeClient(emulator.api_key, base_url=emulator.base_url) as client:
        await delays_of(client, 5)
        assert client.pacing_report() == ()
