"""`distribute-async emulator` and `distribute-async demo`: the commands that need no service."""

from __future__ import annotations

import asyncio
import signal

import click

from distribute_async.cli._follow import OK, TROUBLE
from distribute_async.cli._service import KEY_VARIABLE, URL_VARIABLE, perform
from distribute_async.cli._words import note, say


@click.command(short_help="Run the service locally.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to listen on. [default: a free one]")
@click.option("--api-key", help="The key that it takes. [default: one made from the seed]")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed, the same tasks.")
def emulator(*, host: str, port: int, api_key: str | None, seed: int) -> int:
    """Run the service locally, with no key and no network.

    Its address is the first line on standard output. Ctrl-C or SIGTERM ends it.

    \b
    Examples:
      distribute-async emulator --port 8080
      distribute-async emulator --api-key secret --seed 7
    """
    from distribute_async.emulator import Emulator  # noqa: PLC0415 - a server that no other command needs

    async def serve() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stopped.set))
        async with Emulator(api_key, seed=seed, host=host, port=port, epoch=None) as service:
            say(service.base_url)
            if api_key is None:
                note("It takes a key of its own. For the shell that calls it:")
                note(f"  export {URL_VARIABLE}={service.base_url}")
                note(f"  export {KEY_VARIABLE}={service.api_key}")
            note("Ctrl-C ends it.")
            await stopped.wait()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        pass  # how one ends a server
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        # asyncio puts the address first, and from Python 3.13 on the number.
        reason = (error.strerror or str(error)).rpartition(": ")[2].rpartition("] ")[2]
        note(f"Error: can't listen on {host}, port {port}: {reason}; --port 0 takes a free one")
        return TROUBLE
    return OK


@click.command(short_help="Submit and follow tasks on a local emulator.")
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, hidden=True)
def demo(*, speed: float) -> int:
    """Submit tasks with different fates, a picture and a sound among them, and follow them.

    They live on a local emulator of the service, so this takes no key and no network; nor does it last longer than
    fifteen seconds. The picture and the sound are saved in a new temporary folder, which is named at the end.

    \b
    Example:
      distribute-async demo
    """
    from distribute_async.cli._demo import show  # noqa: PLC0415 - the emulator's server comes with it

    return perform(show(speed), lambda: ())
