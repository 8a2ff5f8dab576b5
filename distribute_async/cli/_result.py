"""`distribute-async result`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distribute_async.cli._answers import awaited, deliver
from distribute_async.cli._codes import TIMED_OUT
from distribute_async.cli._service import hint, kind_option, new_client, perform, service_options, task_id, writable


@click.command()
@click.argument("wanted", type=task_id, metavar="ID")
@kind_option
@click.option("--wait", is_flag=True, help="Wait for the task's end first.")
@click.option("--output", type=writable, metavar="FILE", help="Save the answer there, and print that name.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer, as one line of JSON.")
@service_options()
def result(
    wanted: str, *, kind: str, wait: bool, output: Path | None, as_json: bool, timeout: float, **settings: Any
) -> int:
    """Print what the task ID answers.

    Without --wait this is one look: where the task hasn't ended yet, standard error says how it stands, and the
    exit code is 4. Of a chat the text is printed and each call of a tool, a line name(arguments); of images and
    speech the URL of each file, or with --output they are downloaded: a second one to FILE-2, and so on.

    \b
    Examples:
      distribute-async result ID
      distribute-async result --wait --timeout 60 ID >answer.txt
      distribute-async result --kind images --output fox.png ID
      distribute-async result --json ID | python3 -m json.tool
    """
    client = new_client(**settings)

    async def look() -> int:
        async with client:
            tasks = getattr(client, kind)
            if wait:
                found = await awaited(tasks.watch(wanted, timeout=timeout))
            else:
                found = await tasks.fetch(wanted, timeout=timeout)
            return await deliver(found, as_json=as_json, output=output)

    code = perform(look(), lambda: [wanted])
    if code == TIMED_OUT:
        hint([wanted])
    return code
