"""`result` and `watch`: what they print where, their exit codes, and how they end early."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from distribute_async import DistributeClient
from distribute_async.emulator import Emulator, fault
from tests.cli.conftest import API_KEY, DONE, NEVER, UNKNOWN_ID, Command, says, until


async def test_result_prints_the_text(emulator: Emulator, command: Command) -> None:
    """A completed task's text is all that `result` prints."""
    done = await command.here("result", emulator.add_task(DONE, text="Hello,\nworld: \u4f60\u597d"))
    assert (done.code, done.out, done.err) == (0, "Hello,\nworld: \u4f60\u597d\n", "")
    assert len(emulator.requests) == 1


async def test_result_prints_tool_calls(emulator: Emulator, command: Command) -> None:
    """Each tool call is one line, whatever line breaks the model put between its arguments."""
    calls = [("get_weather", '{\n  "city": "Utrecht"\n}'), ("stop", "{}")]
    done = await command.here("result", emulator.add_task(DONE, text="I look:", tool_calls=calls))
    assert (done.code, done.out) == (0, 'I look:\nget_weather({ "city": "Utrecht" })\nstop({})\n')


async def test_result_as_json_is_the_whole_answer(emulator: Emulator, command: Command) -> None:
    """`result --json` prints what the service sent, unknown fields included, as one line."""
    task_id = emulator.add_task(DONE, answer={"novel": ["\x1b", "\x7f"]})
    done = await command.here("result", "--json", task_id)
    async with DistributeClient(API_KEY, base_url=emulator.base_url) as client:
        assert json.loads(done.out) == (await client.fetch(task_id)).to_dict()
    assert (done.code, done.out.count("\n"), done.out.rstrip("\n").isprintable()) == (0, 1, True)


async def test_result_of_nothing_and_of_several_choices(emulator: Emulator, command: Command) -> None:
    """Where there is no text, or more than what is printed, stderr says so."""
    choice = {"finish_reason": "stop", "index": 0, "message": {"content": "one", "role": "assistant"}}
    several = emulator.add_task(DONE, answer={"choices": [choice, choice]})
    none = emulator.add_task(DONE, answer={"choices": []})
    first, second = await asyncio.gather(command.here("result", several), command.here("result", none))
    assert (first.code, first.out) == (0, "one\n")
    assert first.err == "This is the first of 2 choices: --json prints all.\n"
    assert (second.code, second.out, second.err) == (0, "", "The answer has no text.\n")


async def test_result_looks_once(emulator: Emulator, command: Command) -> None:
    """Of a task that goes on, `result` says how it stands and how to go on, and exits with 4."""
    task_id = emulator.add_task([(0, "POSTPONED")])
    done = await command.here("result", "--timeout", "5", task_id)
    assert (done.code, done.out, len(emulator.requests)) == (4, "", 1)
    assert done.err == (
        "The task hasn't ended: it is POSTPONED.\n"
        f"To go on waiting: distribute-async result --wait --timeout 5 {task_id}\n"
    )


async def test_result_waits_when_told(emulator: Emulator, command: Command) -> None:
    """With --wait, `result` outlives what comes on the way and prints the answer alone."""
    faults = [says("QUEUED"), fault.status(502), says("PROCESSING")]
    done = await command.here("result", "--wait", emulator.add_task(DONE, text="at last", faults=faults))
    assert (done.code, done.out, done.err) == (0, "at last\n", "")


@pytest.mark.parametrize("wait", [[], ["--wait"]])
async def test_result_of_a_failed_task(wait: list[str], emulator: Emulator, command: Command) -> None:
    """A task that ended in ERROR is exit code 3, and --json prints its last answer all the same."""
    task_id = emulator.add_task([(0, "ERROR")])
    plain, as_json = await asyncio.gather(
        command.here("result", *wait, task_id), command.here("result", *wait, "--json", task_id)
    )
    assert (plain.code, plain.out, as_json.code) == (3, "", 3)
    assert json.loads(as_json.out)["status"] == "ERROR"
    assert "the task ended in ERROR" in plain.err


async def test_watch_in_a_pipe(emulator: Emulator, command: Command) -> None:
    """In a pipe each transition is a line: id, seconds, status."""
    faults = [says("QUEUED"), says("NEW  WORD")]
    task_id = emulator.add_task(DONE, faults=faults)
    done = await command.here("watch", task_id, task_id)
    fields = [line.split(maxsplit=2) for line in done.out.splitlines()]
    assert [(name, status) for name, _, status in fields] == [
        (task_id, "QUEUED"),
        (task_id, "NEW WORD"),
        (task_id, "COMPLETED"),
    ]
    assert [float(seconds) for _, seconds, _ in fields] == sorted(float(seconds) for _, seconds, _ in fields)
    assert (done.code, done.err) == (0, "")


async def test_watch_as_json(emulator: Emulator, command: Command) -> None:
    """With --json there is an object for each transition, and one for each outcome, with stable keys."""
    good = emulator.add_task(DONE, text="yes", faults=[says("QUEUED")])
    bad = emulator.add_task([(0, "ERROR")])
    done = await command.here("watch", "--json", good, bad)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 3
    assert {tuple(event) for event in events} == {
        ("event", "task_id", "previous", "status", "elapsed", "polls"),
        ("event", "task_id", "status", "elapsed", "polls", "result", "error"),
    }
    of_good = [event for event in events if event["task_id"] == good]
    assert [(event["event"], event["status"], event["polls"]) for event in of_good] == [
        ("transition", "QUEUED", 1),
        ("transition", "COMPLETED", 2),
        ("outcome", "COMPLETED", 2),
    ]
    assert (of_good[1]["previous"], of_good[-1]["error"]) == ("QUEUED", None)
    assert of_good[-1]["result"]["choices"][0]["message"]["content"] == "yes"
    failed = [event for event in events if event["task_id"] == bad][-1]
    assert (failed["result"]["status"], failed["error"]["type"]) == ("ERROR", "TaskFailedError")


async def test_the_worst_outcome_decides(emulator: Emulator, command: Command) -> None:
    """Of several tasks, trouble comes before a failed one, and that before one that hasn't ended in time."""
    good = emulator.add_task(DONE)
    failed = emulator.add_task([(0, "ERROR")])
    slow = emulator.add_task([(0, "QUEUED")])
    refused = emulator.add_task(DONE, faults=[fault.status(403)])
    sets = [(good,), (good, slow), (good, slow, failed), (good, slow, failed, refused)]
    runs = await asyncio.gather(*(command("watch", "--timeout", "1", *ids) for ids in sets))
    assert [done.code for done in runs] == [0, 4, 3, 1]
    assert runs[1].err.endswith(f"\nTo go on waiting: distribute-async watch --timeout 1 {slow}\n")
    assert "HTTP 403" in runs[3].err


@pytest.mark.parametrize("args", [["watch"], ["result", "--wait"]])
async def test_a_service_out_of_reach(args: list[str], command: Command) -> None:
    """A wait that times out while the service is down is exit code 4, and says what is the matter."""
    command.env["DISTRIBUTE_BASE_URL"] = "http://127.0.0.1:1"
    done = await command.here(*args, "--timeout", "0.5", UNKNOWN_ID)
    assert (done.code, done.out) == (4, "")
    assert "the last fault was: can't connect" in done.err


async def test_trouble_with_the_service(emulator: Emulator, command: Command) -> None:
    """An unknown task and a refused key are exit code 1, with words that name the command's own options."""
    unknown = await command.here("result", UNKNOWN_ID)
    assert (unknown.code, unknown.out) == (1, "")
    assert "HTTP 404" in unknown.err
    assert "--base-url" in unknown.err
    command.env["DISTRIBUTE_API_KEY"] = "f" * 32
    refused = await command.here("watch", UNKNOWN_ID)
    assert (refused.code, refused.out) == (1, "")
    assert "HTTP 401" in refused.err
    assert "--api-key-file" in refused.err
    assert "f" * 32 not in refused.err


_ALL = [["check"], ["submit", "Why?"], *([name, UNKNOWN_ID] for name in ("result", "watch", "wait"))]


@pytest.mark.parametrize(
    ("args", "env", "words"),
    [
        (["watch"], {}, "Missing argument"),
        (["watch", UNKNOWN_ID, UNKNOWN_ID + "\n"], {}, "a version 4 UUID"),
        (["result", "\x1b[31m"], {}, r"'\x1b[31m'"),
        (["result", "--timeout", "-1", UNKNOWN_ID], {}, "--timeout"),
        *[([*args, "--timeout", "nan"], {}, "'--timeout': 'nan' is not a number") for args in _ALL],
        (["result", UNKNOWN_ID], {"DISTRIBUTE_API_KEY": ""}, "set DISTRIBUTE_API_KEY, or give --api-key-file"),
        (["result", UNKNOWN_ID], {"DISTRIBUTE_API_KEY": "k\u00e9y"}, "must be visible ASCII"),
        (["result", "--api-key-file", "/nowhere", UNKNOWN_ID], {}, "/nowhere"),
        (["result", "--base-url", "http://example.com", UNKNOWN_ID], {}, "--allow-insecure"),
        (["result", "--api-key", "x", UNKNOWN_ID], {}, "No such option"),
        (["reslt"], {}, "No such command"),
    ],
)
async def test_wrong_usage(
    args: list[str], env: dict[str, str], words: str, emulator: Emulator, command: Command
) -> None:
    """What can't work is exit code 2 with words that say why, before anything is sent."""
    command.env |= env
    done = await command.here(*args)
    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert words in done.err


async def test_wrong_usage_sends_nothing(emulator: Emulator, command: Command) -> None:
    """One bad id among good ones is exit code 2 before anything is sent."""
    done = await command.here("watch", emulator.add_task(DONE), UNKNOWN_ID + "\n")
    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert "a version 4 UUID" in done.err


async def test_the_key_from_a_file(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """The key can come from a file or standard input, its first line, and goes before the environment's."""
    command.env["DISTRIBUTE_API_KEY"] = "not the key"
    file = tmp_path / "key"
    file.write_text(f"{API_KEY}\nmore\n")
    task_id = emulator.add_task(DONE, text="yes")
    from_file, from_stdin = await asyncio.gather(
        command.here("result", "--api-key-file", str(file), task_id),
        command.here("result", "--api-key-file", "-", task_id, stdin=API_KEY),
    )
    assert (from_file.code, from_file.out) == (from_stdin.code, from_stdin.out) == (0, "yes\n")


@pytest.mark.parametrize("args", [["watch", "--json"], ["result", "--wait"]])
async def test_ctrl_c(args: list[str], emulator: Emulator, command: Command) -> None:
    """Ctrl-C ends a wait at once with 130, and prints the command that goes on with what hasn't ended."""
    slow = emulator.add_task([(0, "QUEUED"), (NEVER, "COMPLETED")])
    ids = [slow] if args[0] == "result" else [emulator.add_task(DONE), slow]
    url = command.env.pop("DISTRIBUTE_BASE_URL")
    process = await command.start(*args, "--base-url", url, *ids)
    await until(lambda: any(request.task_id == slow and request.status for request in emulator.requests))
    if len(ids) > 1:
        assert process.stdout
        while (line := await process.stdout.readline()) and ids[0].encode() not in line:
            pass
    process.send_signal(signal.SIGINT)
    done = await command.finish(process)
    going_on = shlex.join(["distribute-async", *args, "--base-url", url, slow])
    assert (done.code, done.err) == (130, f"To go on waiting: {going_on}\n")


@pytest.mark.parametrize("args", [["result"], ["watch"]])
async def test_a_closed_pipe(args: list[str], emulator: Emulator, command: Command) -> None:
    """Who stops reading ends the command quietly, with the code that SIGPIPE would give."""
    reader, writer = os.pipe()
    os.close(reader)
    others = [emulator.add_task(DONE) for _ in range(3)] if args[0] == "watch" else []
    done = await command(*args, emulator.add_task(DONE), *others, stdout=writer)
    os.close(writer)
    assert (done.code, done.err) == (141, "")


async def test_a_text_that_no_encoding_takes(emulator: Emulator, command: Command) -> None:
    """A lone surrogate in an answer, or a pipe that takes ASCII only, is spelt out instead of ending in an error."""
    command.env |= {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = await command("result", emulator.add_task(DONE, text="\ud800 caf\u00e9"))
    assert (done.code, done.out) == (0, "\\ud800 caf\\xe9\n")
