"""What a request says beside its tensors: priority, time, tenant, routing key; and what a refusal says of trying again."""

import contextlib
import json
import re
import socket
import subprocess
import time

import grpc
import numpy as np
import openai
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import http2
import serving

ONE = np.ones((1, 4), np.float32)
INFER = "/inference.GRPCInferenceService/ModelInfer"
JSON = {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]}
ACCEPTED = [
    {}, {"x-orion-tenant": "team-a.prod_1"}, {"x-orion-tenant": "x" * 64}, {"x-orion-routing-key": "session 7"},
]
REFUSED = {"x-orion-tenant": ["a b", "a/b", "x" * 65], "x-request-timeout-seconds": ["0", "-1", "1e3", "86401", "nan"]}


def message(model, **parameters):
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[ONE.tobytes()])
    request.inputs.add(name="INPUT0", datatype="FP32", shape=ONE.shape)
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return request


@pytest.mark.parametrize("headers", ACCEPTED, ids=str)
def test_headers_that_are_taken(triton, headers):
    parameters = {"routing_key": "a", "idempotent": False}
    answer = triton.client.infer(
        "identity", [triton.input("INPUT0", ONE)], headers=dict(headers), parameters=parameters, priority=5,
        timeout=10_000_000,
    )
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), ONE)


def test_headers_and_parameters_that_are_refused(triton):
    for tenant in REFUSED["x-orion-tenant"]:
        with triton.refuses("INVALID_ARGUMENT", "x-orion-tenant", "64"):
            triton.identity(ONE, headers={"x-orion-tenant": tenant})
    for name, value in (("routing_key", True), ("idempotent", "yes")):
        with triton.refuses("INVALID_ARGUMENT", name):
            triton.identity(ONE, parameters={name: value})


@pytest.mark.parametrize("body", [json.dumps(JSON).encode(), np.ones(1, np.float32).tobytes()], ids=["json", "bytes"])
def test_http_headers_that_are_refused(server, body):
    """In both of HTTP's forms, and for OpenAI's clients."""
    length = {} if body.startswith(b"{") else {"inference-header-content-length": "0"}
    path = "/v2/models/identity/infer"
    assert server.get(path, method="POST", body=body, headers=length | {"x-request-timeout-seconds": "9.5"})[0] == 200
    for name, values in REFUSED.items():
        for value in values:
            status, _, answer = server.get(path, method="POST", body=body, headers=length | {name: value})
            assert status == 400 and name in json.loads(answer)["error"], (name, value, answer)
            with openai_client(server) as client, pytest.raises(openai.BadRequestError, match=name):
                client.embeddings.create(model="minilm", input="a", extra_headers={name: value})


def openai_client(server):
    return openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none is needed", max_retries=0)


def test_openai_parameters(server):
    with openai_client(server) as client:
        def embed(headers=None, **body):
            return client.embeddings.create(model="minilm", input="a", extra_headers=headers, extra_body=body)

        taken = {"priority": 1, "timeout": 20_000_000, "routing_key": "k", "idempotent": False}
        assert embed({"x-orion-tenant": "a", "x-request-timeout-seconds": "20"}, **taken).data
        for name, value in (("priority", 6), ("priority", "high"), ("timeout", -1), ("idempotent", "no")):
            with pytest.raises(openai.BadRequestError, match=name) as refused:
                embed(**{name: value})
            assert refused.value.param == name
        with pytest.raises(openai.APIStatusError) as late:
            embed(timeout=1)
        assert late.value.status_code == 504


def call(connection, model, parameters=None, **headers):
    """ModelInfer by a client without a clock of its own."""
    data = http2.grpc_message(message(model, **parameters or {}))
    return connection.post(INFER, data, content_type="application/grpc", te="trailers", **headers)


TIMES = {
    "its own": dict(timeout=200_000), "grpc-timeout": dict(header="200m"),
    "the earlier is its own": dict(timeout=200_000, header="50S"),
    "the earlier is grpc-timeout": dict(timeout=50_000_000, header="200m"),
}


@pytest.fixture(scope="module", params=["up", "two"])
def busy(request, tmp_path_factory):
    """A server whose only device is busy for longer than any of these tests waits."""
    folder = tmp_path_factory.mktemp("busy")
    server = serving.Server(request.param, folder, {"slow": serving.simulated(folder / "slow", 1, max_rows=1)})
    channel = grpc.insecure_channel(server.grpc)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    calls = [stub.ModelInfer.future(message("slow")) for _ in range(20)]
    serving.until(lambda: server.figure("requests_queued") == 19, "the queue to be full")
    yield server
    for call in calls:
        call.cancel()
    channel.close()
    server.stop()


@pytest.mark.parametrize("case", TIMES)
def test_grpc_deadlines_are_the_servers(busy, case):
    """The client has no clock here: the server must say that the time is over, and as a deadline."""
    own, header = TIMES[case].get("timeout"), TIMES[case].get("header")
    parameters = {"timeout": own} if own else {}
    headers = {"grpc_timeout": header} if header else {}
    with contextlib.closing(http2.Connection(busy.grpc)) as connection:
        said = connection.answer(call(connection, "slow", parameters, **headers))
    assert int(said["grpc-status"]) == grpc.StatusCode.DEADLINE_EXCEEDED.value[0], said


def test_many_grpc_deadlines(busy):
    """The gRPC library has a clock of its own, which says CANCELLED: it must never be the first."""
    with contextlib.closing(http2.Connection(busy.grpc)) as connection:
        for _ in range(30 if serving.LONG else 4):
            streams = [call(connection, "slow", grpc_timeout=f"{20_000 + 37 * number}u") for number in range(90)]
            statuses = {int(connection.answer(stream)["grpc-status"]) for stream in streams}
            assert statuses == {grpc.StatusCode.DEADLINE_EXCEEDED.value[0]}


def test_a_slow_grpc_message_takes_of_the_requests_time(server):
    data = http2.grpc_message(message("delay", timeout=250_000))
    with contextlib.closing(http2.Connection(server.grpc)) as connection:
        sent = time.monotonic()
        stream = connection.post(INFER, data[:-1], ends=False, content_type="application/grpc", te="trailers")
        serving.until(lambda: time.monotonic() - sent > 0.3, "the request's time to pass")
        connection.send(stream, data[-1:])
        said = connection.answer(stream)
    assert int(said["grpc-status"]) == grpc.StatusCode.DEADLINE_EXCEEDED.value[0], said


@pytest.mark.parametrize("value", ["5", "1s", "123456789S", "-1S"])
def test_grpc_timeouts_that_are_refused(server, value):
    with contextlib.closing(http2.Connection(server.grpc)) as connection:
        said = connection.answer(call(connection, "identity", grpc_timeout=value))
    assert int(said["grpc-status"]) == grpc.StatusCode.INVALID_ARGUMENT.value[0], said
    assert "grpc-timeout" in said["grpc-message"]


@pytest.mark.parametrize("own, header", [(None, "0.2"), (50_000_000, "0.2"), (200_000, "50")])
def test_http_deadlines(busy, own, header):
    body = JSON | ({"parameters": {"timeout": own}} if own else {})
    status, _, answer = busy.get(
        "/v2/models/slow/infer", method="POST", body=json.dumps(body), headers={"x-request-timeout-seconds": header}
    )
    assert status == 504 and json.loads(answer)["error"]


def test_a_slow_body_takes_of_the_requests_time(server):
    """The time begins with the head: what the body took is gone."""
    with socket.create_connection(server.http.rsplit(":", 1), timeout=30) as connection:
        body = json.dumps(JSON).encode()
        head = (
            f"POST /v2/models/delay/infer HTTP/1.1\r\nhost: {server.http}\r\nx-request-timeout-seconds: 0.25\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        sent = time.monotonic()
        connection.sendall(head.encode() + body[:-1])
        serving.until(lambda: time.monotonic() - sent > 0.3, "the request's time to pass")
        connection.sendall(body[-1:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 504")


def test_refusals_say_when_to_come_back(start):
    """8 MiB may be arriving at once: bodies that lack their last byte take all of it but a little."""
    server = start("up", arguments=["--max-message-mb", "1"])
    whole, address = 1 << 20, server.http.rsplit(":", 1)
    head = f"POST /v2/models/identity/infer HTTP/1.1\r\nhost: {server.http}\r\n"
    tensors = service_pb2.ModelInferRequest(model_name="identity", raw_input_contents=[bytes(whole)])
    tensors.inputs.add(name="INPUT0", datatype="FP32", shape=[1, whole // 4])

    def over_http():
        """Two chunks: what comes in one piece takes nothing of the budget."""
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n1\r\nx\r\n0\r\n\r\n".encode())
            said = connection.recv(65536).decode().lower()
        return said if said.startswith("http/1.1 429") else None

    def over_grpc():
        with grpc.insecure_channel(server.grpc) as channel:
            try:
                service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(tensors, timeout=30)
            except grpc.RpcError as error:
                return error if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED else None

    with contextlib.ExitStack() as held:
        def refused(attempt):
            """One more body each time: an attempt that comes early may cost one of the others its place."""
            one = held.enter_context(socket.create_connection(address, timeout=30))
            with contextlib.suppress(ConnectionError):
                one.sendall(f"{head}content-length: {whole}\r\n\r\n".encode() + bytes(whole - 1))
            return attempt()

        said = serving.until(lambda: refused(over_http), "a refusal over HTTP")
        assert "\r\nretry-after: 1\r\n" in said and "\r\nretry-after-ms: 1000\r\n" in said, said
        said = dict(serving.until(lambda: refused(over_grpc), "a refusal over gRPC").trailing_metadata())
    assert (said["retry-after"], said["retry-after-ms"]) == ("1", "1000")
    assert b"type.googleapis.com/google.rpc.RetryInfo" in said["grpc-status-details-bin"]


EXAMPLES = re.findall(r"```(\w+)\n(.*?)```", (serving.ROOT / "docs/requests.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("language, text", EXAMPLES, ids=[language for language, _ in EXAMPLES])
def test_the_manuals_examples(server, language, text):
    text = text.replace("127.0.0.1:8000", server.http).replace("127.0.0.1:8001", server.grpc)
    if language == "python":
        exec(compile(text, "docs/requests.md", "exec"), said := {})
        assert said["answer"]
        return
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"][0]["shape"] == [1, 384], done.stdout
