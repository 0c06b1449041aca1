"""A client that goes away frees its place in the queue: the device runs only what somebody still waits for."""

import json
import socket

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import http2
import serving

# Seconds that one batch takes: everything below happens while the first one runs.
BATCH_SECONDS = 2
PATH = "/v2/models/slow/infer"
JSON = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]}).encode()


def message():
    request = service_pb2.ModelInferRequest(model_name="slow", raw_input_contents=[np.ones(1, np.float32).tobytes()])
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1])
    return request


class Grpc:
    """gRPC's own client."""

    def __init__(self, server):
        self.channel = grpc.insecure_channel(server.grpc)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.call = self.send()

    def send(self):
        return self.stub.ModelInfer.future(message())

    def leave(self):
        self.call.cancel()
        self.channel.close()


class GrpcStream(Grpc):
    """A request in a stream."""

    def send(self):
        return self.stub.ModelStreamInfer(iter([message()]))


class GrpcConnection(Grpc):
    """The whole connection goes."""

    def leave(self):
        self.channel.close()


class Http1:
    """A socket that closes."""

    def __init__(self, server):
        host, port = server.http.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        head = f"POST {PATH} HTTP/1.1\r\nhost: {server.http}\r\ncontent-length: {len(JSON)}\r\n\r\n"
        self.socket.sendall(head.encode() + JSON)

    def leave(self):
        self.socket.close()


class Http1Aborted(Http1):
    """A socket that closes with a reset."""

    def leave(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


class Http2:
    """A stream that is reset; its connection stays."""

    def __init__(self, server):
        self.connection = http2.Connection(server.http)
        self.stream = self.connection.post(PATH, JSON)

    def leave(self):
        self.connection.reset(self.stream)


class Http2Connection(Http2):
    """The whole connection goes."""

    def leave(self):
        self.connection.close()


KINDS = (Grpc, GrpcStream, GrpcConnection, Http1, Http1Aborted, Http2, Http2Connection)


@pytest.mark.parametrize("shape", ["up", "two"])
def test_clients_that_leave_free_their_places(start, tmp_path, shape):
    server = start(shape, {"slow": serving.simulated(tmp_path / "slow", BATCH_SECONDS, max_rows=1)})

    def queued(count):
        serving.until(lambda: server.figure("requests_queued") == count, f"{count} requests to wait")

    first = Grpc(server)
    serving.until(lambda: server.figure("requests_running") == 1, "the first request to run")
    leaving = []
    for kind in KINDS:
        leaving.append(kind(server))
        queued(len(leaving))
    last = Grpc(server)
    queued(len(leaving) + 1)
    while leaving:
        leaving.pop().leave()
        queued(len(leaving) + 1)
    assert server.figure("requests_succeeded") == 0, "a batch ended before every place was free"
    for stays in (first, last):
        assert stays.call.result(timeout=60).raw_output_contents == [np.ones(1, np.float32).tobytes()]
        stays.channel.close()
    statistics = json.loads(server.get("/v2/models/slow/stats")[2])["model_stats"][0]
    assert (statistics["execution_count"], statistics["inference_count"]) == (2, 2), "batches ran for nobody"
    assert server.figure("requests_succeeded") == 2
    assert server.figure("requests_queued") == server.figure("requests_running") == 0
