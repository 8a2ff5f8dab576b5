"""The fault table over real sockets: each row is brought about, and must do what it says."""

from __future__ import annotations

import pytest

from distribute_async import APIResponseValidationError, NotFoundError, Retry, TaskStatus
from tests import misbehaving as bad
from tests.faults.cases import (
    GOOD,
    HTML,
    ID,
    QUEUED,
    Case,
    Scene,
    Stage,
    assert_is_of,
    cases,
    caught,
    new_client,
    now,
    rule_of,
    task,
)
from tests.faults.matrix import showing
from tests.misbehaving import Behaviour, MisbehavingServer
from tests.seams import RULES, Action, Rule


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.fault)
def test_every_row_has_a_test(rule: Rule) -> None:
    """No row of the fault table goes untested."""
    assert showing(rule)


def test_every_action_is_used() -> None:
    """The table names no action that no fault has."""
    assert {rule.action for rule in RULES} == set(Action)


@pytest.mark.looptime
@cases(Action.BACK_OFF, Action.CONNECT, Action.HOLD, Action.GRACE, Action.MALFORMED)
async def test_a_transient_fault_is_outlived(case: Case, stage: Stage) -> None:
    """Two such faults in a row end no wait: it backs off, asks again, and gets the result."""
    began = now()
    async with stage(case, 2) as scene:
        watch = scene.client.watch(ID)
        assert (await watch).text == "the answer"
    assert watch.history[-1].polls == 3  # each fault was counted as an attempt
    assert now() - began >= 0.375 + 0.75 + 2 * case.lasts - 0.001


@pytest.mark.looptime
@cases(Action.BACK_OFF, Action.HOLD)
async def test_a_fault_without_an_end_ends_the_wait(case: Case, stage: Stage) -> None:
    """A service that never recovers ends the wait `max_outage` after its first fault, with the typed error."""
    async with stage(case, None, retry=Retry(max_outage=60.0)) as scene:
        began = now()
        error = await caught(scene.client.wait_for_result(ID))
        took = now() - began
    assert_is_of(case, error)
    assert error.last_status is None
    assert error.attempts >= 3
    assert case.lasts + 60.0 - 0.001 <= took <= case.lasts + 60.0 + 2.1
    assert error.elapsed == pytest.approx(took)


@pytest.mark.looptime
@cases(*Action)
async def test_fetch_tries_so_many_times(case: Case, stage: Stage) -> None:
    """`fetch` tries `Retry.attempts` times where another attempt may help, and once where it can't, or after a 404."""
    async with stage(case, None, retry=Retry(attempts=2)) as scene:
        error = await caught(scene.client.fetch(ID))
    assert_is_of(case, error)
    expected = 1 if rule_of(case.fault).action in {Action.END, Action.GRACE} else 2
    assert error.attempts == expected
    if case.scene(None) == Scene((case.scene(None).script[0],)):
        assert len(scene.server.requests) == expected


@pytest.mark.looptime
@cases(Action.END)
async def test_a_fault_for_good_ends_the_wait_at_once(case: Case, stage: Stage) -> None:
    """Where asking again can't help, the wait ends with the typed error after one request."""
    async with stage(case, 1) as scene:
        began = now()
        error = await caught(scene.client.wait_for_result(ID))
        assert now() - began < 0.1
        assert len(scene.server.requests) == (0 if case.fault == "certificate" else 1)
        assert scene.server.connections == 1
    assert_is_of(case, error)
    assert error.attempts == 1


@pytest.mark.looptime
@cases(Action.MALFORMED)
async def test_three_broken_answers_end_the_wait(case: Case, stage: Stage) -> None:
    """Three answers in a row that the API can't mean are an API that changed: the wait ends with the third."""
    async with stage(case, None) as scene:
        error = await caught(scene.client.wait_for_result(ID))
        assert len(scene.server.requests) == 3
    assert_is_of(case, error)
    assert error.attempts == 3


@pytest.mark.looptime
@pytest.mark.parametrize(
    "between", [GOOD_ANSWER := QUEUED, bad.status(500), bad.good(HTML)], ids=["good", "500", "HTML"]
)
async def test_only_broken_answers_in_a_row_are_counted(between: Behaviour) -> None:
    """Anything else between broken answers starts their count afresh."""
    broken = bad.good({})
    async with (
        MisbehavingServer(broken, broken, between, broken, broken, GOOD) as server,
        new_client(server.url) as client,
    ):
        assert (await client.wait_for_result(ID)).text == "the answer"


@pytest.mark.looptime
async def test_different_broken_answers_are_counted_together() -> None:
    """A strange code, a wrong shape and a list are three strikes too."""
    script = (bad.status(202, task()), bad.good({}), bad.good([]))
    async with MisbehavingServer(*script, GOOD) as server, new_client(server.url) as client:
        error = await caught(client.wait_for_result(ID))
        assert len(server.requests) == 3
    assert isinstance(error, APIResponseValidationError)


@pytest.mark.looptime
async def test_a_404_is_believed_after_the_grace() -> None:
    """A 404 that stays the only answer ends the wait exactly when `not_found_grace` has passed."""
    missing = bad.status(404, {"message": "Not found"})
    async with MisbehavingServer(missing) as server, new_client(server.url) as client:
        began = now()
        error = await caught(client.wait_for_result(ID))
        assert server.times[-1] - server.times[0] == pytest.approx(3.0)
        assert now() - began == pytest.approx(3.0)
    assert isinstance(error, NotFoundError)
    assert error.message == "Not found"


@pytest.mark.looptime
async def test_another_fault_starts_the_grace_afresh() -> None:
    """The grace counts only while 404 is the only answer: a deploy may blink in both ways."""
    missing = bad.status(404)
    async with (
        MisbehavingServer(missing, missing, bad.status(500), missing) as server,
        new_client(server.url) as client,
    ):
        error = await caught(client.wait_for_result(ID))
        assert server.times[-1] - server.times[3] == pytest.approx(3.0)
    assert isinstance(error, NotFoundError)


@pytest.mark.looptime
async def test_a_404_after_a_good_answer_has_its_grace_too() -> None:
    """A task that was seen and vanishes ends after the grace, with the status last seen."""
    async with MisbehavingServer(QUEUED, bad.status(404)) as server, new_client(server.url) as client:
        error = await caught(client.wait_for_result(ID))
    assert isinstance(error, NotFoundError)
    assert error.last_status == TaskStatus.QUEUED


@pytest.mark.looptime
async def test_a_good_answer_starts_the_outage_afresh() -> None:
    """`max_outage` counts from the first fault after the last good answer."""
    down = bad.status(500)
    async with (
        MisbehavingServer(*[down] * 6, QUEUED, *[down] * 6, GOOD) as server,
        new_client(server.url, retry=Retry(max_outage=20.0)) as client,
    ):
        assert (await client.wait_for_result(ID)).text == "the answer"
        assert server.times[-1] - server.times[0] > 30.0
