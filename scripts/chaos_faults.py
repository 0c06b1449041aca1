"""Faults: a worker is killed, stopped for a while, or cut off; which one, when, and when it was well again."""

import asyncio
import dataclasses
import os
import random
import signal
import time

RESTART_SECONDS = 2.0
STOP_SECONDS = (0.5, 3.0)
WELL_SECONDS = 30
# What a worker that was away may still cause after it is back: its former connections end.
AFTERWARDS_SECONDS = 1.0


@dataclasses.dataclass
class Fault:
    """Times are seconds since 1970: begun, over, and when the scheduler called the worker ready again."""

    kind: str
    worker: str
    begun: float
    over: float = 0.0
    well: float = 0.0

    def explains(self, worker, at):
        """Whether the worker's silence at that time is this fault's doing."""
        last = self.well + AFTERWARDS_SECONDS if self.well else float("inf")
        return worker == self.worker and self.begun <= at <= last


class Faults:
    """Breaks one worker after another until told to stop. `links` holds each worker's link where there are any."""

    def __init__(self, cluster, kinds, every, seed, links):
        self.cluster, self.kinds, self.every, self.links = cluster, kinds, every, links
        self.random, self.made = random.Random(seed + 1), []

    async def run(self, over):
        while not over.is_set():
            try:
                await asyncio.wait_for(over.wait(), self.every * self.random.uniform(0.9, 1.1))
            except asyncio.TimeoutError:
                kind = self.kinds[len(self.made) % len(self.kinds)]
                await self.make(kind, self.random.choice(sorted(self.cluster.workers)))

    async def make(self, kind, worker):
        program = self.cluster.workers[worker]
        fault = Fault(kind, worker, time.time())
        self.made.append(fault)
        if kind == "kill":
            program.signal(signal.SIGKILL)
            await asyncio.sleep(RESTART_SECONDS)
            program.child.wait()
            program.start()
        elif kind == "cut" and self.links:
            await asyncio.to_thread(self.links[worker].cut)
            await asyncio.sleep(self.random.uniform(*STOP_SECONDS))
            await asyncio.to_thread(self.links[worker].mend)
        else:
            program.signal(signal.SIGSTOP)
            await asyncio.sleep(self.random.uniform(*STOP_SECONDS))
            program.signal(signal.SIGCONT)
        fault.over = time.time()
        # Ready before the fault was noticed is not ready again: a killed worker's session must be a new one.
        while time.time() < fault.over + WELL_SECONDS:
            joined = kind != "kill" or any(
                event["message"] == "worker_joined" and event["worker"] == worker and event["at"] >= fault.begun
                for event in self.cluster.scheduler.events()
            )
            if joined and await asyncio.to_thread(self.cluster.state, worker) == "ready":
                fault.well = time.time()
                return
            await asyncio.sleep(0.05)
        raise SystemExit(f"{worker} was not ready {WELL_SECONDS} s after its fault ({kind}) was over")


def burners():
    """Processes that keep every core busy, at the usual priority; ended by their ids."""
    made = []
    for _ in range(os.cpu_count() or 1):
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            parent = os.getppid()
            while os.getppid() == parent:
                sum(range(100_000))
            os._exit(0)
        made.append(child)
    return made


def end(children):
    for child in children:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
