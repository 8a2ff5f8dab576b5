"""`submit`: what it sends, what it prints where, and what it says when nobody can know."""

from __future__ import annotations

import io
import json
import re
import signal
import wave
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from distribute_async import DistributeClient
from distribute_async.emulator import Emulator, fault
from tests.cli.conftest import API_KEY, DONE, Command, names_in, until
from tests.emulator.test_files import pixels

ID = r"[0-9a-f]{8}-[0-9a-f-]{27}"


class Recording(Emulator):
    """Keeps what its tasks were created from; all of them are COMPLETED at once, unless a fate says otherwise."""

    def __init__(self) -> None:
        super().__init__(API_KEY)
        self.bodies: list[Mapping[str, Any]] = []

    def add_task(self, *args: Any, **script: Any) -> str:
        self.bodies.append(script["request"])
        return super().add_task(*args, **{"timeline": DONE, **script})


@pytest.fixture
async def emulator() -> AsyncIterator[Recording]:
    async with Recording() as emulator:
        yield emulator


async def test_submit_prints_the_id(emulator: Recording, command: Command) -> None:
    """The id of the new task is all that `submit` prints, in JSON with --json, and it has asked for nothing more."""
    plain, as_json = await command.here("submit", "Why?"), await command.here("submit", "--json", "Why?")
    assert re.fullmatch(f"{ID}\n", plain.out)
    assert list(json.loads(as_json.out)) == ["id", "kind"]
    assert (plain.code, plain.err, as_json.code, as_json.err, len(emulator.requests)) == (0, "", 0, "", 2)
    async with DistributeClient(API_KEY, base_url=emulator.base_url) as client:
        for task_id in (plain.out.strip(), json.loads(as_json.out)["id"]):
            assert (await client.fetch(task_id)).text


async def test_what_is_sent(emulator: Recording, command: Command) -> None:
    """The prompt, the options and each --field are the request: JSON as its value, and what is no JSON as a text."""
    options = ["--model", "m", "--system", "Be brief.", "--temperature", "0.5", "--max-tokens", "50"]
    fields = ["--field", "seed=7", "--field", 'stop=["."]', "--field", "service_tier=a=b"]
    assert (await command.here("submit", *options, *fields, "-", stdin="Why?\nNow?\n")).code == 0
    assert (await command.here("submit", "--kind", "images", "--field", "size=64x48", "A fox")).code == 0
    assert (await command.here("submit", "--kind", "speech", "--temperature", "0.1", "Hello")).code == 0
    assert emulator.bodies == [
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?\nNow?"}],
            "model": "m",
            "temperature": 0.5,
            "max_completion_tokens": 50,
            "seed": 7,
            "stop": ["."],
            "service_tier": "a=b",
        },
        {"prompt": "A fox", "model": "Flux.1 [dev]", "size": "64x48"},
        {"input": "Hello", "model": "Chatterbox", "temperature": 0.1},
    ]


async def test_submit_and_wait(emulator: Recording, command: Command, tmp_path: Path) -> None:
    """With --wait the answer is all on stdout, or in the file of --output, and stderr has the id."""
    emulator.fates.extend([{"text": "Because."}] * 3)
    text = tmp_path / "answer.txt"
    plain = await command.here("submit", "--wait", "Why?")
    as_json = await command.here("submit", "--wait", "--json", "Why?")
    saved = await command.here("submit", "--output", str(text), "Why?")
    assert (plain.out, saved.out, text.read_text()) == ("Because.\n", f"{text}\n", "Because.\n")
    assert json.loads(as_json.out)["choices"][0]["message"]["content"] == "Because."
    for done in (plain, as_json, saved):
        assert done.code == 0
        assert re.fullmatch(f"Task {ID}\n", done.err)


async def test_pictures_and_sounds(command: Command, tmp_path: Path) -> None:
    """What a task makes is saved, each of several pictures under its own name, and opens."""
    picture, sound = tmp_path / "fox.png", tmp_path / "hello.wav"
    options = ["--kind", "images", "--field", "size=64x48", "--field", "n=2"]
    drawn = await command.here("submit", *options, "--output", str(picture), "A fox")
    said = await command.here("submit", "--kind", "speech", "--json", "--output", str(sound), "Hello")
    assert (drawn.code, drawn.out) == (0, f"{picture}\n{tmp_path / 'fox-2.png'}\n")
    for file in (picture, tmp_path / "fox-2.png"):
        assert pixels(file.read_bytes())[:2] == (64, 48)
    assert (said.code, json.loads(said.out)["model"], said.err.splitlines()[1:]) == (0, "Chatterbox", [str(sound)])
    with wave.open(io.BytesIO(sound.read_bytes())) as opened:
        assert opened.getnframes() == opened.getframerate()
    assert names_in(tmp_path) == ["fox-2.png", "fox.png", "hello.wav"]


async def test_how_to_go_on_with_what_was_submitted(emulator: Recording, command: Command, tmp_path: Path) -> None:
    """A task that doesn't end in time is exit code 4, and the hint waits for it, instead of submitting another."""
    emulator.fates.append({"timeline": [(0, "QUEUED")]})
    file = str(tmp_path / "fox.png")
    done = await command.here("submit", "--kind", "images", "--timeout", "0.3", "--output", file, "A fox")
    task_id = done.err.split()[1]
    assert (done.code, done.out) == (4, "")
    assert done.err.splitlines()[-1] == (
        f"To go on waiting: distribute-async result --kind images --wait --output {file} --timeout 0.3 {task_id}"
    )


async def test_nobody_can_know(emulator: Recording, command: Command) -> None:
    """Where the answer is lost, nothing is sent again; exit code 6, and stderr says what that means and what to do."""
    emulator.faults.append(fault.cut())
    done = await command.here("submit", "Why?")
    assert (done.code, done.out, len(emulator.requests)) == (6, "", 1)
    assert done.err.startswith("Error: a task may have been created or not")
    assert "give the command again" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_signal_while_submitting(
    number: signal.Signals, code: int, emulator: Recording, command: Command
) -> None:
    """A signal before the answer says that there may be a task; after it, how to go on waiting for it."""
    emulator.faults.append(fault.silence())
    process = await command.start("submit", "--wait", "Why?")
    await until(lambda: bool(emulator.requests))
    process.send_signal(number)
    unknown = await command.finish(process)
    assert (unknown.code, unknown.out) == (code, "")
    assert unknown.err.startswith("A task may have been created or not")
    assert "give the command again" in unknown.err
    emulator.fates.append({"timeline": [(0, "QUEUED")]})
    process = await command.start("submit", "--wait", "Why?")
    await until(lambda: len(emulator.requests) > 2)
    process.send_signal(number)
    known = await command.finish(process)
    task_id = known.err.split()[1]
    assert (known.code, known.out) == (code, "")
    assert known.err == f"Task {task_id}\nTo go on waiting: distribute-async result --wait {task_id}\n"


async def test_refused(emulator: Recording, command: Command) -> None:
    """What the service refuses is exit code 1 with the service's own words; a failed task is 3."""
    emulator.fates.append({"timeline": [(0, "ERROR")]})
    failed = await command.here("submit", "--wait", "Why?")
    emulator.faults.append(fault.status(400, body=b'{"message": "no such model"}', content_type="application/json"))
    refused = await command.here("submit", "--model", "m", "Why?")
    unknown = await command.here("submit", "--field", "new=1", "Why?")
    assert (failed.code, failed.out, refused.code, refused.out) == (3, "", 1, "")
    assert "the task ended in ERROR" in failed.err
    assert refused.err == "Error: HTTP 400 Bad Request: no such model\n"
    assert (unknown.code, "must not have additional properties" in unknown.err) == (1, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([" \n"], "it is empty"),
        (["-"], "it is empty"),
        (["--kind", "images", "--system", "Be brief.", "A fox"], "--system is for chats"),
        (["--kind", "images", "--temperature", "1", "A fox"], "--temperature isn't for --kind images"),
        (["--kind", "speech", "--max-tokens", "1", "Hello"], "--max-tokens isn't for --kind speech"),
        (["--kind", "speech", "H"], "input must be a text of 2 to 4096 characters"),
        (["--kind", "video", "A fox"], "'chat', 'images', 'speech'"),
        (["--temperature", "9", "Why?"], "temperature must be a number of at most 2"),
        (["--max-tokens", "9999", "Why?"], "--max-tokens must be a whole number from -1 to 600"),
        (["--field", "top_p=9", "Why?"], "top_p must be a number of at most 1"),
        (["--field", "seed", "Why?"], "NAME=JSON"),
        (["--field", "model=m", "Why?"], "set already"),
        (["--field", "a=1", "--field", "a=2", "Why?"], "set already"),
        (["--field", "a=NaN", "Why?"], "no way to write"),
        (["--field", "a=" + "[" * 100_000, "Why?"], "a is nested too deep"),
        (["--output", "/nowhere/at/all.txt", "Why?"], "can't write to the directory '/nowhere/at'"),
        (["--output", "/", "Why?"], "is a directory"),
        (["Why?", "not?"], "unexpected extra argument"),
    ],
)
async def test_wrong_usage(args: list[str], words: str, emulator: Recording, command: Command) -> None:
    """What can't work is exit code 2 with words that say why, before anything is sent."""
    done = await command.here("submit", *args)
    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert words in done.err


async def test_a_prompt_that_is_no_text(command: Command) -> None:
    """Standard input that is not UTF-8 is wrong usage, and not sent as something else."""
    done = await command.here("submit", "-", stdin=b"caf\xe9")
    assert (done.code, done.out) == (2, "")
    assert "not UTF-8" in done.err
