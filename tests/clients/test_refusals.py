"""What is wrong is refused before it is queued, by name, and the server lives on."""

import json

import grpc
import ml_dtypes
import numpy as np
import openai
import pytest
import tritonclient.http
from tritonclient.grpc import service_pb2, service_pb2_grpc

import serving

OTHER_TYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "BF16": ml_dtypes.bfloat16, "FP64": np.float64,
}
ONE = np.ones((1, 4), np.float32)


def test_long_parameters_and_prompts_cut_no_session(start, models):
    """They travel in the headers of batches: one of them alone, or many together."""
    server = start("two", {"delay": models["delay"], "stories15m": serving.MODELS / "stories15m"})
    fast = tritonclient.http.InferenceServerClient(server.http, concurrency=40)
    tensor = tritonclient.http.InferInput("INPUT0", [1, 4], "FP32")
    tensor.set_data_from_numpy(ONE)

    def ask(length):
        return fast.async_infer("delay", [tensor], parameters={"note": "x" * length})

    waiting = [ask(6_000_000), *(ask(400_000) for _ in range(40))]
    assert all(one.get_result().as_numpy("OUTPUT0").tolist() == ONE.tolist() for one in waiting)
    fast.close()
    with openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0) as client:
        # 256 tokens of context.
        with pytest.raises(openai.BadRequestError, match="have 5000000 bytes, at most 262144 are taken"):
            client.completions.create(model="stories15m", prompt="Once " * 1_000_000)
    assert [event["text"] for event in server.nodes()["w1"]["events"] if "suspect" in event["text"]] == []


@pytest.mark.parametrize("datatype", OTHER_TYPES)
def test_other_datatypes(triton, datatype):
    with triton.refuses("INVALID_ARGUMENT", "INPUT0", datatype, "FP32"):
        triton.identity(np.ones((1, 2), OTHER_TYPES[datatype]))


def test_bytes_for_numbers_and_numbers_for_bytes(triton):
    with triton.refuses("INVALID_ARGUMENT", "INPUT0", "BYTES", "FP32"):
        triton.identity(np.array([b"one"], np.object_))
    with triton.refuses("INVALID_ARGUMENT", "text", "FP32", "BYTES"):
        triton.client.infer("minilm", [triton.input("text", np.ones(1, np.float32))])


def test_unknown_names(triton):
    with triton.refuses("NOT_FOUND", "nothing"):
        triton.identity(ONE, model="nothing")
    with triton.refuses("NOT_FOUND", "identity", "77"):
        triton.identity(ONE, model_version="77")
    with triton.refuses("INVALID_ARGUMENT", "WRONG", "INPUT0"):
        triton.client.infer("identity", [triton.input("WRONG", ONE)])
    with triton.refuses("INVALID_ARGUMENT", "WRONG", "OUTPUT0"):
        triton.identity(ONE, outputs=[triton.module.InferRequestedOutput("WRONG")])
    with triton.refuses("NOT_FOUND", "nothing"):
        triton.client.get_model_metadata("nothing")
    with triton.refuses("NOT_FOUND", "nothing"):
        triton.client.get_model_config("nothing")


def test_inputs_twice_or_missing(triton):
    with triton.refuses("INVALID_ARGUMENT", "INPUT0"):
        triton.client.infer("identity", [triton.input("INPUT0", ONE), triton.input("INPUT0", ONE)])
    with triton.refuses("INVALID_ARGUMENT", "text"):
        triton.client.infer("minilm", [])


def test_wrong_shape(triton):
    with triton.refuses("INVALID_ARGUMENT", "text", "[2, 1]", "[-1]"):
        triton.client.infer("minilm", [triton.input("text", np.array([[b"a"], [b"b"]], np.object_))])


def test_bad_parameters(triton):
    with triton.refuses("INVALID_ARGUMENT", "priority", "9"):
        triton.identity(ONE, priority=9)
    with triton.refuses("INVALID_ARGUMENT", "truncate"):
        triton.identity(ONE, parameters={"truncate": "yes"})


def test_a_deadline_that_cannot_be_met(triton):
    """1 microsecond for a model that takes 20 ms."""
    with triton.refuses("DEADLINE_EXCEEDED"):
        triton.identity(ONE, model="delay", timeout=1)


@pytest.mark.parametrize("name", ["../minilm", "/etc/passwd", "a b", "x" * 129, "..", "", "mini\nlm"])
def test_names_that_are_paths(server, name):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        infer = service_pb2.ModelInferRequest(model_name=name)
        load = service_pb2.RepositoryModelLoadRequest(model_name=name)
        for call, request in ((stub.ModelInfer, infer), (stub.RepositoryModelLoad, load)):
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=30)
            assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
            assert "root:" not in refused.value.details()


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "a%0d%0ab"])
def test_names_that_are_paths_over_http(server, path):
    assert server.get(f"/v2/models/{path}")[0] in (400, 404)
    assert server.get(f"/v2/repository/models/{path}/load", method="POST", body="{}")[0] in (400, 404)


def test_loading_takes_no_configuration(triton):
    """An override could name code or files."""
    with triton.refuses("INVALID_ARGUMENT", "config"):
        triton.client.load_model("delay", config='{"backend": "python"}')


HOSTILE_SHAPES = [[-1], [2, -2], [2**62, 4], [2**32, 2**32], [2**63 - 1], [-(2**63)], [1, 5], [0], [3]]


@pytest.mark.parametrize("shape", HOSTILE_SHAPES, ids=str)
def test_byte_count_against_shape(server, shape):
    """16 bytes are sent whatever the shape says."""
    with grpc.insecure_channel(server.grpc) as channel:
        request = service_pb2.ModelInferRequest(model_name="identity", raw_input_contents=[bytes(16)])
        request.inputs.add(name="INPUT0", datatype="FP32", shape=shape)
        with pytest.raises(grpc.RpcError) as refused:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "INPUT0" in refused.value.details()


@pytest.mark.parametrize("shape", HOSTILE_SHAPES, ids=str)
def test_byte_count_against_shape_over_http(server, shape):
    tensor = {"name": "INPUT0", "shape": shape, "datatype": "FP32", "data": [0, 0, 0, 0]}
    status, _, body = server.get("/v2/models/identity/infer", method="POST", body=json.dumps({"inputs": [tensor]}))
    assert status == 400 and "INPUT0" in json.loads(body)["error"]


BAD_BODIES = [
    b"", b"{", b"[]", b"null", b'{"inputs":3}', b'{"inputs":[{}]}', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe",
    b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":["x"]}]}',
    b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}",
    b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":-4}}]}',
    b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}',
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: body[:24].decode(errors="replace"))
def test_bad_bodies(server, body):
    status, _, answer = server.get("/v2/models/identity/infer", method="POST", body=body)
    assert status == 400 and json.loads(answer)["error"]
    assert server.get("/v2/health/live")[0] == 200


@pytest.mark.parametrize("length", ["-1", "99999999", "x", "18446744073709551616"])
def test_bad_header_length(server, length):
    headers = {"Inference-Header-Content-Length": length}
    assert server.get("/v2/models/identity/infer", method="POST", body=b"{}", headers=headers)[0] == 400


def test_compressed_bodies_are_refused(server):
    client = tritonclient.http.InferenceServerClient(server.http)
    tensor = tritonclient.http.InferInput("INPUT0", [1, 4], "FP32").set_data_from_numpy(ONE)
    with pytest.raises(tritonclient.utils.InferenceServerException, match="gzip") as refused:
        client.infer("identity", [tensor], request_compression_algorithm="gzip")
    assert refused.value.status() == "415"
    client.close()


def test_shared_memory_is_not_served(triton):
    with triton.refuses("UNIMPLEMENTED"):
        triton.client.get_system_shared_memory_status()
    with triton.refuses("UNIMPLEMENTED"):
        triton.client.register_system_shared_memory("region", "/region", 64)


def test_messages_over_the_limit(server):
    """65 MiB where 64 are allowed."""
    large = np.zeros(65 * 1024 * 256, np.float32)
    with grpc.insecure_channel(server.grpc, [("grpc.max_send_message_length", -1)]) as channel:
        request = service_pb2.ModelInferRequest(model_name="identity", raw_input_contents=[large.tobytes()])
        request.inputs.add(name="INPUT0", datatype="FP32", shape=large.shape)
        with pytest.raises(grpc.RpcError) as refused:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    known = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE)
    assert refused.value.code() in known
    assert server.get("/v2/health/live")[0] == 200


HOSTILE = {
    "more dimensions than are taken": dict(shape=[1] * 100_000, raw=b"\0\0\0\0", says="dimensions"),
    "a negative dimension": dict(shape=[-1, 4], raw=b"\0" * 16, says="-1"),
    "a product that overflows": dict(shape=[2**62, 8], raw=b"", says="more elements"),
    "a name that would fill the answer's headers": dict(shape=[1, 1], raw=b"", name="n" * 200_000, says="takes 4 bytes"),
    "a version of that kind": dict(shape=[1, 1], raw=b"\0" * 4, version="v" * 200_000, says="not 'vvv"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_requests_get_a_short_clear_status(server, case):
    hostile = HOSTILE[case]
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="identity", model_version=hostile.get("version", ""))
        request.inputs.add(name=hostile.get("name", "INPUT0"), datatype="FP32", shape=hostile["shape"])
        request.raw_input_contents.append(hostile["raw"])
        for _ in range(8):
            with pytest.raises(grpc.RpcError) as refused:
                stub.ModelInfer(request, timeout=10)
            assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), refused.value
            assert hostile["says"] in refused.value.details() and len(refused.value.details()) < 2048


def test_rows_without_bytes_do_no_harm(triton):
    """A shape may claim rows that take no byte; counting them must not overflow, and the server goes on."""
    request = service_pb2.ModelInferRequest(model_name="identity")
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[2**63 - 1, 0])
    request.raw_input_contents.append(b"")
    with grpc.insecure_channel(triton.server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(8):
            try:
                stub.ModelInfer(request, timeout=10)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    for _ in range(16):
        triton.identity(ONE)


def test_more_rows_or_text_than_a_model_takes(triton):
    with triton.refuses("INVALID_ARGUMENT", "3000 rows", "2048"):
        triton.client.infer("minilm", [triton.input("text", np.array([b""] * 3000, np.object_))])
    with triton.refuses("INVALID_ARGUMENT", "element 0", "bytes", "truncate"):
        triton.client.infer("minilm", [triton.input("text", np.array([b"word " * 400_000], np.object_))])
