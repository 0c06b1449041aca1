"""Images: classes by EfficientNet-Lite0 and by a small ResNet, texts by nano-ocr, as independent implementations find them."""

import asyncio
import itertools
import json
import struct
import zlib

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio

import serving

DATA = serving.ROOT / "tests/data"
PHOTOS = json.loads((DATA / "expected/efficientnet-lite0.json").read_text())
HALVES = ("f16", "bf16")
WORDS = json.loads((DATA / "expected/nano-ocr.json").read_text())


def image(name):
    return (DATA / "images" / name).read_bytes()


def rows(*files):
    return np.array(files, dtype=np.object_)


def png_header(width, height):
    """The beginning of a PNG file that says it has so many pixels."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + fields + struct.pack(">I", zlib.crc32(fields)) + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    for name in ("efficientnet-lite0", "nano-ocr"):
        if not (serving.MODELS / name).is_dir():
            pytest.fail(f"{serving.MODELS / name} is missing, make it with: scripts/fetch-models {name} --to {serving.MODELS}")
    fetched = {name: serving.MODELS / name for name in ("efficientnet-lite0", "nano-ocr")}
    halves, folder = {}, tmp_path_factory.mktemp("halves")
    for name, precision in itertools.product(fetched, HALVES):
        one = f"{name}-{precision}"
        halves[one] = serving.in_precision(fetched[name], precision, folder / one)
    return {**fetched, **halves, "resnet": DATA / "models/resnet-bottleneck"}


@pytest.fixture(scope="module", params=["up", "two"])
def server(request, tmp_path_factory, models):
    running = serving.Server(request.param, tmp_path_factory.mktemp(f"seeing-{request.param}"), models)
    yield running
    running.stop()


def classify(triton, *files, model="efficientnet-lite0"):
    return triton.client.infer(model, [triton.input("image", rows(*files))])


def test_known_photographs(triton):
    answer = classify(triton, *map(image, PHOTOS))
    logits = answer.as_numpy("logits")
    assert logits.shape == (len(PHOTOS), 1000) and logits.dtype == np.float32
    assert answer.as_numpy("class").tolist() == [wanted["class"] for wanted in PHOTOS.values()]
    assert answer.as_numpy("class").dtype == np.int32
    assert [label.decode() for label in answer.as_numpy("label")] == [wanted["label"] for wanted in PHOTOS.values()]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, wanted in enumerate(PHOTOS.values()):
        assert abs(probabilities[row, wanted["class"]] - wanted["probability"]) < 5e-3
        # JPEG decoders differ by a step or two of 255.
        assert np.abs(logits[row] - wanted["logits"]).max() < 0.1


def test_each_alone(triton):
    together = classify(triton, *map(image, PHOTOS)).as_numpy("logits")
    for row, photo in enumerate(PHOTOS):
        assert (classify(triton, image(photo)).as_numpy("logits") == together[row : row + 1]).all()


def test_a_resnet_of_hugging_face(triton):
    wanted = json.loads((DATA / "expected/resnet.json").read_text())["bottleneck"]
    answer = classify(triton, *map(image, wanted), model="resnet")
    assert np.abs(answer.as_numpy("logits") - np.array(list(wanted.values()))).max() < 2e-2
    best = [int(np.argmax(logits)) for logits in wanted.values()]
    assert answer.as_numpy("class").tolist() == best
    assert [label.decode() for label in answer.as_numpy("label")] == [f"kind {index}" for index in best]


def test_words(triton):
    answer = triton.client.infer("nano-ocr", [triton.input("image", rows(*map(image, WORDS)))])
    assert [text.decode() for text in answer.as_numpy("text")] == list(WORDS.values())


@pytest.mark.parametrize("precision", HALVES)
def test_half_precision(triton, precision):
    answer = classify(triton, *map(image, PHOTOS), model=f"efficientnet-lite0-{precision}")
    assert answer.as_numpy("class").tolist() == [wanted["class"] for wanted in PHOTOS.values()]
    whole = classify(triton, *map(image, PHOTOS)).as_numpy("logits")
    difference = np.abs(answer.as_numpy("logits") - whole).max()
    assert 0 < difference < {"f16": 0.05, "bf16": 0.5}[precision]
    answer = triton.client.infer(f"nano-ocr-{precision}", [triton.input("image", rows(*map(image, WORDS)))])
    assert [text.decode() for text in answer.as_numpy("text")] == list(WORDS.values())


def test_metadata(server):
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    described = client.get_model_metadata("efficientnet-lite0")
    tensors = [(one.name, one.datatype, list(one.shape)) for one in [*described.inputs, *described.outputs]]
    assert tensors == [
        ("image", "BYTES", [-1]), ("logits", "FP32", [-1, 1000]), ("class", "INT32", [-1]), ("label", "BYTES", [-1]),
    ]
    client.close()


@pytest.mark.parametrize("model", ["efficientnet-lite0", "nano-ocr"])
@pytest.mark.parametrize(
    ("file", "part"),
    [
        (image("flower.jpg")[:9000], "ends before its end mark"),
        (image("chelsea.png")[:9000], "cannot be decoded"),
        (png_header(16000, 16000), "16000 by 16000 pixels"),
        (b"GIF89a\x01\0\x01\0\0\0\0;", "only JPEG, PNG and WebP"),
        (b"", "the file is empty"),
    ],
)
def test_bad_files_are_refused(triton, model, file, part):
    with triton.refuses("INVALID_ARGUMENT", "element 1 of input 'image'", part):
        classify(triton, image("word-hello.png"), file, model=model)


def test_no_rows(triton):
    assert classify(triton).as_numpy("logits").shape == (0, 1000)


def test_good_and_bad_at_once(server):
    """Requests share batches; a bad one fails alone."""

    async def one(client, number):
        file = image("word-total.jpg")[: 700 if number % 5 == 4 else None]
        tensor = tritonclient.grpc.InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(rows(file))
        try:
            return (await client.infer("nano-ocr", [tensor])).as_numpy("text")[0].decode()
        except tritonclient.utils.InferenceServerException as error:
            return error.status()

    async def all_of_them():
        client = tritonclient.grpc.aio.InferenceServerClient(server.grpc)
        try:
            return await asyncio.gather(*(one(client, number) for number in range(40)))
        finally:
            await client.close()

    wanted = WORDS["word-total.jpg"]
    assert asyncio.run(all_of_them()) == [*[wanted] * 4, "StatusCode.INVALID_ARGUMENT"] * 8
