"""ONNX graphs: Magika, a user's file as it is, and Silero VAD's sequences, which go on where their state is."""

import base64
import json
import queue

import numpy as np
import pytest
import tritonclient.grpc

import serving
from conftest import Triton

MAGIKA = json.loads((serving.ROOT / "tests/data/expected/magika.json").read_text())
SPEECH = np.array(json.loads((serving.ROOT / "tests/data/expected/silero_vad.json").read_text())["from_silence"])
PCM = np.fromfile(serving.ROOT / "tests/data/expected/silero_vad.pcm", "<i2")
# The first 64 samples are those before the first window.
WINDOWS = (PCM[64:].astype(np.float32) / 32768).reshape(-1, 512)


@pytest.fixture(scope="module")
def models():
    """Both models, and Magika's graph alone."""
    found = {name: serving.MODELS / name for name in ("magika", "silero-vad")}
    for name, folder in found.items():
        if not folder.is_dir():
            pytest.fail(f"{folder} is missing, make it with: scripts/fetch-models {name} --to {serving.MODELS}")
    return {**found, "graph": found["magika"] / "model.onnx"}


@pytest.fixture(scope="module", params=["up", "two"])
def listening(request, tmp_path_factory, models):
    running = serving.Server(request.param, tmp_path_factory.mktemp(f"onnx-{request.param}"), models)
    yield running
    running.stop()


@pytest.fixture(params=["grpc", "http"])
def client(request, listening):
    one = Triton(request.param, listening)
    yield one
    one.client.close()


def labelled(client, contents):
    answer = client.client.infer("magika", [client.input("content", np.array(contents, dtype=np.object_))])
    return [label.decode() for label in answer.as_numpy("label")], answer.as_numpy("score")


def heard(client, windows, **sequence):
    answer = client.client.infer("silero-vad", [client.input("audio", windows)], **sequence)
    return answer.as_numpy("speech")


def test_magika_labels_contents(client):
    contents = [base64.b64decode(case["content"]) for case in MAGIKA["cases"]]
    labels, scores = labelled(client, contents)
    assert labels == [case["label"] for case in MAGIKA["cases"]]
    assert np.abs(scores - [case["score"] for case in MAGIKA["cases"]]).max() < 1e-4
    assert labelled(client, contents[6:7])[0] == labels[6:7]


def test_a_graph_alone_keeps_its_names(client):
    metadata = client.client.get_model_metadata("graph", **({"as_json": True} if client.protocol == "grpc" else {}))
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["bytes"]
    tensor = client.input("bytes", np.array(MAGIKA["bytes"], np.int32)[None])
    scores = client.client.infer("graph", [tensor]).as_numpy("target_label")
    assert scores.shape == (1, 214) and np.abs(scores[0] - MAGIKA["scores"]).max() < 1e-4
    with client.refuses("INVALID_ARGUMENT", "'bytes'", "INT32"):
        client.client.infer("graph", [client.input("bytes", np.zeros((1, 2048), np.int64))])


def test_windows_of_one_request_follow_each_other(client):
    assert np.abs(heard(client, WINDOWS) - SPEECH).max() < 1e-4


def test_a_sequence_goes_on_from_request_to_request(client):
    key = 70 if client.protocol == "grpc" else 80
    first = heard(client, WINDOWS[:1], sequence_id=key, sequence_start=True)
    # Requests of another sequence, and of none, do not touch it.
    heard(client, WINDOWS[20:23], sequence_id=key + 1, sequence_start=True)
    heard(client, WINDOWS[20:23])
    middle = [heard(client, window[None], sequence_id=key) for window in WINDOWS[1:20]]
    last = heard(client, WINDOWS[20:], sequence_id=key, sequence_end=True)
    assert np.abs(np.concatenate([first, *middle, last]) - SPEECH).max() < 1e-4
    with client.refuses("FAILED_PRECONDITION", "sequence_start"):
        heard(client, WINDOWS[:1], sequence_id=key)
    heard(client, WINDOWS[:1], sequence_id=key + 1, sequence_end=True)


def test_a_sequence_may_be_named_by_a_text(client):
    name = f"call over {client.protocol}"
    parts = [
        heard(client, WINDOWS[:7], sequence_id=name, sequence_start=True),
        heard(client, WINDOWS[7:], sequence_id=name, sequence_end=True),
    ]
    assert np.abs(np.concatenate(parts) - SPEECH).max() < 1e-4


def test_a_stream_of_windows_is_heard_in_order(listening):
    """All windows are sent before the first answer is awaited."""
    answers = queue.Queue()
    client = tritonclient.grpc.InferenceServerClient(listening.grpc)
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for index, window in enumerate(WINDOWS):
        tensor = tritonclient.grpc.InferInput("audio", [1, 512], "FP32")
        tensor.set_data_from_numpy(window[None])
        client.async_stream_infer(
            "silero-vad", [tensor], request_id=str(index), sequence_id=9,
            sequence_start=index == 0, sequence_end=index + 1 == len(WINDOWS),
        )
    speech = {}
    for _ in WINDOWS:
        result, error = answers.get(timeout=60)
        assert error is None, error
        speech[int(result.get_response().id)] = float(result.as_numpy("speech")[0])
    client.stop_stream()
    client.close()
    assert np.abs(np.array([speech[index] for index in range(len(WINDOWS))]) - SPEECH).max() < 1e-4


def test_a_lost_state_is_told(start, models):
    """The worker is killed: the sequence is over, and may begin again once another worker is there."""
    server = start("two", {"silero-vad": models["silero-vad"]})
    client = Triton("grpc", server)
    heard(client, WINDOWS[:3], sequence_id=5, sequence_start=True)
    server.worker.kill()
    server.start_worker()

    def lost():
        try:
            heard(client, WINDOWS[3:4], sequence_id=5)
        except tritonclient.utils.InferenceServerException as error:
            # Until the scheduler knows that the worker does not come back, it may only say that it does not answer.
            assert error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.FAILED_PRECONDITION"), error
            return error.status() == "StatusCode.FAILED_PRECONDITION"
        raise AssertionError("the state was lost with its worker, and the sequence went on")

    serving.until(lost, "the refusal of a sequence whose state is lost")
    server.until_ready()
    again = [heard(client, WINDOWS[:2], sequence_id=5, sequence_start=True), heard(client, WINDOWS[2:], sequence_id=5)]
    assert np.abs(np.concatenate(again) - SPEECH).max() < 1e-4
    client.client.close()
