"""Trainings in which workers take steps alone: replicas for slow links, and workers that keep their examples to themselves."""

import random
import struct
import urllib.request

import pytest

import serving
from test_training import PLAN, SEED, Cluster, image
from test_training import cluster as cluster
from test_training import datasets as datasets

NOISY = {"local_steps": 1, "noise": 1}
STEPS = {"steps": 400, "batch": 16, "seed": 5}
LOCAL = {"steps": 10, "replicas": 4}


def course(cluster, least, **changes):
    return cluster.ended(cluster.submit(least=least, **changes))["training"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, datasets):
    """What one worker makes of replicas, and of numbers of two bytes."""
    made = {}
    for name, changes in (
        ("local", {"training": STEPS, "local": LOCAL}),
        ("bf16", {"training": {**STEPS, "exchange": "bf16"}}),
    ):
        cluster = Cluster(tmp_path_factory.mktemp(name), datasets, 1)
        try:
            cluster.ended(cluster.submit(**changes))
            (made[name],) = cluster.weights()
        finally:
            cluster.stop()
    return made


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_replicas_are_those_of_one_worker_whoever_dies(cluster, alone):
    job = cluster.submit(least=2, training=STEPS, local=LOCAL)
    cluster.until_step(job, 100)
    cluster.workers["w2"].kill()
    # It goes on with two of them only.
    serving.until(lambda: "waits for 2 workers" in cluster.job(job)["reason"], "the job to wait")
    cluster.start_worker("w2")
    result = cluster.ended(job)
    assert result["training"]["test_accuracy"] > 0.97 and result["training"]["step"] == 400, result
    assert cluster.weights() == {alone["local"]}
    cluster.serves("quadrants")


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_fewer_bytes_travel_and_the_bits_are_those_of_one_worker(cluster, alone):
    steps = {**STEPS, "steps": 100}
    whole = course(cluster, 2, training=steps)["exchanged_bytes"]
    short = course(cluster, 2, training={**STEPS, "exchange": "bf16"}, name="short")["exchanged_bytes"]
    local = course(cluster, 2, training=steps, local={**LOCAL, "replicas": 2}, name="local")["exchanged_bytes"]
    assert alone["bf16"] in cluster.weights()
    # A share that is no subtree is sent as several sums: how many, the workers' speeds decide.
    assert 0.4 < short / (4 * whole) < 0.65 and 0.04 < local / whole < 0.2, (whole, short, local)


@pytest.fixture
def own(tmp_path):
    """Two workers' own images: one has seen two of the four classes, one the others."""
    folders = []
    for name, classes in (("one", (0, 1)), ("two", (2, 3))):
        generator, folder = random.Random(f"{SEED} {name}"), tmp_path / f"own-{name}" / "private"
        folder.mkdir(parents=True)
        for part, count in (("train", 640), ("t10k", 200)):
            of = [classes[index % 2] for index in range(count)]
            pixels = b"".join(bytes(image(generator, one)) for one in of)
            (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, count, 8, 8) + pixels)
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(of))
        folders.append(folder.parent)
    return folders


FEDERATED = {
    "data": {"train": "private", "classes": 4},
    "training": {"steps": 400, "batch": 32, "seed": 5},
    "optimizer": {"kind": "adamw", "learning_rate": 0.003},
    "federated": {"local_steps": 4, "momentum": 0.8},
}


@pytest.mark.parametrize("cluster", [0], indirect=True)
def test_workers_learn_from_each_other_and_keep_their_examples(cluster, own):
    for name, folder in (("w1", own[0]), ("w2", own[1])):
        cluster.start_worker(name, folder)
    job = cluster.submit(least=2, **FEDERATED)
    result = cluster.ended(job)["training"]
    assert result["test_accuracy"] > 0.95 and result["epsilon"] is None and sorted(result["workers"]) == ["w1", "w2"], result
    # Neither of them has ever seen all four.
    cluster.serves("quadrants")
    images = {path.read_bytes()[16:80] for folder in own for path in folder.glob("private/train-images*")}
    kept = [path.read_bytes() for path in cluster.folder.glob("*/store/**/*") if path.is_file()]
    assert kept and not any(one in file for one in images for file in kept)


@pytest.mark.parametrize("cluster", [0], indirect=True)
def test_workers_that_were_apart_end_with_one_model(cluster, own):
    def start(names):
        for name, folder in names:
            cluster.start_worker(name, folder)

    def kill(names):
        for name in names:
            cluster.workers.pop(name).kill()

    training = {**FEDERATED["training"], "steps": 6000, "evaluate_steps": 400, "checkpoint_steps": 400}
    start([("w1", own[0])])
    job = cluster.submit(**{**FEDERATED, "training": training})
    kept = [cluster.folder / name / "training" / str(job) for name in ("w1", "w2")]
    serving.until(lambda: list(kept[0].glob("*/state.safetensors")), "the first's checkpoint")
    kill(["w1"])
    start([("w2", own[1])])
    serving.until(lambda: list(kept[1].glob("*/state.safetensors")), "the second's checkpoint")
    kill(["w2"])
    start([("w1", own[0]), ("w2", own[1])])
    cluster.ended(job)
    assert len(cluster.weights()) == 1


@pytest.mark.parametrize("cluster", [0], indirect=True)
def test_noise_has_an_epsilon_and_a_loss_that_is_not_told(cluster, own):
    for name, folder in (("w1", own[0]), ("w2", own[1])):
        cluster.start_worker(name, folder)
    noise = {"local_steps": 4, "clip_norm": 1.0, "noise": 0.5, "delta": 1e-3}
    result = course(cluster, 2, **{**FEDERATED, "training": {"steps": 40, "batch": 32}, "federated": noise})
    # Ten rounds: rho is 20; 20 + 2 * sqrt(20 * ln 1000).
    assert abs(result["epsilon"] - 43.507) < 0.01 and result["train_loss"] == 0, result
    cluster.fits("TrainingCourse", result)


@pytest.mark.parametrize("cluster", [0], indirect=True)
def test_who_has_nothing_or_other_images_takes_no_part(cluster, own, tmp_path):
    cluster.start_worker("w1", own[0])
    nothing, other = tmp_path / "nothing", tmp_path / "other" / "private"
    nothing.mkdir()
    other.mkdir(parents=True)
    for part in ("train", "t10k"):
        (other / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 1, 4, 4) + bytes(16))
        (other / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 1) + bytes(1))
    cluster.start_worker("w2", nothing)
    cluster.start_worker("w3", other.parent)
    job = cluster.submit(least=2, **FEDERATED)
    reason = serving.until(lambda: "cannot" in (r := cluster.job(job)["reason"]) and "waits for 2" in r and r, "why it waits")
    assert "'private'" in reason and ("unlike those of worker" in reason or "not in the worker's" in reason), reason
    cluster.start_worker("w4", own[1])
    assert sorted(cluster.ended(job)["training"]["workers"]) == ["w1", "w4"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"local": {"steps": 0}}, "local.steps is 0, it must be from 1"),
        ({"local": LOCAL, "federated": {"local_steps": 1}}, "local and federated are both given"),
        ({"federated": {"local_steps": 1}}, "data.classes must be given with federated"),
        ({**FEDERATED, "data": {"train": "store:a@1", "classes": 4}}, "data.train is 'store:a@1', with federated"),
        ({**FEDERATED, "federated": {"local_steps": 1, "noise": -1}}, "federated.noise is -1"),
        ({**FEDERATED, "federated": NOISY, "training": {"steps": 9, "patience": 1}}, "training.patience chooses weights by"),
        ({**FEDERATED, "federated": NOISY, "training": {"steps": 9, "exchange": "bf16"}}, "training.exchange must be f32"),
        ({"local": {"steps": 1, "replica": 2}}, "local.replica: unknown field"),
        ({"training": {**STEPS, "exchange": "f16"}}, "training.exchange: unknown variant `f16`"),
    ],
)
def test_rounds_that_cannot_be_meant_are_refused(cluster, changes, words):
    status, answer = cluster.call("/v1/jobs", {"training": {**PLAN, **changes}})
    assert status == 400 and words in answer["error"]["message"], answer


def test_classes_that_are_too_few_are_named(cluster):
    job = cluster.submit(data={"train": "quadrants", "classes": 2})
    told = serving.until(lambda: (j := cluster.job(job))["state"] == "failed" and j, "its end")
    assert "data.classes is 2, the greatest class of its examples is 3" in told["reason"], told
    assert urllib.request.urlopen(f"http://{cluster.at['http']}/v1/jobs/{job}/logs", timeout=10).status == 200
