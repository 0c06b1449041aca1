"""Sends a trace's arrivals when they are due, whatever was answered, and notes how each ended."""

import asyncio
import collections
import time

import grpc
import grpc.aio

import inference_wire as wire
from chaos_load import kind_of

# Streams that are open at once on one connection are 256; what is beyond waits in the client.
CHANNELS = 8
GRACE_SECONDS = 10
TENSOR = b"\0\0\x80\x3f"


class Client:
    """Latencies and lateness are seconds, by arrival; None where there was no answer."""

    def __init__(self, address, arrivals, window):
        self.arrivals, self.window = arrivals, window
        self.channels = [grpc.aio.insecure_channel(address, wire.CHANNEL_OPTIONS) for _ in range(CHANNELS)]
        self.calls = [channel.unary_unary(wire.INFER) for channel in self.channels]
        models = {model for _, model in arrivals}
        self.heads = {model: wire.head(f"m{model}", [("INPUT0", "FP32", [1])], {}) for model in models}
        self.tail = wire.request(b"", "", TENSOR)
        self.latency, self.late = [None] * len(arrivals), [0.0] * len(arrivals)
        self.refused, self.lost = collections.Counter(), 0
        self.settled = [0.0] * len(arrivals)

    async def warm(self):
        """Connects; the model that every server has answers."""
        ask = wire.request(wire.head("identity", [("INPUT0", "FP32", [1])], {}), "", TENSOR)
        for call in self.calls:
            await call(ask)

    async def call(self, index, model, due):
        self.late[index] = late = time.perf_counter() - due
        # The deadline is the schedule's, not the sender's: what was lost here is taken off.
        left = max(1, round((self.window - late) * 1e6))
        message = self.heads[model] + wire.parameter("timeout", left) + self.tail
        try:
            await asyncio.wait_for(self.calls[index % CHANNELS](message), self.window + GRACE_SECONDS)
        except grpc.aio.AioRpcError as error:
            self.refused[error.code().name, kind_of(error.details() or "")] += 1
        except asyncio.TimeoutError:
            self.lost += 1
            return
        else:
            self.latency[index] = time.perf_counter() - due
        self.settled[index] = time.perf_counter() - due

    async def drive(self):
        """Arrivals are (seconds from now, model)."""
        await self.warm()
        tasks, start = [], time.perf_counter() + 0.2
        for index, (at, model) in enumerate(self.arrivals):
            due = start + at
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            elif index % 16 == 0:
                # Behind, and still the answers must be read.
                await asyncio.sleep(0)
            tasks.append(asyncio.create_task(self.call(index, model, due)))
        await asyncio.gather(*tasks)
        for channel in self.channels:
            await channel.close()
