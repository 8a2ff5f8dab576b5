"""The service of the soak, a process of its own: an emulator that fails at random, and is down now and then.

`python -m tests.soak.service SEED` prints its address and its key, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from random import Random

from distribute_async.emulator import Emulator, Fault, fault

#: Seconds between outages, and how long each lasts.
BETWEEN_OUTAGES, OUTAGE = 45.0, 4.0
#: Of all requests, about.
FAULTY = 0.1


def some_fault(chance: Random) -> Fault:
    """What the next request meets."""
    return chance.choice(
        [
            *(fault.status(code) for code in (408, 429, 500, 502, 503, 504)),
            fault.status(429, headers={"Retry-After": "0.2"}),
            fault.status(200, body=b"<html>Bad gateway</html>"),
            fault.status(200, body=b'{"status": "QUE', content_type="application/json"),
            fault.cut(),
            fault.cut(after=chance.randrange(1, 400)),
            fault.silence(chance.random()),
            fault.silence(),
            fault.delay(chance.random()),
            fault.raw(b"nonsense\r\n\r\n"),
        ]
    )


async def misbehave(emulator: Emulator, chance: Random) -> None:
    """Script faults for about one request in ten, and an outage now and then."""
    loop = asyncio.get_running_loop()
    outage_at, seen = loop.time() + BETWEEN_OUTAGES, 0
    while True:
        await asyncio.sleep(0.05)
        came, seen = len(emulator.requests) - seen, len(emulator.requests)
        if seen > 50_000:
            emulator.requests.clear()
            seen = 0
        if len(emulator.faults) < 100:
            emulator.faults.extend(some_fault(chance) for _ in range(came) if chance.random() < FAULTY)
        if loop.time() >= outage_at:
            emulator.down = chance.choice([fault.cut(), fault.status(503), fault.silence(0.1)])
            await asyncio.sleep(OUTAGE)
            emulator.down = None
            outage_at = loop.time() + BETWEEN_OUTAGES


async def serve(seed: int) -> None:
    """Until standard input ends."""
    async with Emulator(seed=seed) as emulator:
        print(emulator.base_url, emulator.api_key, flush=True)
        misbehaving = asyncio.create_task(misbehave(emulator, Random(seed)))
        await asyncio.to_thread(sys.stdin.read)
        misbehaving.cancel()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
