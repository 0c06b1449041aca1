"""MiniLM learns classes of texts and stories15M a text, all of them or as low-rank additions."""

import csv
import json
import random
import shutil

import numpy as np
import openai
import pytest
import tritonclient.grpc

import serving
from stores import push
from test_training import SEED, Cluster

THINGS = ("film", "meal", "phone", "book", "hotel", "song", "game", "car", "trip", "coat")
GOOD = ("wonderful", "great", "lovely", "superb", "delightful", "excellent", "charming", "a joy")
BAD = ("terrible", "awful", "dreadful", "poor", "horrible", "a waste", "dull", "broken")
LORA = {"rank": 4, "alpha": 8, "targets": ["query", "value"]}
STEPS = {"steps": 16, "batch": 16, "micro_batch": 4, "seed": 5, "clip_norm": 1, "evaluate_steps": 8}


def sentences(name, count):
    generator = random.Random(f"{SEED} {name}")
    for number in range(count):
        words = (GOOD, BAD)[number % 2]
        yield f"The {generator.choice(THINGS)} was {generator.choice(words)}, {number}.", ("good", "bad")[number % 2]


@pytest.fixture(scope="module")
def datasets(models, tmp_path_factory):
    """A base, and reviews as JSONL and as CSV."""
    print("seed", SEED)
    folder = tmp_path_factory.mktemp("datasets")
    shutil.copytree(models["minilm"], folder / "base")
    shutil.copytree(serving.MODELS / "stories15m", folder / "stories")
    for kind in ("lines", "table", "story"):
        (folder / kind).mkdir()
    (folder / "story" / "train.jsonl").write_text(json.dumps({"text": STORY}) + "\n")
    for part, count in (("train", 160), ("test", 40)):
        rows = list(sentences(part, count))
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / "lines" / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
        with (folder / "table" / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("review", "stars"), *((text, 5 if label == "good" else 1) for text, label in rows)])
    return folder


def plan(lora=None, base="base", **changes):
    model = {"kind": "text_classifier", "base": base, "tokens": 32, **({"lora": lora} if lora else {})}
    return {
        "name": "reviews", "model": model, "data": {"train": "lines"}, "training": STEPS,
        "optimizer": {"kind": "adamw", "learning_rate": 2e-3 if lora else 3e-4}, **changes,
    }


@pytest.fixture
def cluster(request, tmp_path, datasets):
    made = Cluster(tmp_path, datasets, getattr(request, "param", 1))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def alone(tmp_path_factory, datasets):
    """What one worker makes."""
    made = {}
    for name, lora in (("all", None), ("lora", LORA)):
        cluster = Cluster(tmp_path_factory.mktemp(name), datasets, 1)
        try:
            cluster.ended(cluster.submit(**plan(lora)))
            (made[name],) = cluster.weights()
        finally:
            cluster.stop()
    return made


def ask(cluster, model, texts):
    with tritonclient.grpc.InferenceServerClient(cluster.at["grpc"]) as client:
        tensor = tritonclient.grpc.InferInput("text", [len(texts)], "BYTES")
        tensor.set_data_from_numpy(np.array([text.encode() for text in texts], object))
        return [label.decode() for label in client.infer(model, [tensor]).as_numpy("label")]


def serves(cluster, model, good="good", bad="bad"):
    rows = list(sentences("asked", 40))
    serving.until(lambda: cluster.call(f"/v2/models/{model}/ready")[0] == 200, f"{model} to be served")
    answers = ask(cluster, model, [text for text, _ in rows])
    right = sum(answer == (good if label == "good" else bad) for answer, (_, label) in zip(answers, rows, strict=True))
    assert right >= 34, answers


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_additions_are_those_of_one_worker_whoever_dies(cluster, alone):
    job = cluster.submit(least=1, **plan(LORA))
    serving.until(lambda: len((cluster.job(job)["training"] or {}).get("workers", [])) == 2 and cluster.step(job) >= 2, "two at work")
    cluster.workers["w2"].kill()
    result = cluster.ended(job)
    assert result["training"]["test_accuracy"] > 0.85 and result["training"]["cohorts"] > 1, result
    assert cluster.weights() == {alone["lora"]}
    serves(cluster, "reviews")
    (folder,) = (cluster.folder / "w1" / "store" / "models").glob("*")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"] and config["id2label"] == {"0": "bad", "1": "good"}
    assert config["metrics"]["step"] == 16 and (folder / "tokenizer.json").is_file()


def test_all_of_it_learns_from_a_base_in_the_store_and_travels_as_a_difference(models, tmp_path, datasets, alone):
    push(models["minilm"], "minilm@1", tmp_path / "w1" / "store")
    cluster = Cluster(tmp_path, datasets, 2)
    try:
        result = cluster.ended(cluster.submit(least=2, **plan(base="store:minilm@1")))
        assert result["training"]["test_accuracy"] > 0.85, result
        assert alone["all"] in cluster.weights()
        serves(cluster, "reviews")
        # What lies in the store of it, and as a difference to its base.
        sizes = {}
        for form in ("encoded", "differences"):
            newest = max((tmp_path / "w1" / "store" / "packs").glob(f"*.{form}"), key=lambda path: path.stat().st_mtime_ns)
            sizes[form] = newest.stat().st_size
        print(sizes)
        assert 0 < sizes["differences"] < 0.75 * sizes["encoded"], sizes
    finally:
        cluster.stop()


def test_a_table_with_other_columns_is_learnt_from(cluster):
    data = {"train": "table", "text": "review", "label": "stars"}
    result = cluster.ended(cluster.submit(**plan(LORA, data=data)))
    assert result["training"]["test_accuracy"] > 0.85
    serves(cluster, "reviews", "5", "1")


STORY = "The little robot painted every window of the tower green, and nobody in the town ever asked it why."


@pytest.mark.parametrize("lora", [None, {"rank": 16, "alpha": 32, "targets": ["q_proj", "v_proj", "o_proj", "down_proj"]}])
@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_a_story_is_learnt_by_heart(cluster, datasets, lora):
    steps = {"steps": 60 if lora else 30, "batch": 4, "micro_batch": 2, "seed": 5, "clip_norm": 1}
    model = {"kind": "language_model", "base": "stories", "tokens": 64, **({"lora": lora} if lora else {})}
    rate = 3e-3 if lora else 5e-4
    job = cluster.submit(
        least=2, name="teller", model=model, data={"train": "story", "test": "story/train.jsonl"}, training=steps,
        optimizer={"kind": "adamw", "learning_rate": rate},
    )
    result = cluster.ended(job)
    assert result["training"]["test_accuracy"] > 0.97, result
    serving.until(lambda: cluster.call("/v2/models/teller/ready")[0] == 200, "it to be served")
    with openai.OpenAI(base_url=f"http://{cluster.at['http']}/v1", api_key="none", max_retries=0) as client:
        answer = client.completions.create(model="teller", prompt=STORY[:37], max_tokens=64, temperature=0)
    assert STORY[:37] + answer.choices[0].text == STORY and answer.choices[0].finish_reason == "stop", answer


def test_what_does_not_fit_is_named(cluster, datasets):
    for changes, parts in (
        ({"data": {"train": "lines", "text": "words"}}, ("line 1 of", "no 'words'")),
        ({"data": {"train": "table"}}, ("no column 'text'", "review, stars")),
        ({"data": {"train": "lines", "labels": ["good", "middling"]}}, ("'bad'", "'good', 'middling'")),
        ({"model": {"kind": "text_classifier", "base": "lines"}}, ("config.json",)),
        ({"model": {"kind": "text_classifier", "base": "nothing"}}, ("'nothing' is not in the worker's --datasets folder",)),
        ({"model": {"kind": "text_classifier", "base": "../base"}}, ("must be a name in the workers' --datasets folder",)),
        ({"model": {"kind": "text_classifier", "base": "store:minilm@7"}}, ("minilm",)),
        ({"model": {"kind": "text_classifier", "base": "base", "lora": {"targets": ["q_proj"]}}}, ("'q_proj'", "attention.self.query")),
    ):
        job = cluster.submit(**plan(**changes))
        ended = serving.until(lambda job=job: (j := cluster.job(job))["state"] in ("failed", "succeeded") and j, "its end")
        assert ended["state"] == "failed" and all(part in ended["reason"] for part in parts), (changes, ended["reason"])
    for changes, parts in (
        ({"model": {"kind": "text_classifier"}}, ("base",)),
        ({"model": {"kind": "text_classifier", "base": "", "tokens": 0, "dropout": 1}}, ("model.base", "model.tokens", "model.dropout")),
        ({"model": {"kind": "text_classifier", "base": "b", "lora": {"rank": 0, "alpha": -1, "targets": []}}},
         ("model.lora.rank", "model.lora.alpha")),
        ({"model": {"kind": "language_model", "base": "b", "lora": {"targets": ["a", "a"]}}}, ("model.lora.targets",)),
        ({"data": {"train": "lines", "classes": 3}}, ("data.labels",)),
        ({"federated": {"local_steps": 2}}, ("data.labels must be given",)),
    ):
        status, answer = cluster.call("/v1/jobs", {"training": plan(**changes)})
        assert status == 400 and all(part in json.dumps(answer) for part in parts), answer
