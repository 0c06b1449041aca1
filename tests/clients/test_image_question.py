"""A network learns to answer questions about images, and is served with both as inputs."""

import csv
import random
import struct
import zlib

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

import serving
from test_training import SEED, Cluster

COLOURS = {"red": (230, 30, 30), "green": (30, 210, 50), "blue": (30, 40, 220)}
SIDE = 16


def png(colour, left, side=SIDE):
    """Half of the image in a colour, the rest nearly white."""
    def pixel(x):
        return bytes(COLOURS[colour] if (x < side // 2) == left else (240, 240, 240))

    row = b"\0" + b"".join(pixel(x) for x in range(side))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * side)) + chunk(b"IEND", b"")


def asked(generator):
    colour, left = generator.choice(list(COLOURS)), generator.random() < 0.5
    question, answer = generator.choice([
        ("What colour is it?", colour), ("On which side is it?", "left" if left else "right"),
        *((f"is it {other}", "yes" if other == colour else "no") for other in COLOURS),
    ])
    return colour, left, question, answer


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    print("seed", SEED)
    folder = tmp_path_factory.mktemp("datasets") / "halves"
    folder.mkdir()
    for part, count in (("train", 600), ("test", 100)):
        generator, rows = random.Random(f"{SEED} {part}"), [("picture", "asked", "said")]
        for _ in range(count):
            colour, left, question, answer = asked(generator)
            name = f"{colour}-{left}.png"
            (folder / name).write_bytes(png(colour, left))
            rows.append((name, question, answer))
        with (folder / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder.parent


PLAN = {
    "name": "halves",
    "model": {"kind": "image_question", "channels": [8, 16], "hidden": 32},
    "data": {"train": "halves", "image": "picture", "text": "asked", "label": "said"},
    "training": {"epochs": 60, "batch": 24, "seed": 5},
    "optimizer": {"kind": "adamw", "learning_rate": 1e-3},
}


def test_questions_are_answered_as_they_were_learnt(tmp_path, datasets):
    clusters = [Cluster(tmp_path / name, datasets, count) for name, count in (("one", 1), ("two", 2)) if not (tmp_path / name).mkdir()]
    try:
        results = [cluster.ended(cluster.submit(least=count + 1, **PLAN)) for count, cluster in enumerate(clusters)]
        assert results[0]["training"]["test_accuracy"] > 0.97, results
        weights = [cluster.weights() for cluster in clusters]
        # Which of its members serves it fetches nothing: all have it.
        assert len(weights[0]) == 1 and weights[0] <= weights[1]
        cluster = clusters[1]
        serving.until(lambda: cluster.call("/v2/models/halves/ready")[0] == 200, "it to be served")
        generator = random.Random(f"{SEED} asked")
        rows = [asked(generator) for _ in range(60)]
        # Of another size than what was learnt from, now and then.
        images = [png(colour, left, 2 * SIDE if number % 7 == 0 else SIDE) for number, (colour, left, _, _) in enumerate(rows)]
        with tritonclient.grpc.InferenceServerClient(cluster.at["grpc"]) as client:
            def ask(images, questions):
                inputs = []
                for name, values in (("question", [question.encode() for question in questions]), ("image", images)):
                    inputs.append(tritonclient.grpc.InferInput(name, [len(values)], "BYTES"))
                    inputs[-1].set_data_from_numpy(np.array(values, object))
                return client.infer("halves", inputs)

            answer = ask(images, [question for _, _, question, _ in rows])
            said = [word.decode() for word in answer.as_numpy("answer")]
            right = sum(word == row[3] for word, row in zip(said, rows, strict=True))
            assert right >= 57 and answer.as_numpy("score").min() > 0.3, said
            for bad, parts in (
                (([b"no image"], ["is it red"]), ("element 0 of input 'image'", "JPEG, PNG")),
                (([images[0], images[1]], ["is it red"]), ("must agree",)),
            ):
                with pytest.raises(InferenceServerException) as refused:
                    ask(*bad)
                assert all(part in str(refused.value) for part in parts), refused.value
        for changes, part in (
            ({"model": {"kind": "image_question", "channels": [], "hidden": 0}}, ("model.channels", "model.hidden")),
            ({"data": {"train": "halves", "classes": 3}}, ("data.labels",)),
        ):
            status, answer = cluster.call("/v1/jobs", {"training": {**PLAN, **changes}})
            assert status == 400 and all(word in str(answer) for word in part), answer
    finally:
        for cluster in clusters:
            cluster.stop()
