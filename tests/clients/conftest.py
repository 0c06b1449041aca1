"""Fixtures: the servers, and tritonclient over gRPC and HTTP with one face."""

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import serving
from stores import copy, disk, other, seed, serve, small  # noqa: F401


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The real model that scripts/fetch-models made, and one that takes 20 ms a batch."""
    minilm = serving.MODELS / "minilm"
    if not minilm.is_dir():
        pytest.fail(f"{minilm} is missing, make it with: scripts/fetch-models minilm --to {serving.MODELS}")
    return {"minilm": minilm, "delay": serving.simulated(tmp_path_factory.mktemp("models") / "delay", 0.02)}


@pytest.fixture(scope="session", params=["up", "two"])
def server(request, tmp_path_factory, models):
    """One server for all tests that leave it as it was."""
    running = serving.Server(request.param, tmp_path_factory.mktemp(request.param), models)
    yield running
    running.stop()


@pytest.fixture
def start(tmp_path):
    """Starts servers of a test's own, which must end cleanly when it is over."""
    started = []

    def start_one(shape, models=None, **settings):
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(serving.Server(shape, folder, models or {}, **settings))
        return started[-1]

    yield start_one
    for one in started:
        one.stop()


class Triton:
    """tritonclient over one protocol."""

    STATUS = {
        "INVALID_ARGUMENT": "400", "UNAUTHENTICATED": "401", "NOT_FOUND": "404", "UNIMPLEMENTED": "501",
        "FAILED_PRECONDITION": "409", "UNAVAILABLE": "503", "DEADLINE_EXCEEDED": "504",
    }

    def __init__(self, protocol, server):
        self.protocol, self.server = protocol, server
        self.module = tritonclient.grpc if protocol == "grpc" else tritonclient.http
        self.client = self.module.InferenceServerClient(getattr(server, protocol))

    def input(self, name, array, datatype=None, **binary):
        datatype = datatype or tritonclient.utils.np_to_triton_dtype(array.dtype)
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **binary)
        return tensor

    def identity(self, array, model="identity", **settings):
        """The array as the model gave it back."""
        return self.client.infer(model, [self.input("INPUT0", array)], **settings).as_numpy("OUTPUT0")

    def embed(self, texts, **settings):
        tensor = self.input("text", np.array([text.encode() for text in texts], dtype=np.object_))
        return self.client.infer("minilm", [tensor], **settings).as_numpy("embedding")

    def refuses(self, code, *parts):
        """Expects a refusal of this code whose message holds every part."""
        return Refusal(self, code, parts)


class Refusal:
    def __init__(self, triton, code, parts):
        self.triton, self.code, self.parts = triton, code, parts

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        assert error is not None, f"accepted, {self.code} expected"
        if not isinstance(error, tritonclient.utils.InferenceServerException):
            return False
        known = {"grpc": f"StatusCode.{self.code}", "http": Triton.STATUS[self.code]}
        status = str(error.status()).split()[0]
        assert status == known[self.triton.protocol], f"{status}: {error.message()}"
        for part in self.parts:
            assert part in error.message(), f"{part!r} is not in {error.message()!r}"
        assert self.triton.client.is_server_live()
        return True


@pytest.fixture(params=["grpc", "http"])
def triton(request, server):
    one = Triton(request.param, server)
    yield one
    one.client.close()
