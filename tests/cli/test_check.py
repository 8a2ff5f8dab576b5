"""`check`: what it finds, and what to do about it."""

from __future__ import annotations

import pytest

from distribute_async.emulator import Emulator, Fault, fault
from tests.cli.conftest import Command


async def test_all_is_well(emulator: Emulator, command: Command) -> None:
    """A service that knows no made-up id, and takes the key, is exit code 0, with how fast it answers."""
    done = await command("check")
    service, key, answer, speed = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert service == f"Service  {emulator.base_url} (from DISTRIBUTE_BASE_URL)"
    assert key == "Key      from DISTRIBUTE_API_KEY"
    assert answer.endswith("service and key are fine")
    assert speed.count(" ms") == 2
    assert [request.authorized for request in emulator.requests] == [True] * 5
    assert len({request.task_id for request in emulator.requests}) == 5


@pytest.mark.parametrize(
    ("met", "words", "advice"),
    [
        (fault.status(401), "HTTP 401", "compare it with the one in your account"),
        (fault.status(402), "HTTP 402", "look at your account"),
        (fault.status(429, headers={"Retry-After": "3"}), "HTTP 429", "wait a while"),
        (fault.status(503), "HTTP 503", "in trouble: try again later"),
        (fault.status(404, body=b"<html>"), "HTTP 404", "check the address in --base-url"),
        (fault.status(302, headers={"Location": "/"}), "HTTP 302", "check the address in --base-url"),
        (fault.status(200, body=b"<html>"), "JSON", "check the address in --base-url"),
        (fault.status(200, body=b'{"status": "QUEUED", "created": 1, "model": "m"}'), "made up", "check the address"),
        (fault.cut(), "connection was lost", "what is on the way there"),
        (fault.silence(), "0.3 s", "with a longer --timeout too"),
    ],
)
async def test_what_is_wrong(met: Fault, words: str, advice: str, emulator: Emulator, command: Command) -> None:
    """Whatever else is answered is exit code 1, after one question, with what was found and what to do."""
    emulator.down = met
    done = await command.here("check", "--timeout", "0.3")
    found, to_do = done.err.splitlines()
    assert done.code == 1
    assert len(done.out.splitlines()) == 2
    assert words in found
    assert advice in to_do
    assert found.startswith("Error: ")
    assert to_do.startswith("What to do: ")
    assert len({request.task_id for request in emulator.requests}) == 1


@pytest.mark.parametrize(
    ("url", "words", "advice"),
    [
        ("http://127.0.0.1:1", "can't connect to 127.0.0.1:1", "whether anything listens there"),
        ("https://127.0.0.1:{port}", "TLS", "is it https there?"),
    ],
)
async def test_out_of_reach(url: str, words: str, advice: str, emulator: Emulator, command: Command) -> None:
    """Where nothing answers, or not in TLS, that is said, and what to look at."""
    done = await command.here("check", "--base-url", url.format(port=emulator.base_url.rpartition(":")[2]))
    assert (done.code, done.out.splitlines()[0].endswith("(from --base-url)")) == (1, True)
    assert words in done.err
    assert advice in done.err


async def test_no_key(emulator: Emulator, command: Command) -> None:
    """Without a key nothing is asked; exit code 2 and how to give one."""
    command.env["DISTRIBUTE_API_KEY"] = ""
    done = await command.here("check")
    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert "set DISTRIBUTE_API_KEY, or give --api-key-file" in done.err


async def test_a_refused_key_is_not_shown(command: Command) -> None:
    """A key that is refused is named by where it came from, and not shown."""
    command.env["DISTRIBUTE_API_KEY"] = "f" * 32
    done = await command.here("check")
    assert (done.code, "HTTP 401" in done.err) == (1, True)
    assert "f" * 32 not in done.out + done.err
