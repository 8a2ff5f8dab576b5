"""`distribute-async submit`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from distribute_async import ChatRequest, ImageRequest, SpeechRequest
from distribute_async.cli._answers import awaited, deliver
from distribute_async.cli._codes import OK, SIGNALLED, UNCERTAIN
from distribute_async.cli._service import (
    BYTE_ORDER_MARK,
    STDIN,
    claim_stdin,
    kind_option,
    new_client,
    perform,
    service_options,
    writable,
)
from distribute_async.cli._streams import OutputError
from distribute_async.cli._words import json_line, note, say

# The documented model of each kind; of those for chats, the one that costs least.
_MODELS = {"chat": "Llama-3.1 8B", "images": "Flux.1 [dev]", "speech": "Chatterbox"}
_REQUESTS = {"chat": ChatRequest, "images": ImageRequest, "speech": SpeechRequest}
# The field that the prompt goes into.
_PROMPTS = {"images": "prompt", "speech": "input"}

_UNCERTAIN = """\
Nobody can ask the service which of the two it is. If a second task does no harm, give the command again; if it would
cost too much, look first at what your account was billed."""


def _field(value: str) -> tuple[str, Any]:
    """The type of a field: a value that is no JSON is a text, so that most need no quotes within quotes."""
    name, equals, text = value.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"{value!r} is not of the form NAME=JSON")
    try:
        return name, json.loads(text)
    except RecursionError:
        raise click.BadParameter(f"{name} is nested too deep") from None
    except ValueError:
        return name, text


@click.command(short_help="Create a task and print its id, or its answer.")
@click.argument("prompt")
@kind_option
@click.option("--model", metavar="NAME", help=f"The model. [default, by kind: {'; '.join(_MODELS.values())}]")
@click.option("--system", metavar="TEXT", help="What the model is told before a chat's prompt.")
@click.option("--temperature", type=float, metavar="NUMBER", help="From 0 to 2 for chats, to 1 for speech.")
@click.option("--max-tokens", type=int, metavar="NUMBER", help="The longest answer of a chat.")
@click.option(
    "--field",
    "fields",
    type=_field,
    multiple=True,
    metavar="NAME=JSON",
    help="Another field of the request; a value that is no JSON is a text. May be repeated.",
)
@click.option("--wait", is_flag=True, help="Wait for the answer and print it.")
@click.option("--output", type=writable, metavar="FILE", help="Wait, save the answer there, and print that name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: with --wait the whole answer, else id and kind.")
@service_options(meaning="The longest wait, to submit and for the task; 'inf' for no limit.")
def submit(
    prompt: str,
    *,
    kind: str,
    wait: bool,
    output: Path | None,
    as_json: bool,
    timeout: float,
    model: str | None,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    fields: Sequence[tuple[str, Any]],
    **settings: Any,
) -> int:
    """Create a task from PROMPT ('-': standard input) and print its id.

    PROMPT is what to answer, to draw (--kind images) or to say (--kind speech). With --wait the answer is printed
    as `result` does, and the id goes to standard error. Exit code 6 means that a task may have been created or
    not: nothing can tell, so think before you give the command again.

    \b
    Examples:
      distribute-async submit "Why is the sky blue?"
      distribute-async submit --wait --system "Be brief." "Why is the sky blue?"
      echo "Why is the sky blue?" | distribute-async submit --wait -
      distribute-async submit --kind images --field size=512x512 \\
          --output fox.png "A fox in the snow"
      distribute-async submit --kind speech --field voice=nora \\
          --output hello.wav "Good morning."
      distribute-async wait $(distribute-async submit "Why is the sky blue?")
    """
    if prompt == STDIN:
        claim_stdin("the prompt", settings["api_key_file"])
        prompt = _read()
    request = {
        **_asked(kind, prompt, system),
        "model": _MODELS[kind] if model is None else model,
        **_options(kind, {"--temperature": temperature, "--max-tokens": max_tokens}),
    }
    request = _with_fields(kind, request, fields)
    client = new_client(**settings)
    created: list[str] = []

    async def create() -> int:
        async with client:
            task = await getattr(client, kind).submit(**request, timeout=timeout)
            created.append(task.task_id)
            if not (wait or output):
                _say_id(task.task_id, kind, as_json=as_json)
                return OK
            note(f"Task {task.task_id}")
            return await deliver(await awaited(task), as_json=as_json, output=output)

    try:
        return perform(create(), lambda: created)
    except click.exceptions.Exit as ending:
        is_cut = ending.exit_code > SIGNALLED and not created
        if is_cut:
            note("A task may have been created or not: this was interrupted while it was being submitted.")
        if is_cut or ending.exit_code == UNCERTAIN:
            note(_UNCERTAIN)
        raise


def _say_id(task_id: str, kind: str, *, as_json: bool) -> None:
    try:
        say(json_line({"id": task_id, "kind": kind}) if as_json else task_id)
    except OutputError:
        note(f"Task {task_id}")  # without its id nobody can ask for what it costs
        raise


def _read() -> str:
    try:
        with click.open_file(STDIN, encoding="utf-8") as file:
            prompt: str = file.read()
    except UnicodeDecodeError:
        raise click.BadParameter("standard input is not UTF-8", param_hint="PROMPT") from None
    except OSError as error:
        raise click.BadParameter(f"can't read standard input: {error.strerror}", param_hint="PROMPT") from None
    return prompt.removeprefix(BYTE_ORDER_MARK).rstrip("\n")


def _asked(kind: str, prompt: str, system: str | None) -> dict[str, Any]:
    """The fields that hold the prompt."""
    if not prompt.strip():
        raise click.BadParameter("it is empty", param_hint="PROMPT")
    if kind == "chat":
        instructions = [] if system is None else [{"role": "system", "content": system}]
        return {"messages": [*instructions, {"role": "user", "content": prompt}]}
    if system is not None:
        raise click.UsageError(f"--system is for chats, not for --kind {kind}", click.get_current_context())
    return {_PROMPTS[kind]: prompt}


def _options(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The fields of the options that were given; a usage error where the kind has none such."""
    names = {"--temperature": "temperature", "--max-tokens": "max_completion_tokens"}
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if names[option] not in _documented(kind):
            raise click.UsageError(f"{option} isn't for --kind {kind}", click.get_current_context())
    return {names[option]: value for option, value in given.items()}


def _with_fields(kind: str, request: dict[str, Any], fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The request with further fields: the documented ones, which the library checks, and the others as they are."""
    documented, others = dict(request), dict[str, Any]()
    for name, value in fields:
        if name in documented or name in others:
            raise click.UsageError(f"--field {name}: this field is set already", click.get_current_context())
        (documented if name in _documented(kind) else others)[name] = value
    return {**documented, "extra_body": others}


def _documented(kind: str) -> set[str]:
    return {field.name for field in attrs.fields(_REQUESTS[kind])} - {"extra_body", "timeout"}
