"""Models are trained by whoever is there, and the weights are those of one worker alone, whatever dies meanwhile."""

import hashlib
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc
from jsonschema import Draft202012Validator

import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402

SEED = 11
PLAN = {
    "name": "quadrants",
    "model": {"kind": "cnn", "channels": [8, 16], "hidden": [32], "dropout": 0.1},
    "data": {"train": "quadrants"},
    "training": {"epochs": 2, "batch": 64, "seed": 5},
}
TOML = """
name = "quadrants"
[model]
kind = "cnn"
channels = [8, 16]
hidden = [32]
[data]
train = "quadrants"
[training]
epochs = 9
batch = 64
"""
# So many that all that is done to it is done before its end.
LONG = {"epochs": 150, "batch": 64, "seed": 5}


def image(generator, of):
    inside = [(pixel // 8) // 4 == of // 2 and (pixel % 8) // 4 == of % 2 for pixel in range(64)]
    return [(120 if bright else 40) + generator.randrange(90) for bright in inside]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Images of 8 by 8 pixels, whose brighter quarter is their class."""
    print("seed", SEED)
    generator, folder = random.Random(SEED), tmp_path_factory.mktemp("datasets")
    (folder / "quadrants").mkdir()
    for part, count in (("train", 3200), ("t10k", 800)):
        classes = [index % 4 for index in range(count)]
        pixels = b"".join(bytes(image(generator, of)) for of in classes)
        images = struct.pack(">4B3I", 0, 0, 8, 3, count, 8, 8) + pixels
        labels = struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(classes)
        (folder / "quadrants" / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / "quadrants" / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return folder


class Cluster:
    """A scheduler and workers, which keep their addresses and folders over their lives."""

    def __init__(self, folder, datasets, workers):
        self.folder, self.datasets, self.lives, self.logs = folder, datasets, 0, []
        self.at, self.workers = dict.fromkeys(serving.LISTENERS, "127.0.0.1:0"), {}
        self.start_scheduler()
        for number in range(workers):
            self.start_worker(f"w{number + 1}")

    def process(self, name, arguments):
        self.lives += 1
        self.logs.append(self.folder / f"{name}-{self.lives}.log")
        return serving.Process([*arguments, "--data-dir", str(self.folder / name), "--log-format", "json"], self.logs[-1])

    def start_scheduler(self):
        listeners = [part for listener in serving.LISTENERS for part in (f"--{listener}", self.at[listener])]
        self.scheduler = self.process("scheduler", ["scheduler", *listeners])
        self.at = serving.until(self.scheduler.addresses, "the scheduler")

    def start_worker(self, name, datasets=None):
        arguments = ["worker", "--join", self.at["session"], "--name", name, "--peer", "127.0.0.1:0"]
        self.workers[name] = self.process(name, [*arguments, "--datasets", str(datasets or self.datasets)])
        serving.until(lambda: "worker_joined" in self.scheduler.text() and name in self.scheduler.text(), f"worker {name}")

    def call(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.at['http']}{path}", data, {"content-type": "application/json"})
        request.method = method or ("GET" if body is None else "POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def orion(self, *arguments):
        """A client command: its exit status, what it prints, and its errors."""
        command = [str(serving.BINARY), *arguments, "--server", self.at["grpc"]]
        done = subprocess.run(command, capture_output=True, text=True, env=serving.environment(), timeout=60, check=False)
        assert "panicked" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def fits(self, schema, value):
        """Whether /openapi.json says so."""
        components = self.call("/openapi.json")[1]["components"]
        Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": components}).validate(value)

    def submit(self, least=1, most=0, **changes):
        plan = {**PLAN, "workers": {"least": least, "most": most}, **changes}
        status, job = self.call("/v1/jobs", {"training": plan, "retry": {"attempts": 1}})
        assert status in (200, 201, 202), job
        return job["id"]

    def job(self, number):
        try:
            return self.call(f"/v1/jobs/{number}")[1]
        except OSError:
            return {"state": "away", "training": None}

    def step(self, number):
        return (self.job(number)["training"] or {}).get("step", 0)

    def until_step(self, number, step):
        return serving.until(lambda: self.step(number) >= step, f"step {step} of job {number}")

    def ended(self, number):
        job = serving.until(lambda: (j := self.job(number))["state"] in ("succeeded", "failed", "cancelled") and j, "its end", 120)
        assert job["state"] == "succeeded", job["reason"]
        return self.call(f"/v1/jobs/{number}/result")[1]

    def log_of(self, name):
        return "".join(log.read_text() for log in self.logs if log.name.startswith(f"{name}-"))

    def weights(self):
        files = self.folder.glob("*/store/models/*/model.safetensors")
        return {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def infer(self, model, classes, generator):
        data = [float(pixel) for of in classes for pixel in image(generator, of)]
        tensor = {"name": "image", "shape": [len(classes), 1, 8, 8], "datatype": "FP32", "data": data}
        status, answer = self.call(f"/v2/models/{model}/infer", {"inputs": [tensor]})
        return status, {output["name"]: output["data"] for output in answer.get("outputs", [])}

    def serves(self, model):
        classes, generator = [0, 1, 2, 3] * 8, random.Random(SEED + 1)
        status, outputs = serving.until(
            lambda: (answer := self.infer(model, classes, generator))[0] == 200 and answer, f"{model} to be served"
        )
        right = sum(found == of for found, of in zip(outputs["class"], classes, strict=True))
        assert (status, len(outputs["logits"])) == (200, 4 * len(classes)) and right >= 30, outputs["class"]
        generator = random.Random(SEED + 1)
        pixels = np.array([image(generator, of) for of in classes], np.float32).reshape(-1, 1, 8, 8)
        with tritonclient.grpc.InferenceServerClient(self.at["grpc"]) as client:
            tensor = tritonclient.grpc.InferInput("image", list(pixels.shape), "FP32").set_data_from_numpy(pixels)
            answer = client.infer(model, [tensor])
        assert answer.as_numpy("class").tolist() == outputs["class"]

    def stop(self):
        for process in (self.scheduler, *self.workers.values()):
            if process.child.poll() is None:
                process.kill()
        for log in self.logs:
            assert "panicked" not in log.read_text(), log.read_text()


@pytest.fixture
def cluster(request, tmp_path, datasets):
    made = Cluster(tmp_path, datasets, getattr(request, "param", 1))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def oracle(tmp_path_factory, datasets):
    """The weights of the long training, by one worker to which nothing happens."""
    cluster = Cluster(tmp_path_factory.mktemp("oracle"), datasets, 1)
    try:
        assert cluster.ended(cluster.submit(training=LONG))["training"]["cohorts"] == 1
        (weights,) = cluster.weights()
        return weights
    finally:
        cluster.stop()


def test_what_was_trained_is_served_also_after_a_restart(cluster):
    plan = cluster.folder / "plan.toml"
    plan.write_text(TOML)
    status, out, errors = cluster.orion("train", str(plan), "--set", "training.epochs=2", "-o", "json")
    assert status == 0, errors
    result = json.loads(out)
    assert result["training"]["test_accuracy"] > 0.97 and result["training"]["step"] == 100, result
    assert result["path"] == f"store:quadrants@{result['version']}" and "accuracy" in errors
    cluster.serves("quadrants")
    (job,) = cluster.call("/v1/jobs?kind=training")[1]["jobs"]
    cluster.fits("Job", job)
    told = cluster.call(f"/v1/jobs/{job['id']}/result")[1]
    cluster.fits("TrainedModel", told)
    assert told == result
    cluster.scheduler.kill()
    cluster.start_scheduler()
    cluster.serves("quadrants")


@pytest.mark.parametrize("cluster", [3], indirect=True)
def test_workers_die_and_join_and_the_weights_are_those_of_one_alone(cluster, oracle):
    job = cluster.submit(least=2, training=LONG)
    cluster.until_step(job, 300)
    cluster.workers["w2"].kill()
    cluster.until_step(job, cluster.step(job) + 300)
    cluster.start_worker("w2")
    serving.until(lambda: len(cluster.job(job)["training"]["workers"]) == 3, "the second worker to take part again")
    cluster.until_step(job, cluster.step(job) + 300)
    cluster.workers["w3"].kill()
    result = cluster.ended(job)
    assert result["training"]["cohorts"] >= 4 and result["training"]["step"] == 7500, result
    assert cluster.weights() == {oracle}


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_who_has_other_examples_takes_no_part(cluster, tmp_path):
    """As many, but of other contents: nothing but their hash tells them apart."""
    other = tmp_path / "other"
    shutil.copytree(cluster.datasets / "quadrants", other / "quadrants")
    labels = other / "quadrants/train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    cluster.start_worker("w3", other)
    result = cluster.ended(cluster.submit())
    assert result["training"]["workers"] == ["w1", "w2"], result
    job = cluster.submit(least=3)
    words = "worker 'w3' cannot: its examples of 'quadrants' are unlike those of worker 'w1'"
    serving.until(lambda: words in cluster.job(job)["reason"], "the reason")
    assert cluster.call(f"/v1/jobs/{job}/cancel", {})[0] == 200


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_what_was_trained_outlives_the_worker_that_is_first(cluster):
    result = cluster.ended(cluster.submit(least=2))
    assert result["training"]["workers"] == ["w1", "w2"]
    cluster.workers["w1"].kill()
    cluster.serves("quadrants")


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_who_was_away_at_its_end_goes_on_with_nothing(cluster):
    job = cluster.submit(least=2, training=LONG)
    cluster.until_step(job, 200)
    away = cluster.workers["w1"].child
    away.send_signal(signal.SIGSTOP)
    nodes = lambda: {node["name"]: node["state"] for node in json.loads(cluster.orion("nodes", "-o", "json")[1])}  # noqa: E731
    serving.until(lambda: nodes()["w1"] == "dead", "w1 to be dead")
    assert cluster.call(f"/v1/jobs/{job}/cancel", {})[0] == 200
    away.send_signal(signal.SIGCONT)
    ended = lambda name: cluster.log_of(name).count("training_ended")  # noqa: E731
    serving.until(lambda: ended("w1") and ended("w2"), "both to end it")
    cluster.ended(cluster.submit(least=2))


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_a_scheduler_dies_and_the_training_goes_on(cluster, oracle):
    job = cluster.submit(least=2, training=LONG)
    cluster.until_step(job, 1000)
    cluster.fits("Job", cluster.job(job))
    last = cluster.step(job)
    cluster.scheduler.kill()
    cluster.start_scheduler()
    # What is told first is from before: none, until its workers are there.
    told = [state.training.step for state in jobs_wire.Jobs(cluster.at["grpc"]).watch(job) if state.training.step]
    # Its workers hold the state, whoever leads: nothing is done again.
    assert told == sorted(told) and told[0] >= last, (last, told)
    assert cluster.ended(job)["training"]["step"] == 7500
    assert cluster.weights() == {oracle}


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_all_workers_die_and_it_goes_on_from_the_checkpoint(cluster, oracle):
    job = cluster.submit(least=2, training=LONG)
    cluster.until_step(job, 500)
    for worker in cluster.workers.values():
        worker.kill()
    for name in list(cluster.workers):
        cluster.start_worker(name)
    cluster.ended(job)
    assert any("checkpoint_taken_up" in log.read_text() for log in cluster.logs)
    assert cluster.weights() == {oracle}


@pytest.mark.parametrize("cluster", [2], indirect=True)
@pytest.mark.parametrize("by", ["http", "the command line"])
def test_one_that_is_cancelled_leaves_nothing(cluster, by):
    job = cluster.submit(least=2, training=LONG)
    cluster.until_step(job, 200)
    checkpoints = [cluster.folder / worker / "training" / str(job) for worker in cluster.workers]
    serving.until(lambda: all(checkpoint.exists() for checkpoint in checkpoints), "both to have a checkpoint")
    if by == "http":
        status, answer = cluster.call(f"/v1/jobs/{job}/cancel", {})
        assert status == 200 and answer["state"] == "cancelled", answer
    else:
        status, _, errors = cluster.orion("jobs", "cancel", str(job))
        assert status == 0 and cluster.job(job)["state"] == "cancelled", errors
    serving.until(lambda: not any(checkpoint.exists() for checkpoint in checkpoints), "its checkpoints to go")
    cluster.ended(cluster.submit(least=2))
    assert not any(checkpoint.exists() for checkpoint in checkpoints)


def test_requests_are_answered_beside_a_training(cluster):
    cluster.ended(cluster.submit())
    cluster.serves("quadrants")
    job = cluster.submit(name="other", training=LONG)
    cluster.until_step(job, 100)
    generator = random.Random(SEED + 2)
    first, answers = cluster.step(job), []
    # Both have the device while requests come one after the other.
    while len(answers) < 200 or cluster.step(job) == first:
        answers.append(cluster.infer("quadrants", [len(answers) % 4], generator)[0])
    assert set(answers) == {200}
    cluster.ended(job)
    cluster.serves("other")


@pytest.mark.parametrize(
    "change, named",
    [
        ({"training": {"epoch": 1}}, "epoch"),
        ({"training": {"epochs": 1, "batch": 0}}, "training.batch is 0"),
        ({"model": {"kind": "rnn"}}, "rnn"),
        ({"model": {"kind": "cnn", "channels": [], "hidden": [4]}}, "model.channels"),
        ({"name": "a/b"}, "a/b"),
        ({"optimizer": {"kind": "sgd", "learning_rate": -1}}, "optimizer.learning_rate is -1"),
        ({"data": {}}, "train"),
    ],
)
def test_a_plan_that_is_wrong_is_refused(cluster, change, named):
    status, answer = cluster.call("/v1/jobs", {"training": {**PLAN, **change}})
    assert status == 400 and named in answer["error"]["message"], answer


@pytest.mark.parametrize(
    "given, named",
    [
        (["--set", "training.batch=0"], "training.batch is 0"),
        (["--set", "training.epoch=1"], "epoch"),
        (["--set", "model.kernel=4"], "model.kernel is 4"),
        (["--set", "training.steps=5"], "training.epochs and training.steps are both given"),
        (["--set", "optimizer.kind=adam"], "adam"),
        (["--set", "batch"], "must be FIELD=VALUE"),
        (["--set", "data.train=nothing"], "data 'nothing' is not in the worker's --datasets folder"),
    ],
)
def test_the_command_line_says_what_is_wrong(cluster, given, named):
    plan = cluster.folder / "plan.toml"
    plan.write_text(TOML)
    status, out, errors = cluster.orion("train", str(plan), *given)
    assert status == 1 and named in errors and not out, (status, out, errors)


@pytest.mark.parametrize(
    "data, named",
    [
        ("../quadrants", "must be a name in the workers' --datasets folder"),
        ("https://example.org/data", "must be a name in the workers' --datasets folder"),
        ("nothing", "data 'nothing' is not in the worker's --datasets folder"),
        ("damaged", "train-images-idx3-ubyte is no IDX file"),
    ],
)
def test_data_that_is_not_there_is_named(cluster, tmp_path, datasets, data, named):
    damaged = datasets / "damaged"
    damaged.mkdir(exist_ok=True)
    for file in (datasets / "quadrants").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[:1000])
    job = cluster.submit(data={"train": data})
    ended = serving.until(lambda: (j := cluster.job(job))["state"] == "failed" and j, "it to fail")
    assert named in ended["reason"], ended["reason"]
