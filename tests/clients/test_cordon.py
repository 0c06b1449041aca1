"""Nodes are taken out of service and back while requests run: none is lost, and the model moves."""

import asyncio

import pytest

import serving
from test_faults import Load


@pytest.fixture
def cluster(start, tmp_path):
    """Two workers with one simulated device each; the model is on the first until it must move."""
    devices = tmp_path / "devices.toml"
    devices.write_text('[[device]]\nname = "sim0"\nmemory_bytes = 1_000_000_000\n')
    # Ready needs a worker, and the helper's own has this machine's devices: it is told apart by its name.
    server = start("two", {"delay": serving.simulated(tmp_path / "delay", 0.02, max_rows=4, load_seconds=1.0)})
    server.start([
        "worker", "--join", server.session, "--name", "sim", "--data-dir", str(server.folder / "sim"),
        "--simulate", str(devices),
    ])
    serving.until(lambda: server.nodes().get("sim", {}).get("state") == "ready", "the second worker")
    return server


def holds(server, node, model="delay"):
    return any(held["name"] == model and held["state"] == "ready" for held in server.nodes()[node]["models"])


def where(server):
    return [node for node in ("w1", "sim") if holds(server, node)]


def test_draining_under_load_loses_nothing_and_moves_the_model(cluster):
    load = Load(cluster, "delay")

    async def command(*arguments):
        return await asyncio.to_thread(cluster.orion, "nodes", *arguments)

    async def script():
        await load.more(50, "before anything")
        for node, other in (("w1", "sim"), ("sim", "w1")):
            said = await command("drain", node)
            assert said == {"name": node, "state": "ready", "cordon": "drained"}
            assert await asyncio.to_thread(holds, cluster, other), "a drained node's model is elsewhere"
            done = (await asyncio.to_thread(cluster.nodes))[node]["batches_done"]
            await load.more(50, f"while {node} is drained")
            assert (await asyncio.to_thread(cluster.nodes))[node]["batches_done"] == done, "a drained node got work"
            said = await command("uncordon", node)
            assert said == {"name": node, "state": "ready", "cordon": ""}
        await load.more(50, "after all")

    asyncio.run(load.drive(script))
    assert load.answered == load.sent and not load.refused, load.refused


def test_a_cordoned_node_keeps_its_models_and_gets_no_others(cluster):
    (node,) = where(cluster) or ["w1"]
    other = "sim" if node == "w1" else "w1"
    assert cluster.orion("nodes", "cordon", other) == {"name": other, "state": "ready", "cordon": "cordoned"}
    refusals = [place["refusal"] for place in cluster.orion("explain", "delay")["places"] if place["worker"] == other]
    assert refusals == ["the worker is cordoned"]
    assert cluster.orion("nodes", "cordon", node)["cordon"] == "cordoned"
    status, _, _ = cluster.get(
        "/v2/models/delay/infer", method="POST",
        body='{"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]}',
    )
    assert status == 200 and holds(cluster, node) and not holds(cluster, other), "it goes on with what it holds"
    assert cluster.orion("nodes", "uncordon", other)["cordon"] == ""
    refusals = [place["refusal"] for place in cluster.orion("explain", "delay")["places"] if place["worker"] == other]
    assert refusals == [""]


def test_unknown_nodes(cluster):
    for action in ("cordon", "drain", "uncordon"):
        with pytest.raises(AssertionError, match="node 'x' is unknown, the nodes are: sim, w1"):
            cluster.orion("nodes", action, "x")


def test_what_operators_made_of_nodes_outlives_the_scheduler(cluster):
    cluster.worker.kill()
    for action, name in (("cordon", "w1"), ("drain", "sim")):
        cluster.orion("nodes", action, name)
    cluster.scheduler.kill()
    cluster.start_scheduler()
    serving.until(lambda: cluster.nodes().get("sim", {}).get("state") == "ready", "the worker that is still there")
    made = lambda: {node["name"]: (node["state"], node["cordon"]) for node in cluster.orion("nodes")}
    assert made() == {"w1": ("absent", "cordoned"), "sim": ("ready", "drained")}
    assert cluster.orion("nodes", "drain", "w1") == {"name": "w1", "state": "absent", "cordon": "drained"}
    # Where that cannot be kept, it is said.
    (cluster.folder / "scheduler" / "nodes.tmp").mkdir()
    with pytest.raises(AssertionError, match="it is done, but a scheduler that is started anew would not know: .*nodes.json"):
        cluster.orion("nodes", "cordon", "sim")
    assert made()["sim"] == ("ready", "cordoned")
    (cluster.folder / "scheduler" / "nodes.tmp").rmdir()
    assert cluster.orion("nodes", "uncordon", "w1") == {"name": "w1", "state": "absent", "cordon": ""}
    assert set(made()) == {"sim"}
