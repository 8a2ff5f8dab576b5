"""What is logged: quiet by default, structured, and nothing that is anybody's business."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from distribute_async import NotFoundError, TaskFailedError
from tests import misbehaving as bad
from tests.misbehaving import MisbehavingServer
from tests.waiting import ID, KEY, body, caught, listed, new_client

SECRET = "what was said"


def answered(status: str) -> bad.Behaviour:
    message = {"role": "assistant", "content": SECRET}
    return bad.good(body(status, choices=[{"finish_reason": "stop", "index": 0, "message": message}], prompt=SECRET))


SCRIPT = [
    answered("CREATED"),
    bad.status(500, {"message": SECRET}),
    bad.status(429, Retry_After="5"),
    bad.raw(bad.answer(f"<p>{SECRET}</p>".encode())),
    *[bad.status(502)] * 6,
    answered("COMPLETED"),
]


async def play() -> None:
    async with MisbehavingServer(*SCRIPT) as server, new_client(server.url) as client:
        assert await client.wait_for_result(ID)


@pytest.mark.looptime
async def test_pauses_and_outages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is a warning, its end and a pause are information, and the seconds are in the record's own fields."""
    caplog.set_level(logging.INFO, "distribute_async")
    await play()
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("distribute_async", "INFO"),
        ("distribute_async", "WARNING"),
        ("distribute_async", "INFO"),
    ]
    pause, _, back = (vars(record) for record in caplog.records)
    assert pause["distribute_pause"] == 5.0
    assert back["distribute_outage"] > 5.0


@pytest.mark.looptime
async def test_changes_and_faults_are_logged_for_those_who_look_for_them(caplog: pytest.LogCaptureFixture) -> None:
    """On DEBUG each new status and each failed exchange has a record with the task and what happened in fields."""
    caplog.set_level(logging.DEBUG, "distribute_async")
    await play()
    records = [vars(record) for record in caplog.records if record.levelno == logging.DEBUG]
    assert {record["distribute_task_id"] for record in records} == {ID}
    assert {record["distribute_kind"] for record in records} == {"chat"}
    assert [record["distribute_status"] for record in records if "distribute_status" in record] == [
        "CREATED",
        "COMPLETED",
    ]
    faults = [
        (record["distribute_fault"], record["distribute_attempt"]) for record in records if "distribute_fault" in record
    ]
    assert faults[:3] == [("500", 2), ("429", 3), ("not_json", 4)]
    assert {fault for fault, _ in faults[3:]} == {"502"}


@pytest.mark.looptime
async def test_no_record_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the key nor a prompt, an answer or the service's own words are in any record, and no id in its text."""
    caplog.set_level(logging.DEBUG, "distribute_async")
    await play()
    async with MisbehavingServer(bad.status(404, {"message": SECRET})) as server, new_client(server.url) as client:
        await caught(client.wait_for_result(ID), NotFoundError)
    async with MisbehavingServer(answered("ERROR")) as server, new_client(server.url) as client:
        await caught(client.watch(ID), TaskFailedError)
        await listed(client.watch(ID))
    ours = [record for record in caplog.records if record.name.startswith("distribute_async")]
    assert len(ours) > 10
    for record in ours:
        shown = logging.Formatter().format(record) + repr(vars(record))
        assert KEY not in shown
        assert SECRET not in shown
        assert ID not in record.getMessage()


@pytest.mark.looptime
async def test_fields_of_an_application_s_own_are_in_nobody_s_way(caplog: pytest.LogCaptureFixture) -> None:
    """An application whose records have fields such as `task_id` already is not harmed."""
    plain = logging.getLogRecordFactory()

    def factory(*arguments: object, **named: object) -> logging.LogRecord:
        record = plain(*arguments, **named)
        record.task_id = record.status = record.kind = record.fault = "mine"
        return record

    caplog.set_level(logging.DEBUG, "distribute_async")
    logging.setLogRecordFactory(factory)
    try:
        await play()
    finally:
        logging.setLogRecordFactory(plain)
    assert {vars(record)["task_id"] for record in caplog.records if record.name == "distribute_async"} == {"mine"}


PROGRAM = """
import asyncio
from distribute_async import DistributeClient, Observer, Retry
from distribute_async.emulator import Emulator, fault

class Broken(Observer):
    def wait_started(self, wait):
        raise ValueError

async def main():
    async with Emulator() as emulator:
        task = emulator.add_task([(0, "COMPLETED")], faults=[fault.status(502)] * 6)
        retry = Retry(initial=0.001, factor=1.0)
        async with DistributeClient(
            emulator.api_key, base_url=emulator.base_url, retry=retry, observer=Broken()
        ) as client:
            await client.wait_for_result(task)
            print(client.stats().outcomes["502"])

asyncio.run(main())
"""


def test_nothing_is_written_where_nobody_asks() -> None:
    """A program that sets up no logging sees nothing of ours on its standard error, not even in an outage."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("6\n", "")


def test_the_logger_is_left_to_the_application() -> None:
    """The library's logger has no level and no handler that writes, and passes on what it gets."""
    logger = logging.getLogger("distribute_async")
    assert logger.level == logging.NOTSET
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    assert logger.propagate
