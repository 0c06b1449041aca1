"""Workers that cannot reach each other: their models pass through the scheduler, and only then."""

import json
import os
import sys
import threading

import grpc
import pytest

import serving
from stores import contents, listed, push

sys.path.insert(0, str(serving.ROOT / "scripts"))
import worker_networks  # noqa: E402

MODEL = "minilm"
TEXT = json.dumps(
    {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a few words", "and others"]}]}
)


class Cluster(serving.Server):
    """A scheduler, and a worker `w1` whose store has the model."""

    def __init__(self, folder, models, *arguments, peer=(), host="127.0.0.1", token_file=None, before=()):
        self.peer, self.before, self.host = list(peer), {"w1": before}, host
        self.store = folder / "w1/store"
        push(models[MODEL], f"{MODEL}@1", self.store)
        served = {MODEL: f"store:{MODEL}@1", "plain": models[MODEL]}
        super().__init__("two", folder, served, token_file=token_file, arguments=arguments)

    def start_scheduler(self):
        if self.host != "127.0.0.1":
            self.session = "0.0.0.0:0"
        super().start_scheduler()

    def add_worker(self, name, before=None, join=None):
        own = ["--name", name, "--data-dir", str(self.folder / name), *self.peer]
        inside = self.before.setdefault(name, before or ())
        at = join or self.session.replace("0.0.0.0", self.host)
        return self.start(["worker", "--join", at, *own], before=inside)

    def start(self, arguments, before=()):
        if not before:
            return super().start(arguments)
        log = self.folder / f"{len(self.processes)}-{arguments[0]}.log"
        process = serving.Process([*arguments, "--log-format", "json", *self.token_flags], log, before=before)
        self.processes.append(process)
        return process

    def embed(self, model):
        status, _, body = self.get(f"/v2/models/{model}/infer", method="POST", body=TEXT)
        assert status == 200, body
        return json.loads(body)["outputs"][0]["data"]

    def metric(self, name):
        status, _, body = self.get("/metrics", address=self.metrics)
        assert status == 200
        lines = [line.split() for line in body.decode().splitlines() if line.startswith(f"{name} ")]
        return int(float(lines[0][1]))

    def link_to(self, name, address=None):
        """What the first worker saw of its link to another, to which it sent chunks."""

        def seen():
            shown = self.orion("nodes", "show", "w1")
            links = [link for key, value in serving.walk([shown]) if key == "peer_links" for link in value]
            return [link["link"] for link in links if link["worker"] == name and address in (None, link["address"])]

        return serving.until(seen, f"the link from the first worker to {name}")[0]

    def until_here(self, name, what="ready"):
        serving.until(lambda: self.nodes().get(name, {}).get("state") == what, f"worker {name}")

    def moved_to(self, name, models):
        """The model serves from another worker, as it did."""
        expected = self.embed("plain")
        self.orion("nodes", "drain", "w1")
        store = self.folder / name / "store"
        serving.until(lambda: listed(store) == [f"{MODEL}@1"], f"the model at {name}")
        assert contents(next((store / "models").iterdir())) == contents(models[MODEL])
        assert self.embed(MODEL) == expected


@pytest.fixture
def cluster(tmp_path, models):
    started = []

    def start(*arguments, **more):
        started.append(Cluster(tmp_path, models, *arguments, **more))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def sent_bytes(models):
    """What the model takes on the wire, at least: its chunks as they are published."""
    return sum(len(content) for content in contents(models[MODEL]).values()) // 2


def test_who_listens_nowhere_is_fetched_from_through_the_scheduler(cluster, models):
    running = cluster()
    running.add_worker("w2")
    running.until_here("w2")
    running.moved_to("w2", models)
    size = sum(len(content) for content in contents(models[MODEL]).values())
    relayed = running.metric("orion_relayed_bytes_total")
    assert sent_bytes(models) < relayed < 1.05 * size
    serving.until(lambda: running.metric("orion_relayed_connections") == 0, "the end of what was relayed")
    link = running.link_to("w2", address="relay:w2")
    # Of two connections nobody knows what they lose.
    assert link["bytes_per_second"] > 0 and link["loss"] is None


def test_with_a_token_it_is_the_same(cluster, models, tmp_path):
    token = tmp_path / "token"
    token.write_text("only-for-this-cluster")
    token.chmod(0o600)
    running = cluster(token_file=token)
    running.add_worker("w2")
    running.until_here("w2")
    running.moved_to("w2", models)
    assert running.metric("orion_relayed_bytes_total") > sent_bytes(models)


def test_in_one_process_with_the_scheduler_too(tmp_path, models):
    push(models[MODEL], f"{MODEL}@1", tmp_path / "up/store")
    running = serving.Server("up", tmp_path, {MODEL: f"store:{MODEL}@1"})
    try:
        running.add_worker("w2")
        serving.until(lambda: running.nodes().get("w2", {}).get("state") == "ready", "the second worker")
        running.orion("nodes", "drain", "local")
        serving.until(lambda: listed(tmp_path / "w2/store") == [f"{MODEL}@1"], "the model at the second worker")
    finally:
        running.stop()


def test_who_can_be_reached_is_fetched_from_there(cluster, models):
    running = cluster(peer=["--peer", "127.0.0.1:0"])
    running.add_worker("w2")
    running.until_here("w2")
    running.moved_to("w2", models)
    # Not one chunk.
    assert running.metric("orion_relayed_bytes_total") < 10_000
    link = running.link_to("w2")
    assert link["grade"] and link["round_trip_seconds"] > 0 and 0 <= link["loss"] < 0.05


def test_a_scheduler_that_relays_nothing_says_so(cluster):
    running = cluster("--relay-mb-per-second", "0")
    running.add_worker("w2")
    running.until_here("w2")
    running.orion("nodes", "drain", "w1")
    log = running.processes[-1]
    serving.until(lambda: "no other worker" in log.text(), "why the second worker has no model")
    assert listed(running.folder / "w2/store") == [] and running.metric("orion_relayed_bytes_total") == 0
    channel = grpc.insecure_channel(running.session)
    with pytest.raises(grpc.RpcError) as refusal:
        next(dial(channel, "w1"))
    assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED and "relays nothing" in refusal.value.details()


def test_a_worker_that_dies_meanwhile_costs_what_was_on_the_way(cluster, models):
    running = cluster("--relay-mb-per-second", "20")
    running.add_worker("w2")
    size = sum(len(content) for content in contents(models[MODEL]).values())
    # It is brought before anybody needs it there.
    serving.until(lambda: running.metric("orion_relayed_bytes_total") > size // 4, "a part of the model")
    running.worker.kill()
    assert listed(running.folder / "w2/store") == []
    running.start_worker()
    store = running.folder / "w2/store"
    serving.until(lambda: listed(store) == [f"{MODEL}@1"], "the model at the second worker")
    # In whichever form it travels, the whole is at least two thirds of its size.
    assert running.metric("orion_relayed_bytes_total") < 0.9 * size


def dial(channel, worker=None, ticket=None, messages=None):
    """One end of a relayed connection, made by hand; it stays open."""
    key, value = ("orion-relay-worker", worker) if ticket is None else ("orion-relay-ticket", ticket)
    method = "Dial" if ticket is None else "Accept"
    held = threading.Event()

    def kept_open():
        yield from messages or ()
        held.wait(30)

    call = channel.stream_stream(f"/orion.session.v1.Relay/{method}")
    answers = call(kept_open(), metadata=[(key, value)] if value is not None else [], timeout=20)
    answers.add_callback(held.set)
    return answers


def test_a_stranger_is_refused(cluster, tmp_path):
    token = tmp_path / "token"
    token.write_text("only-for-this-cluster")
    token.chmod(0o600)
    running = cluster(token_file=token)
    with grpc.insecure_channel(running.session) as channel, pytest.raises(grpc.RpcError) as refusal:
        next(dial(channel, "w1"))
    assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "end, code, words",
    [
        ({"worker": "nobody"}, grpc.StatusCode.NOT_FOUND, "no worker is named 'nobody'"),
        ({"worker": None}, grpc.StatusCode.INVALID_ARGUMENT, "orion-relay-worker"),
        ({"ticket": "0" * 32}, grpc.StatusCode.NOT_FOUND, "nobody waits"),
    ],
)
def test_what_names_nobody_is_refused(cluster, end, code, words):
    running = cluster()
    with grpc.insecure_channel(running.session) as channel, pytest.raises(grpc.RpcError) as refusal:
        next(dial(channel, **end))
    assert refusal.value.code() == code and words in refusal.value.details()


def test_garbage_through_the_relay_ends_its_connection_alone(cluster, models):
    running = cluster()
    garbage = b"\x0a\x04\xff\x00\xff\x00"  # Relayed { bytes: ff 00 ff 00 }
    with grpc.insecure_channel(running.session) as channel:
        for _ in range(20):
            answers = dial(channel, "w1", messages=[garbage] * 20)
            with pytest.raises((grpc.RpcError, StopIteration)):
                while True:
                    next(answers)
            assert answers.code() != grpc.StatusCode.DEADLINE_EXCEEDED
    running.add_worker("w2")
    running.until_here("w2")
    running.moved_to("w2", models)


@pytest.fixture
def networks():
    """Two networks, from each of which this one is reached."""
    try:
        links = worker_networks.links(2)
    except OSError as error:
        (pytest.fail if os.environ.get("ORION_TEST_NAMESPACES") else pytest.skip)(str(error))
    yield links
    for link in links:
        link.remove()


def test_workers_of_two_networks(networks, cluster, models):
    """Both listen, each in a network of its own; what one sends to the other is lost on the way."""
    links = networks
    for link in links:
        link.inside("ip", "route", "add", "default", "via", link.host)
    hosts = [link.host.removesuffix("1") + "2" for link in links]
    running = cluster(
        "--insecure", peer=["--peer", f"{hosts[0]}:0", "--insecure"], host=links[0].host, before=links[0].before
    )
    running.peer = ["--peer", f"{hosts[1]}:0", "--insecure"]
    join = running.session.replace("0.0.0.0", links[1].host)
    running.add_worker("w2", before=links[1].before, join=join)
    running.until_here("w2")
    running.moved_to("w2", models)
    assert running.metric("orion_relayed_bytes_total") > sent_bytes(models)
