"""Tensors go in and come back the same, over every way that tritonclient has of sending them."""

import asyncio
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

import serving

SHAPES = [(1,), (16,), (1, 16), (0,), (0, 4), (3, 0, 2), (2, 3, 5, 7), (1,) * 8, (), (262144,), (1024, 4096)]


def values(shape, seed=11):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype=np.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_comes_back(triton, shape):
    sent = values(shape)
    back = triton.identity(sent)
    assert back.shape == sent.shape and back.dtype == np.float32
    np.testing.assert_array_equal(back, sent)


def test_bits_are_kept(triton):
    """Not-a-number payloads, signed zeros and subnormals: the bytes, not the numbers, come back."""
    bits = [0x7FC00001, 0xFFC12345, 0x80000000, 0x00000001, 0x7F800000, 0xFF800000]
    sent = np.array(bits, np.uint32).view(np.float32)
    assert triton.identity(sent).tobytes() == sent.tobytes()


def test_id_version_and_sequence_are_taken(triton):
    tensor = triton.input("INPUT0", values((1, 4)))
    answer = triton.client.infer(
        "identity", [tensor], model_version="1", request_id="a-mark of 22 chars, ü",
        sequence_id=5, sequence_start=True, sequence_end=True, priority=2, timeout=20_000_000,
        outputs=[triton.module.InferRequestedOutput("OUTPUT0")],
    )
    response = answer.get_response()
    said = response if isinstance(response, dict) else {
        "id": response.id, "model_name": response.model_name, "model_version": response.model_version,
    }
    assert (said["id"], said["model_name"], said["model_version"]) == ("a-mark of 22 chars, ü", "identity", "1")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_http_json_and_binary(server, binary_in, binary_out):
    sent = values((3, 5))
    client = tritonclient.http.InferenceServerClient(server.http)
    tensor = tritonclient.http.InferInput("INPUT0", [3, 5], "FP32").set_data_from_numpy(sent, binary_data=binary_in)
    wanted = tritonclient.http.InferRequestedOutput("OUTPUT0", binary_data=binary_out)
    answer = client.infer("identity", [tensor], outputs=[wanted])
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), sent)
    assert ("data" in answer.get_output("OUTPUT0")) is not binary_out
    client.close()


def test_http_async_pool(server):
    client = tritonclient.http.InferenceServerClient(server.http, concurrency=8)
    pending = []
    for number in range(64):
        tensor = tritonclient.http.InferInput("INPUT0", [2], "FP32")
        tensor.set_data_from_numpy(np.full(2, number, np.float32))
        pending.append(client.async_infer("identity", [tensor], request_id=str(number)))
    for number, answer in enumerate(pending):
        result = answer.get_result()
        assert result.get_response()["id"] == str(number)
        assert result.as_numpy("OUTPUT0").tolist() == [number, number]
    client.close()


@pytest.mark.parametrize("module", [tritonclient.grpc.aio, tritonclient.http.aio], ids=["grpc", "http"])
def test_aio_many_at_once(server, module):
    inputs = tritonclient.grpc if module is tritonclient.grpc.aio else tritonclient.http
    address = server.grpc if module is tritonclient.grpc.aio else server.http
    rounds = 200 if serving.LONG else 4

    async def one(client, number):
        sent = np.full((1 + number % 3, 4), number, np.float32)
        tensor = inputs.InferInput("INPUT0", list(sent.shape), "FP32")
        tensor.set_data_from_numpy(sent)
        answer = await client.infer("identity", [tensor], request_id=str(number))
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), sent)

    async def all_of_them():
        client = module.InferenceServerClient(address)
        try:
            for start in range(0, 64 * rounds, 64):
                await asyncio.gather(*(one(client, number) for number in range(start, start + 64)))
        finally:
            await client.close()

    asyncio.run(all_of_them())


def test_stream_answers_each_and_survives_an_error(server):
    answers = queue.Queue()
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(32):
        tensor = tritonclient.grpc.InferInput("INPUT0", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.full((1, 2), number, np.float32))
        client.async_stream_infer("nothing" if number == 5 else "identity", [tensor], request_id=str(number))
    back, errors = {}, []
    for _ in range(32):
        result, error = answers.get(timeout=30)
        if error is not None:
            errors.append(error)
        else:
            back[result.get_response().id] = result.as_numpy("OUTPUT0").tolist()
    client.stop_stream()
    client.close()
    assert back == {str(number): [[number, number]] for number in range(32) if number != 5}
    assert len(errors) == 1 and "nothing" in errors[0].message()


def test_a_stream_takes_what_is_sent_ahead_of_its_answers(start, tmp_path):
    """Each message is a frame of its own, of few bytes: HTTP/2 alone would take so many of them for an attack."""
    server = start("up", {"slow": serving.simulated(tmp_path / "slow", 6)})
    count = 15_000

    def requests():
        # The answers keep the order of the requests: behind the first, nothing more is read.
        for number in range(count):
            request = service_pb2.ModelInferRequest(model_name="identity" if number else "slow")
            request.inputs.add(name="INPUT0", datatype="FP32", shape=[1])
            request.raw_input_contents.append(np.float32(number).tobytes())
            yield request

    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = stub.ModelStreamInfer(requests(), timeout=120)
        back = [answer.infer_response.raw_output_contents[0] for answer in answers]
    assert back == [np.float32(number).tobytes() for number in range(count)]


def test_aio_stream(server):
    async def requests():
        for number in range(8):
            tensor = tritonclient.grpc.InferInput("INPUT0", [1], "FP32")
            tensor.set_data_from_numpy(np.full(1, number, np.float32))
            yield {"model_name": "identity", "inputs": [tensor], "request_id": str(number)}

    async def collect():
        client = tritonclient.grpc.aio.InferenceServerClient(server.grpc)
        try:
            got = {}
            async for result, error in client.stream_infer(requests()):
                assert error is None
                got[result.get_response().id] = result.as_numpy("OUTPUT0").tolist()
            return got
        finally:
            await client.close()

    assert asyncio.run(collect()) == {str(number): [number] for number in range(8)}


def test_typed_contents(server):
    """What a client without raw contents sends."""
    with grpc.insecure_channel(server.grpc) as channel:
        request = service_pb2.ModelInferRequest(model_name="identity")
        tensor = request.inputs.add(name="INPUT0", datatype="FP32", shape=[2, 2])
        tensor.contents.fp32_contents.extend([1, 2, 3, 4.5])
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    output = answer.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == ("OUTPUT0", "FP32", [2, 2])
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [1, 2, 3, 4.5]
