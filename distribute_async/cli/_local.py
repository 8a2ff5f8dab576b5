"""`distribute-async emulator` and `distribute-async demo`: the commands that need no service."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, suppress

import click

from distribute_async.cli._codes import OK
from distribute_async.cli._service import KEY_VARIABLE, URL_VARIABLE, Number, on_signals, perform
from distribute_async.cli._words import note, one_line, say

_FASTEST = 1000
# A seed is drawn from so many.
_SEEDS = 2**32


@click.command(short_help="Run the service locally.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to listen on. [default: a free one]")
@click.option("--api-key", metavar="KEY", help="The key that it takes. [default: one made from the seed]")
@click.option("--seed", type=int, metavar="NUMBER", help="The same seed, the same tasks. [default: a random one]")
@click.option(
    "--speed",
    type=Number(min=0, min_open=True, max=_FASTEST),
    default=1.0,
    metavar="FACTOR",
    help=f"Tasks live so many times faster, above 0 and up to {_FASTEST:,}. [default: 1]",
)
@click.option(
    "--fault-rate",
    type=Number(min=0, max=1),
    default=0.0,
    metavar="SHARE",
    help="The share of requests that meet a fault, from 0 to 1. [default: 0]",
)
def emulator(*, host: str, port: int, api_key: str | None, seed: int | None, speed: float, fault_rate: float) -> int:
    """Run the service locally, with no key and no network.

    Its address is the first line on standard output. Without --api-key or --seed it makes one, and standard error
    says which. Ctrl-C or SIGTERM ends it.

    \b
    Examples:
      distribute-async emulator --port 8080
      distribute-async emulator --api-key secret --seed 7
      distribute-async emulator --speed 10 --fault-rate 0.05
    """
    from distribute_async.emulator import Emulator  # noqa: PLC0415 - a server that no other command needs

    if not host:
        raise click.BadParameter("it is empty", param_hint="--host")
    chosen = secrets.randbelow(_SEEDS) if seed is None else seed
    try:
        service = Emulator(api_key, seed=chosen, host=host, port=port, epoch=None, speed=speed, fault_rate=fault_rate)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--api-key") from None

    async def serve() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop(_number: int) -> None:
            loop.call_soon_threadsafe(stopped.set)

        with on_signals(stop, "SIGTERM"):
            async with AsyncExitStack() as stack:
                try:
                    await stack.enter_async_context(service)
                except (OSError, UnicodeError) as error:
                    raise _not_listening(host, port, error) from None
                say(service.base_url)
                if api_key is None:
                    note("It takes a key of its own. For the shell that calls it:")
                    note(f"  export {URL_VARIABLE}={service.base_url}")
                    note(f"  export {KEY_VARIABLE}={service.api_key}")
                if seed is None:
                    note(f"--seed {chosen} makes the same tasks again.")
                note("Ctrl-C ends it.")
                await stopped.wait()

    with suppress(KeyboardInterrupt):  # how one ends a server
        asyncio.run(serve())
    return OK


def _not_listening(host: str, port: int, error: OSError | UnicodeError) -> click.ClickException:
    # asyncio puts the address first, and from Python 3.13 on the number.
    reason = str(getattr(error, "strerror", None) or error).rpartition(": ")[2].rpartition("] ")[2]
    if isinstance(error, UnicodeError):
        reason = "no name or address is of this form"
    return click.ClickException(f"can't listen on {one_line(host)}, port {port}: {reason}; --port 0 takes a free one")


@click.command(short_help="Submit and follow tasks on a local emulator.")
@click.option("--speed", type=Number(min=0, min_open=True, max=_FASTEST), default=1.0, hidden=True)
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
