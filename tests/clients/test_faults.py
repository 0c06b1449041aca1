"""Processes die and are stopped under load: every request gets an answer or a status, none hangs."""

import asyncio
import signal
import time

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio

import serving

ROUNDS = 10 if serving.LONG else 2
IN_FLIGHT = 16
HANG_SECONDS = 30


class Load:
    """Requests in a closed loop, each with a value of its own, and how each ended."""

    def __init__(self, server, model):
        self.server, self.model = server, model
        self.going, self.answered, self.refused, self.sent = True, 0, {}, 0

    async def request(self, client):
        self.sent += 1
        value = np.full((1, 4), self.sent, np.float32)
        tensor = tritonclient.grpc.InferInput("INPUT0", [1, 4], "FP32")
        tensor.set_data_from_numpy(value)
        try:
            answer = await asyncio.wait_for(client.infer(self.model, [tensor]), HANG_SECONDS)
        except tritonclient.utils.InferenceServerException as error:
            assert error.message(), error
            self.refused[error.status()] = self.refused.get(error.status(), 0) + 1
            return
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), value)
        self.answered += 1

    async def slot(self, client):
        while self.going:
            await self.request(client)

    async def drive(self, script):
        """Runs the script beside the load, then waits for every request."""
        client = tritonclient.grpc.aio.InferenceServerClient(self.server.grpc)
        slots = [asyncio.create_task(self.slot(client)) for _ in range(IN_FLIGHT)]
        try:
            await script()
        finally:
            self.going = False
            outcomes = await asyncio.gather(*slots, return_exceptions=True)
            await client.close()
        for outcome in outcomes:
            assert outcome is None, f"a request hung or came back wrong: {outcome!r}"

    async def more(self, count, what):
        """Waits until that many more were answered."""
        goal, end = self.answered + count, time.monotonic() + serving.START_SECONDS
        while self.answered < goal:
            assert time.monotonic() < end, f"{what}: {self.answered} of {goal} answered, refused {self.refused}"
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("model", ["identity", "delay"])
def test_kill_the_worker_and_start_it_again(start, tmp_path, model):
    server = start("two", {"delay": serving.simulated(tmp_path / "delay", 0.02)})
    load = Load(server, model)

    def state():
        return server.nodes().get("w1", {}).get("state")

    async def script():
        for _ in range(ROUNDS):
            await load.more(50, "before the worker is killed")
            server.worker.kill()
            await asyncio.to_thread(serving.until, lambda: state() != "ready", "the loss to be seen")
            server.start_worker()
            await asyncio.to_thread(serving.until, lambda: state() == "ready", "the worker to be back")
            await load.more(50, "after the worker is back")

    asyncio.run(load.drive(script))
    assert set(load.refused) <= {"StatusCode.UNAVAILABLE", "StatusCode.RESOURCE_EXHAUSTED"}, load.refused
    told = str(server.orion("nodes", "show", "w1")).lower()
    assert "suspect" in told or "dead" in told or "lost" in told, told
    assert server.figure("requests_queued") == server.figure("requests_running") == 0


@pytest.mark.parametrize("stopped", ["up", "scheduler", "worker"])
def test_sigterm_drops_no_accepted_request(start, tmp_path, stopped):
    """8 requests of a model that takes half a second are inside when the signal comes: all 8 are answered."""
    server = start("up" if stopped == "up" else "two", {"slow": serving.simulated(tmp_path / "slow", 0.5)})
    process = server.worker if stopped == "worker" else server.scheduler

    async def accepted():
        client = tritonclient.grpc.aio.InferenceServerClient(server.grpc)
        tensor = tritonclient.grpc.InferInput("INPUT0", [1], "FP32")
        tensor.set_data_from_numpy(np.ones(1, np.float32))
        calls = [asyncio.create_task(client.infer("slow", [tensor], request_id=str(n))) for n in range(8)]

        def inside():
            return server.figure("requests_queued") + server.figure("requests_running") == 8

        await asyncio.to_thread(serving.until, inside, "8 requests to be inside", 5)
        process.child.send_signal(signal.SIGTERM)
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), HANG_SECONDS)
        await client.close()
        return outcomes

    outcomes = asyncio.run(accepted())
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if stopped == "worker":
        # What it runs is answered; what waited in the scheduler has nowhere to go, and is told so.
        assert len(failed) < len(outcomes), "the running batch was lost"
        failed = [error for error in failed if getattr(error, "status", str)() != "StatusCode.UNAVAILABLE"]
    assert not failed, failed
    process.stop()


@pytest.mark.parametrize("model", ["identity", "delay"])
def test_a_worker_leaves_under_load_without_losing_what_it_has(start, tmp_path, model):
    """Two workers; one is stopped with SIGTERM: the other goes on, and no request fails."""
    server = start("two", {"delay": serving.simulated(tmp_path / "delay", 0.005)})
    second = server.add_worker("w2")
    load = Load(server, model)

    def state(name):
        return server.nodes().get(name, {}).get("state")

    async def script():
        await asyncio.to_thread(serving.until, lambda: state("w2") == "ready", "the second worker")
        await load.more(100, "before the worker leaves")
        await asyncio.to_thread(second.stop)
        assert state("w2") == "left"
        await load.more(100, "after the worker has left")

    asyncio.run(load.drive(script))
    assert not load.refused, load.refused


@pytest.mark.parametrize("pause", [0.3, 0.74, 0.76, 0.8, 3.0])
def test_a_worker_that_freezes_is_back_afterwards(start, tmp_path, pause):
    """SIGSTOP around the length of the lease: whatever the scheduler made of it, the worker serves again."""
    server = start("two", {"delay": serving.simulated(tmp_path / "delay", 0.005)})
    load = Load(server, "delay")

    async def script():
        for _ in range(ROUNDS):
            await load.more(20, "before the worker freezes")
            server.worker.child.send_signal(signal.SIGSTOP)
            await asyncio.sleep(pause)  # the length is the point: nothing is awaited
            server.worker.child.send_signal(signal.SIGCONT)
            await load.more(50, f"after a freeze of {pause} s")

    asyncio.run(load.drive(script))
    assert set(load.refused) <= {"StatusCode.UNAVAILABLE", "StatusCode.RESOURCE_EXHAUSTED"}, load.refused


@pytest.mark.parametrize("shape", ["up", "two"])
def test_sigterm_under_load(start, shape):
    """Whatever is sent while it drains is answered or refused with UNAVAILABLE."""
    server = start(shape)
    load = Load(server, "identity")

    async def script():
        await load.more(100, "before the signal")
        server.scheduler.child.send_signal(signal.SIGTERM)
        await asyncio.to_thread(server.scheduler.child.wait, serving.DRAIN_SECONDS)

    asyncio.run(load.drive(script))
    assert set(load.refused) <= {"StatusCode.UNAVAILABLE"}, load.refused


def test_a_worker_waits_for_its_scheduler(start):
    """It keeps trying while nobody is there, and serves whoever comes back at that address."""
    server = start("two")
    server.scheduler.kill()
    server.start_scheduler()
    server.until_ready()
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    tensor = tritonclient.grpc.InferInput("INPUT0", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    assert client.infer("identity", [tensor]).as_numpy("OUTPUT0").tolist() == [1]
    client.close()
    assert server.worker.child.poll() is None


def test_a_scheduler_that_comes_back_orders_no_load_onto_a_full_device(start, tmp_path):
    """14 models, room for 10: after a restart those that are there are kept, and nothing is loaded beside them."""
    (tmp_path / "devices.toml").write_text('[[device]]\nname = "d"\nmemory_bytes = 1000\n')
    models = {}
    for number in range(14):
        folder = serving.simulated(tmp_path / f"m{number}", 0.01)
        settings = folder / "orion.toml"
        settings.write_text(settings.read_text().replace("memory_bytes = 1048576", "memory_bytes = 100"))
        models[f"m{number}"] = folder
    server = start("two", {"m0": models["m0"]}, arguments=[a for n, m in models.items() if n != "m0" for a in ("--model", f"{n}={m}")])
    emulated = server.start(["worker", "--join", server.session, "--name", "full", "--data-dir", str(tmp_path / "full"),
                             "--simulate", str(tmp_path / "devices.toml")])
    serving.until(lambda: server.nodes().get("full", {}).get("state") == "ready", "the second worker")
    server.worker.stop()

    def there():
        states = [model["state"] for model in server.nodes().get("full", {"models": []})["models"]]
        return states.count("ready") >= 10 and states

    serving.until(there, "ten models on the device")
    for _ in range(3):
        server.scheduler.kill()
        server.start_scheduler()
        serving.until(there, "its models after the restart")
    failed = [line for line in emulated.text().splitlines() if "model_load_failed" in line]
    assert not failed, failed[0]
