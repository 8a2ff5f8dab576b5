"""The soak: thousands of waits at once through random faults, outages and cancellations, for minutes.

`python -m tests.soak --seconds 600 --users 2000 --seed 1` prints a line every ten seconds and its figures in the
end; exit code 1 where a wait ended wrongly, anything was left behind, or memory or descriptors were not flat.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
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

#: Seconds between two samples.
SAMPLE = 1.0
#: What the end may have more than the time after warming up: a part, and so much besides.
GROWTH, MEMORY_SLACK, DESCRIPTOR_SLACK = 1.05, 4 << 20, 20


@frozen
class Sample:
    """What the process takes."""

    memory: int
    descriptors: int
    tasks: int

    @classmethod
    def now(cls) -> Sample:
        """As it stands."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            memory=pages * resource.getpagesize(),
            descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - iterdir opens one more for longer
            tasks=len(asyncio.all_tasks()),
        )


@define
class Soak:
    """One run: its users, and what they saw."""

    client: DistributeClient
    http: aiohttp.ClientSession
    chance: Random
    endings: Counter[str] = field(factory=Counter)
    wrong: list[str] = field(factory=list)
    latest: float = 0.0

    async def user(self) -> None:
        """Create a task, wait for it in some way, and begin again."""
        while True:
            task_id = await self.create()
            way = self.chance.choice([self.wait, self.iterate, self.share, self.fetch, self.cancel, self.be_impatient])
            try:
                self.endings[await way(task_id)] += 1
            except DistributeError as error:
                if isinstance(error, WaitTimeoutError) or error.task_id != task_id:
                    self.wrong.append(repr(error))
                self.endings[type(error).__name__] += 1

    async def create(self) -> str:
        """A new task's id, by plain HTTP."""
        while True:
            body = {"model": "m", "messages": [{"role": "user", "content": "c"}]}
            try:
                async with self.http.post("/async/chat/create", json=body) as response:
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


def growth(samples: list[Sample]) -> list[str]:
    """What the last quarter of a run takes more than the second one did; empty where it is flat."""
    quarter = len(samples) // 4
    found = []
    for name, slack in [("memory", MEMORY_SLACK), ("descriptors", DESCRIPTOR_SLACK)]:
        before, after = (
            statistics.median(getattr(sample, name) for sample in part)
            for part in (samples[quarter : 2 * quarter], samples[-quarter:])
        )
        if after > before * GROWTH + slack:
            found.append(f"{name} grew from {before:,.0f} to {after:,.0f}")
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
        samples: list[Sample] = []
        async with (
            aiohttp.ClientSession(
                url, headers={"authorization": key}, timeout=aiohttp.ClientTimeout(total=5), raise_for_status=True
            ) as http,
            DistributeClient(
                key,
                base_url=url,
                pacing=Pacing(initial=1.0, max=8.0),
                retry=Retry(max=4.0),
                limits=Limits(exchange_timeout=2.0),
            ) as client,
        ):
            run = Soak(client, http, Random(seed))
            running = [asyncio.create_task(run.user()) for _ in range(users)]
            loop = asyncio.get_running_loop()
            end = loop.time() + seconds
            while loop.time() < end:
                await asyncio.sleep(min(SAMPLE, end - loop.time()))
                samples.append(Sample.now())
                if is_told and len(samples) % 10 == 0:
                    newest = samples[-1]
                    print(
                        f"{newest.memory >> 20} MiB, {newest.descriptors} descriptors, {dict(run.endings)}", flush=True
                    )
            for user in running:
                user.cancel()
            endings = await asyncio.gather(*running, return_exceptions=True)
            run.wrong += [repr(broken) for broken in endings if not isinstance(broken, asyncio.CancelledError)]
        await asyncio.sleep(0.1)
        after = Sample.now()
    finally:
        assert service.stdin is not None
        service.stdin.close()
        await service.wait()
    wrong = [*run.wrong]
    if seconds >= 60:
        wrong += growth(samples)
    if after.tasks > before.tasks or after.descriptors > before.descriptors:
        wrong.append(
            f"left behind: {after.tasks - 1} asyncio tasks, {after.descriptors - before.descriptors} descriptors"
        )
    if is_told:
        print(f"{sum(run.endings.values())} endings: {dict(run.endings)}")
        warm, last = samples[len(samples) // 4], samples[-1]
        print(f"memory {warm.memory >> 20} MiB after warming up, {last.memory >> 20} MiB at the end")
        print(f"descriptors {warm.descriptors} after warming up, {last.descriptors} at the end")
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
