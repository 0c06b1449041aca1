"""Workers that fetch the models that they are to serve."""

import json

import pytest

import serving
from stores import CacheServer, FAILED, contents, listed, orion, push, said


TEXT = json.dumps(
    {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a few words", "and others"]}]}
)


class Cluster(serving.Server):
    """A scheduler and a worker that fetches its model."""

    def __init__(self, folder, models, *fetching):
        self.fetching = fetching
        super().__init__("two", folder, models)

    def add_worker(self, name):
        own = ["--name", name, "--data-dir", str(self.folder / name), "--peer", "127.0.0.1:0"]
        return self.start(["worker", "--join", self.session, *own, *self.fetching])

    def embed(self, model):
        status, _, body = self.get(f"/v2/models/{model}/infer", method="POST", body=TEXT)
        assert status == 200, body
        return json.loads(body)["outputs"][0]["data"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("cluster")
    push(models["minilm"], "minilm@1", folder / "store")
    cache = CacheServer(folder / "store", folder / "log")
    served = {"minilm": "store:minilm@1", "plain": models["minilm"]}
    running = Cluster(folder, served, "--from", cache.address)
    yield running, cache
    running.stop()
    if cache.process.child.poll() is None:
        cache.kill()


def test_a_worker_serves_what_it_fetched(cluster):
    running, _ = cluster
    assert running.embed("minilm") == running.embed("plain")
    assert listed(running.folder / "w1/store") == ["minilm@1"]


def test_what_a_worker_uses_is_not_removed(cluster):
    running, _ = cluster
    store = running.folder / "w1/store"
    assert said("cache", "ls", "--store", store)["artifacts"][0]["in_use"]
    assert "in use" in orion("cache", "rm", "minilm@1", "--store", store, status=FAILED).stderr
    orion("cache", "gc", "--store", store)
    orion("cache", "gc", "--store", store, "--store-bytes", "1MB", status=FAILED)
    assert listed(store) == ["minilm@1"] and running.embed("minilm") == running.embed("plain")


def test_a_second_worker_fetches_from_the_first(cluster, models):
    running, cache = cluster
    cache.kill()
    expected = running.embed("plain")
    second = running.add_worker("w2")
    serving.until(lambda: running.nodes().get("w2", {}).get("state") == "ready", "the second worker")
    # Its models move to the second.
    running.orion("nodes", "drain", "w1")
    store = running.folder / "w2/store"
    serving.until(lambda: listed(store) == ["minilm@1"], "the model at the second worker")
    assert contents(next((store / "models").iterdir())) == contents(models["minilm"])
    assert second.child.poll() is None and running.embed("minilm") == expected
