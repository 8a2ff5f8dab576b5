"""What `--help` shows: examples that run, and the keys of the shell."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import click
import pytest

from distribute_async.cli._commands import cli
from distribute_async.emulator import Emulator
from tests.cli.conftest import API_KEY, DONE, Command, Done

CONTEXT = click.Context(cli)
COMMANDS: dict[str | None, click.Command] = {None: cli}
for command_name in cli.list_commands(CONTEXT):
    found = cli.get_command(CONTEXT, command_name)
    assert found is not None
    COMMANDS[command_name] = found


def help_of(name: str | None) -> str:
    """What `distribute-async NAME --help` prints on 80 columns."""
    parent = click.Context(cli, info_name="distribute-async", terminal_width=80)
    return COMMANDS[name].get_help(parent if name is None else click.Context(COMMANDS[name], parent, name))


def examples_of(name: str | None) -> list[str]:
    """The examples in it; one that ends in a backslash goes on in the next line."""
    shown = re.search(r"Examples?:\n((?: {4,}\S.*\n)+)", help_of(name))
    assert shown
    return re.sub(r"\\\n", "", shown[1]).strip().splitlines()


EXAMPLES = list(dict.fromkeys(example.strip() for name in COMMANDS for example in examples_of(name)))


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(API_KEY, seed=1, speed=100) as emulator:
        yield emulator


@pytest.fixture
def shell(command: Command, tmp_path: Path) -> Path:
    """A folder for the shell, in which the command is on the path."""
    script = tmp_path / "bin" / "distribute-async"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -W error -m distribute_async.cli "$@"\n')
    script.chmod(0o755)
    command.env |= {"PATH": f"{script.parent}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    return tmp_path


def quick(example: str, emulator: Emulator) -> str:
    """The same with ids that there are, and with what would take long or be in use put right."""
    kind = re.search(r"--kind (\w+)", example)
    while re.search(r"\bID\b", example):
        task_id = emulator.add_task(DONE, kind=kind[1] if kind else "chat")
        example = re.sub(r"\bID\b", task_id, example, count=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        example = example.replace("8080", str(taken.getsockname()[1]))
    return example.replace("distribute-async demo", "distribute-async demo --speed 8")


def test_every_command_has_examples() -> None:
    """Every command shows examples of its own, within 80 columns."""
    assert list(COMMANDS) == [None, "submit", "result", "watch", "wait", "check", "emulator", "demo"]
    for name in COMMANDS:
        assert all(f"distribute-async {name or ''}" in example for example in examples_of(name))
        assert max(map(len, help_of(name).splitlines())) <= 80


@pytest.mark.parametrize("example", [example for example in EXAMPLES if "emulator" not in example])
async def test_examples(example: str, emulator: Emulator, command: Command, shell: Path) -> None:
    """Every example of `--help` does what it is there for, typed into a shell as it stands."""
    (shell / "ids.txt").write_text("\n".join(emulator.add_task(DONE) for _ in range(3)))
    process = await asyncio.create_subprocess_exec(
        "sh", "-ec", quick(example, emulator), env=command.env, cwd=shell, stdout=PIPE, stderr=PIPE
    )
    done = await command.finish(process)
    assert done.code == 0, done.err
    written = [name for name in re.findall(r"(?:>|--output )(\S+)", example) if (shell / name).stat().st_size]
    assert written or done.out.strip()
    if not written and "--wait" not in example:
        assert done.err == ""


@pytest.mark.parametrize("example", [example for example in EXAMPLES if "emulator" in example])
async def test_examples_of_the_emulator(example: str, emulator: Emulator, command: Command, shell: Path) -> None:
    """Every example of the emulator listens where it says, and ends with Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f"exec {quick(example, emulator)}", env=command.env, cwd=shell, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout
    url = (await process.stdout.readline()).decode().strip()
    key = example.rpartition("--api-key ")[2].split()[0] if "--api-key" in example else None
    command.env |= {"DISTRIBUTE_BASE_URL": url} | ({"DISTRIBUTE_API_KEY": key} if key else {})
    assert (await command.here("check")).code == (0 if key else 1)
    process.send_signal(signal.SIGINT)
    assert (await command.finish(process)).code == 0


def test_the_exit_codes() -> None:
    """The group's help names every exit code."""
    shown = re.findall(r"^ +(\d+)  ", help_of(None), re.MULTILINE)
    assert shown == ["0", "1", "2", "3", "4", "5", "6", "129", "130", "141", "143"]


@pytest.mark.parametrize(
    ("shell_name", "words", "offered"),
    [
        ("bash", "distribute-async wa", "plain,watch\nplain,wait\n"),
        ("bash", "distribute-async result --ki", "plain,--kind\n"),
        ("zsh", "distribute-async watch --kind im", "plain\nimages\n_\n"),
    ],
)
async def test_completion(shell_name: str, words: str, offered: str, command: Command) -> None:
    """What completion asks of the command, it answers: commands, options and their values."""
    command.env |= {"_DISTRIBUTE_ASYNC_COMPLETE": f"{shell_name}_complete", "COMP_WORDS": words}
    command.env["COMP_CWORD"] = str(len(words.split()) - 1)
    done = await command()
    assert (done.code, done.out, done.err) == (0, offered, "")


async def test_how_to_switch_completion_on(command: Command, shell: Path) -> None:
    """The lines that `--help` gives for the shells' start-up files are what these shells take."""

    async def run(program: str) -> Done:
        process = await asyncio.create_subprocess_exec("bash", "-c", program, env=command.env, stdout=PIPE, stderr=PIPE)
        return await command.finish(process)

    for_bash, for_fish = re.findall(r"^ *(.*_DISTRIBUTE_ASYNC_COMPLETE=.*)$", help_of(None), re.MULTILINE)
    press_tab = "COMP_WORDS=(distribute-async che) COMP_CWORD=1; _distribute_async_completion distribute-async"
    pressed = await run(f"{for_bash}\n{press_tab}; echo ${{COMPREPLY[@]}}")
    assert (pressed.code, pressed.out, pressed.err) == (0, "check\n", "")
    (zsh_source,) = re.findall(r"for zsh write (\w+)", help_of(None))
    ask_zsh = re.sub(r'eval "\$\((.*)\)"', r"\1", for_bash).replace("bash_source", zsh_source)
    assert "compdef _distribute_async_completion distribute-async" in (await run(ask_zsh)).out
    ask_fish = for_fish.removeprefix("fish: ").removesuffix(" | source")
    assert "complete --no-files --command distribute-async" in (await run(ask_fish)).out
