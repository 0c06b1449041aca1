"""Requests in an open loop, each with a number of its own, and what became of each."""

import asyncio
import dataclasses
import math
import random
import re
import struct
import time

import grpc
import grpc.aio

import inference_wire as wire

STREAMS = 4
STREAMED_SHARE = 0.1
CHANNELS = 4
# How long after its deadline a request may be answered before it counts as lost.
GRACE_SECONDS = 10
NOT_IDEMPOTENT_SHARE = 0.1
TEXTS = 32


@dataclasses.dataclass
class Sent:
    """One request. Times are seconds since 1970; `intended` is when the schedule wanted it sent."""

    number: int
    model: str
    intended: float
    idempotent: bool
    streamed: bool
    text: int = 0
    sent: float = 0.0
    settled: float = 0.0
    code: str = ""
    reason: str = ""
    times_settled: int = 0
    mixed_up: bool = False


def same_direction(a, b):
    """Whether two FP32 tensors are the same embedding, whatever batch each was computed in."""
    if len(a) != len(b) or not a:
        return False
    x, y = (struct.unpack(f"<{len(one) // 4}f", one) for one in (a, b))
    along = sum(p * q for p, q in zip(x, y))
    return along > 0.999 * math.sqrt(sum(p * p for p in x) * sum(q * q for q in y))


class Load:
    """Sends to models that give back their input, or to one that embeds text (`embeds`)."""

    def __init__(self, address, models, rate, deadline, seed, embeds=False):
        self.random, self.models, self.rate, self.deadline, self.embeds = random.Random(seed), models, rate, deadline, embeds
        self.channels = [grpc.aio.insecure_channel(address, wire.CHANNEL_OPTIONS) for _ in range(CHANNELS)]
        self.calls = [channel.unary_unary(wire.INFER) for channel in self.channels]
        shape = ("text", "BYTES", [1]) if embeds else ("INPUT0", "FP32", [1, 2])
        micros = round(deadline * 1e6)
        self.heads = {
            (model, idempotent): wire.head(model, [shape], {"timeout": micros, "idempotent": idempotent})
            for model in models for idempotent in (True, False)
        }
        self.sent, self.by_id, self.expected = [], {}, []

    def tensor(self, one):
        if self.embeds:
            return wire.text_tensor(f"sentence number {one.text} about subject {one.text * 37 % 101}")
        # FP32 has 24 bits for whole numbers: two of them hold 48.
        return struct.pack("<2f", one.number % 2**24, one.number >> 24)

    def message(self, one):
        return wire.request(self.heads[one.model, one.idempotent], str(one.number), self.tensor(one))

    def settle(self, one, code, reason="", tensor=b""):
        one.times_settled += 1
        if one.times_settled > 1:
            return
        one.settled, one.code, one.reason = time.time(), code, reason
        if code == "OK":
            right = same_direction(tensor, self.expected[one.text]) if self.embeds else tensor == self.tensor(one)
            one.mixed_up |= not right

    async def learn(self):
        """What each text's embedding is, asked for one at a time while nothing fails."""
        for text in range(TEXTS if self.embeds else 0):
            asked = Sent(-1, self.models[0], 0.0, True, False, text)
            self.expected.append(wire.answer(await self.calls[0](self.message(asked)))[1])

    async def call(self, one):
        try:
            answer = await asyncio.wait_for(self.calls[one.number % CHANNELS](self.message(one)), self.deadline + GRACE_SECONDS)
        except grpc.aio.AioRpcError as error:
            return self.settle(one, error.code().name, error.details() or "")
        except asyncio.TimeoutError:
            return None
        identifier, tensor = wire.answer(answer)
        one.mixed_up |= identifier != str(one.number)
        return self.settle(one, "OK", tensor=tensor)

    async def read(self, stream):
        """A stream shows what a call cannot: a second answer."""
        async for message in stream:
            error, identifier, tensor = wire.streamed_answer(message)
            self.settle(self.by_id[identifier], "REFUSED_IN_STREAM" if error else "OK", error, tensor)

    async def drive(self, seconds, over):
        """Sends for so long at random intervals, then waits until all are settled or given up. `over` is set in between."""
        streams = [self.channels[n % CHANNELS].stream_stream(wire.STREAM)() for n in range(STREAMS)]
        readers = [asyncio.create_task(self.read(stream)) for stream in streams]
        calls, at, number = set(), time.time(), 0
        end = at + seconds
        while (at := at + self.random.expovariate(self.rate)) < end:
            if (wait := at - time.time()) > 0:
                await asyncio.sleep(wait)
            number += 1
            idempotent, streamed = self.random.random() >= NOT_IDEMPOTENT_SHARE, self.random.random() < STREAMED_SHARE
            one = Sent(number, self.random.choice(self.models), at, idempotent, streamed, self.random.randrange(TEXTS))
            self.sent.append(one)
            self.by_id[str(number)] = one
            one.sent = time.time()
            if streamed:
                await streams[number % STREAMS].write(self.message(one))
            else:
                task = asyncio.create_task(self.call(one))
                calls.add(task)
                task.add_done_callback(calls.discard)
        over.set()
        if calls:
            await asyncio.gather(*calls)
        for stream in streams:
            await stream.done_writing()
        await asyncio.wait(readers, timeout=self.deadline + GRACE_SECONDS)
        for reader in readers:
            reader.cancel()
        broken = [done for done in await asyncio.gather(*readers, return_exceptions=True) if isinstance(done, Exception)]
        for channel in self.channels:
            await channel.close()
        if broken:
            raise SystemExit(f"a stream of requests broke, which the scheduler must never do: {broken[0]!r}")


def kind_of(reason):
    """A reason without its numbers, so that alike ones are counted together."""
    return re.sub(r"\d+(\.\d+)?", "N", reason)[:160]
