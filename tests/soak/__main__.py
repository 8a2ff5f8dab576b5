"""The soak: thousands of waits at once through random faults, outages and cancellations, for minutes.

`python -m tests.soak --seconds 600 --users 2000 --seed 1` prints a line every ten seconds and its figures in the
end; exit code 1 where a wait ended wrongly, anything was left behind, or memory grew.

What the process takes is judged at rest: while users come and go, it swings with the outages (a hundred connections in
one moment, a few in the next). So they come in rounds, and after each one all of them have left. What is there then
must be the same as before: the asyncio tasks, the descriptors but for the connections that the client keeps for the
next round, and, once the second round has warmed everything up, the memory.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import resource
import sys
from collections import Counter
from pathlib import Path
from random import Random

import aiohttp
from attrs import define, field, frozen

from distribute_async import (
    ChatResult,
    DistributeClient,
    DistributeError,
    Limits,
    Pacing,
    Retry,
    TaskFailedError,
    WaitTimeoutError,
)
from tests.waiting import idle_connections

#: Rounds of one run.
ROUNDS = 6
#: Seconds within which users who are cancelled leave, all of them together.
LEAVING = 10.0
#: Seconds until a round's last connections are closed. (Closing one takes some turns of the loop.)
REST = 0.3
#: What rounds may add, from the second to the last: bytes, and blocks of Python's own allocator (of up to 512 bytes).
MEMORY_SLACK, BLOCK_SLACK = 4 << 20, 10_000
#: Memory is judged from a run of so many seconds on: a shorter one is still warming up.
LONG_ENOUGH = 60.0


@frozen
class Sample:
    """What the process takes; the descriptors without those of connections that a client keeps for its next request."""

    memory: int
    blocks: int
    descriptors: int
    tasks: int

    @classmethod
    def now(cls, client: DistributeClient | None = None) -> Sample:
        """As it stands, once what can be given back is given back."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        kept = 0 if client is None else idle_connections(client)
        return cls(
            memory=pages * resource.getpagesize(),
            blocks=sys.getallocatedblocks(),
            descriptors=len(os.listdir("/proc/self/fd")) - kept,  # noqa: PTH208 - iterdir opens one more for longer
            tasks=len(asyncio.all_tasks()),
        )

    def __str__(self) -> str:
        return f"{self.memory >> 20} MiB, {self.blocks:,} blocks, {self.descriptors} descriptors, {self.tasks} tasks"


@define
class Soak:
    """One run: its users, and what they saw."""

    client: DistributeClient
    url: str
    key: str
    chance: Random
    endings: Counter[str] = field(factory=Counter)
    wrong: list[str] = field(factory=list)
    latest: float = 0.0

    async def round(self, seconds: float, users: int, *, is_told: bool) -> None:
        """So many users for so long, until all of them have left."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with aiohttp.ClientSession(
            self.url,
            headers={"authorization": self.key},
            timeout=aiohttp.ClientTimeout(total=None),
            raise_for_status=True,
        ) as http:
            running = [asyncio.create_task(self.user(http)) for _ in range(users)]
            while (left := end - loop.time()) > 0:
                await asyncio.sleep(min(10.0, left))
                if is_told:
                    print(dict(self.endings), flush=True)
            for user in running:
                user.cancel()
            gone, staying = await asyncio.wait(running, timeout=LEAVING)
        self.wrong += [repr(user.exception()) for user in gone if not user.cancelled()]
        self.wrong += [f"a cancelled user stayed: {user}" for user in staying]
        await asyncio.sleep(REST)

    async def user(self, http: aiohttp.ClientSession) -> None:
        """Create a task, wait for it in some way, and begin again."""
        while True:
            task_id = await self.create(http)
            way = self.chance.choice([self.wait, self.iterate, self.share, self.fetch, self.cancel, self.be_impatient])
            try:
                self.endings[await way(task_id)] += 1
            except DistributeError as error:
                if isinstance(error, WaitTimeoutError) or error.task_id != task_id:
                    self.wrong.append(repr(error))
                self.endings[type(error).__name__] += 1

    async def create(self, http: aiohttp.ClientSession) -> str:
        """A new task's id, by plain HTTP."""
        while True:
            body = {"model": "m", "messages": [{"role": "user", "content": "c"}]}
            try:
                # aiohttp's own `total` swallows a cancellation that comes in the moment of the timeout.
                async with asyncio.timeout(5), http.post("/async/chat/create", json=body) as response:
                    return str((await response.json())["id"])
            except (aiohttp.ClientError, TimeoutError, KeyError, ValueError):
                await asyncio.sleep(self.chance.random())

    def check(self, task_id: str, result: ChatResult) -> str:
        """Every answer must be that of its own task."""
        if result.id != task_id:
            self.wrong.append(f"{task_id} was told the answer of {result.id}")
        return "result"

    async def wait(self, task_id: str) -> str:
        """Await the result."""
        try:
            return self.check(task_id, await self.client.wait_for_result(task_id, timeout=None))
        except TaskFailedError as error:
            self.check(task_id, error.result)  # type: ignore[arg-type]
            return "failed"

    async def iterate(self, task_id: str) -> str:
        """Iterate over the changes, and sometimes leave early."""
        seen: list[str] = []
        async for status in self.client.watch(task_id, timeout=None):
            if seen and seen[-1] == status:
                self.wrong.append(f"{task_id} was {status} twice in a row")
            seen.append(status)
            if self.chance.random() < 0.1:
                return "left"
        if seen[-1] not in {"COMPLETED", "ERROR"}:
            self.wrong.append(f"{task_id} ended as {seen[-1]}")
        return "iterated"

    async def share(self, task_id: str) -> str:
        """Several waits on one task, one of them cancelled."""
        waits = [asyncio.create_task(self.wait(task_id)) for _ in range(4)]
        try:
            await asyncio.sleep(self.chance.random() * 3)
            waits[0].cancel()
            await asyncio.wait(waits)
        finally:
            for wait in waits:
                wait.cancel()
            endings = await asyncio.gather(*waits, return_exceptions=True)
        others = set(map(repr, endings[1:]))
        if len(others) != 1 or not isinstance(endings[1], str):
            self.wrong.append(f"{task_id} ended as {others} for those who share it")
        return "shared"

    async def fetch(self, task_id: str) -> str:
        """Look once."""
        self.check(task_id, await self.client.fetch(task_id, timeout=None))
        return "fetched"

    async def cancel(self, task_id: str) -> str:
        """Give up at any time."""
        waiting = asyncio.create_task(self.wait(task_id))
        try:
            await asyncio.sleep(self.chance.random() * 4)
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        return "cancelled"

    async def be_impatient(self, task_id: str) -> str:
        """Wait with a timeout that most tasks outlast."""
        loop = asyncio.get_running_loop()
        timeout = self.chance.random() * 4
        deadline = loop.time() + timeout
        try:
            return self.check(task_id, await self.client.wait_for_result(task_id, timeout=timeout))
        except TaskFailedError:
            return "failed"
        except WaitTimeoutError:
            self.latest = max(self.latest, loop.time() - deadline)
            return "timed out"


def growth(start: Sample, rests: list[Sample], *, is_long: bool) -> list[str]:
    """What was left behind, by what the process took at the `start` and at rest after each round; empty for nothing."""
    found = [
        f"round {n} left behind: {rest.tasks - start.tasks} asyncio tasks, "
        f"{rest.descriptors - start.descriptors} descriptors"
        for n, rest in enumerate(rests, start=1)
        if rest.tasks > start.tasks or rest.descriptors > start.descriptors
    ]
    warm, last = rests[1], rests[-1]
    if is_long and last.memory > warm.memory + MEMORY_SLACK:
        found.append(f"memory grew from {warm.memory >> 20} to {last.memory >> 20} MiB")
    if is_long and last.blocks > warm.blocks + BLOCK_SLACK:
        found.append(f"memory grew by {last.blocks - warm.blocks:,} blocks")
    return found


async def soak(*, seconds: float, users: int, seed: int, is_told: bool = True) -> list[str]:
    """Run it; gives what was wrong."""
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak.service", str(seed)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert service.stdout is not None
        url, key = (await service.stdout.readline()).decode().split()
        before = Sample.now()
        async with DistributeClient(
            key,
            base_url=url,
            pacing=Pacing(initial=1.0, max=8.0),
            retry=Retry(max=4.0),
            limits=Limits(exchange_timeout=2.0),
        ) as client:
            run = Soak(client, url, key, Random(seed))
            rests: list[Sample] = []
            for _ in range(ROUNDS):
                await run.round(seconds / ROUNDS, users, is_told=is_told)
                rests.append(Sample.now(client))
                if is_told:
                    print(f"at rest: {rests[-1]}", flush=True)
        await asyncio.sleep(REST)
        after = Sample.now()
    finally:
        assert service.stdin is not None
        service.stdin.close()
        await service.wait()
    wrong = [*run.wrong, *growth(before, rests, is_long=seconds >= LONG_ENOUGH)]
    if after.tasks > before.tasks or after.descriptors > before.descriptors:
        wrong.append(f"left behind after close: {after}, before {before}")
    if is_told:
        print(f"{sum(run.endings.values())} endings: {dict(run.endings)}")
        print(f"the latest timeout came {run.latest * 1000:.0f} ms after its deadline")
        print("\n".join(wrong) or "nothing was wrong")
    return wrong


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Soak the client; see the module's docstring.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    return 1 if asyncio.run(soak(seconds=arguments.seconds, users=arguments.users, seed=arguments.seed)) else 0


if __name__ == "__main__":
    sys.exit(main())
