"""`result` and `watch` for pictures and sounds."""

from __future__ import annotations

import json
from pathlib import Path

from distribute_async.emulator import Emulator, fault
from tests.cli.conftest import DONE, Command, names_in
from tests.emulator.test_files import pixels


async def test_result_prints_the_urls(emulator: Emulator, command: Command) -> None:
    """Of a picture or a sound, `result` prints the URL of each file, a line each."""
    pictures = emulator.add_task(DONE, kind="images", request={"n": 2})
    sound = emulator.add_task(DONE, kind="speech")
    drawn = await command.here("result", "--kind", "images", pictures)
    said = await command.here("result", "--kind", "speech", "--wait", sound)
    assert drawn.out == "".join(f"{emulator.files_url}/{pictures}/{number}.png\n" for number in range(2))
    assert said.out == f"{emulator.files_url}/{sound}/0.wav\n"
    assert (drawn.code, drawn.err, said.code, said.err) == (0, "", 0, "")


async def test_result_saves_the_files(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """With --output each file is saved, and its name is what is printed; the key doesn't go to where they are."""
    pictures = emulator.add_task(DONE, kind="images", request={"n": 3, "size": "32x32"})
    done = await command.here("result", "--kind", "images", "--output", str(tmp_path / "a.b.png"), pictures)
    files = [tmp_path / name for name in ("a.b.png", "a.b-2.png", "a.b-3.png")]
    assert (done.code, done.out.splitlines(), done.err) == (0, list(map(str, files)), "")
    assert len({pixels(file.read_bytes()) for file in files}) == 3
    assert not any(request.has_key for request in emulator.file_requests)


async def test_nothing_to_save(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """An answer without files says so; a task that goes on leaves the file alone and is exit code 4."""
    file = tmp_path / "fox.png"
    none = emulator.add_task(DONE, kind="images", answer={"results": []})
    slow = emulator.add_task([(0, "QUEUED")], kind="images")
    empty = await command.here("result", "--kind", "images", "--output", str(file), none)
    later = await command.here("result", "--kind", "images", "--output", str(file), slow)
    assert (empty.code, empty.out, empty.err) == (0, "", "The answer has no files.\n")
    assert (later.code, later.out) == (4, "")
    assert later.err.endswith(f"distribute-async result --kind images --wait --output {file} {slow}\n")
    assert not file.exists()


async def test_a_file_that_does_not_come(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """A download that fails, or can't be written, is exit code 1 with words that fit, and leaves nothing behind."""
    task_id = emulator.add_task(DONE, kind="speech")
    emulator.file_faults.extend([fault.status(404), fault.cut(after=300)])
    for words in ("can't download file 1 of 1: HTTP 404. ", "can't download file 1 of 1: the connection was lost"):
        done = await command.here("result", "--kind", "speech", "--output", str(tmp_path / "a.wav"), task_id)
        assert (done.code, done.out) == (1, "")
        assert words in done.err
    assert names_in(tmp_path) == []
    pictures = emulator.add_task(DONE, kind="images", request={"n": 2})
    longest = f"{'n' * 251}.png"  # one that leaves no room for the 2 of the second picture
    done = await command.here("result", "--kind", "images", "--output", str(tmp_path / longest), pictures)
    assert (done.code, done.out, "File name too long" in done.err) == (1, "", True)
    assert names_in(tmp_path) == [longest]


async def test_watch_and_wait_for_files(emulator: Emulator, command: Command) -> None:
    """`watch` and `wait` follow tasks of the kind that is named, results included."""
    task_id = emulator.add_task(DONE, kind="images")
    url = f"{emulator.files_url}/{task_id}/0.png"
    for name in ("watch", "wait"):
        done = await command.here(name, "--kind", "images", "--json", task_id)
        outcome = json.loads(done.out.splitlines()[-1])
        assert (done.code, outcome["event"], outcome["result"]["results"][0]["url"]) == (0, "outcome", url)


async def test_the_wrong_kind(emulator: Emulator, command: Command) -> None:
    """An id of another kind is one that the service doesn't know, and --kind is in the words."""
    done = await command.here("result", "--kind", "images", emulator.add_task(DONE))
    assert (done.code, "check the id, --kind and --base-url" in done.err) == (1, True)
