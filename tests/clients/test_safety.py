"""Safe by default: tokens, hosts, addresses, limits."""

import json
import os
import pathlib
import socket
import struct
import subprocess

import grpc
import numpy as np
import openai
import pytest
import tritonclient.grpc
import tritonclient.http

import serving
from sessions import control, hello

TOKEN = "a-token-of-32-characters-exactly"
ONE = np.ones((1, 4), np.float32)


def token_file(folder, mode=0o600):
    path = folder / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(mode)
    return path


@pytest.fixture
def guarded(start, tmp_path, models, shape):
    return start(shape, {"minilm": models["minilm"]}, token_file=token_file(tmp_path))


@pytest.mark.parametrize("shape", ["up", "two"])
def test_token(guarded):
    right, wrong = {"authorization": f"Bearer {TOKEN}"}, {"authorization": f"Bearer {TOKEN[:-1]}X"}
    for module, address, refused in (
        (tritonclient.grpc, guarded.grpc, "StatusCode.UNAUTHENTICATED"), (tritonclient.http, guarded.http, "401"),
    ):
        client = module.InferenceServerClient(address)
        tensor = module.InferInput("INPUT0", [1, 4], "FP32")
        tensor.set_data_from_numpy(ONE)
        for headers in (None, wrong, {"authorization": TOKEN}):
            with pytest.raises(tritonclient.utils.InferenceServerException) as error:
                client.infer("identity", [tensor], headers=headers)
            assert error.value.status() == refused
        assert client.infer("identity", [tensor], headers=right).as_numpy("OUTPUT0").tolist() == ONE.tolist()
        client.close()
    base = f"http://{guarded.http}/v1"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=base, api_key="wrong", max_retries=0).embeddings.create(model="minilm", input="a")
    openai.OpenAI(base_url=base, api_key=TOKEN, max_retries=0).embeddings.create(model="minilm", input="a")
    for path, address in (("/v2", guarded.http), ("/v1/models", guarded.http), ("/metrics", guarded.metrics)):
        assert guarded.get(path, address, headers={})[0] == 401, path
        assert guarded.get(path, address)[0] == 200, path
    # What one method forgets is what an attacker finds.
    for method in ("DELETE", "PUT", "PATCH", "OPTIONS"):
        assert guarded.get("/v2/repository/models/minilm/unload", headers={}, method=method)[0] == 401, method


@pytest.mark.parametrize("shape", ["two"])
def test_a_worker_needs_the_token(guarded):
    with pytest.raises(grpc.RpcError) as refused:
        control(guarded.session, hello("stranger"))
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "stranger" not in guarded.nodes() and "w1" in guarded.nodes()


def refused_start(*arguments):
    done = subprocess.run(
        [serving.BINARY, *arguments], capture_output=True, text=True, timeout=60, env=serving.environment(), check=False
    )
    assert done.returncode not in (0, -6, 101), done.stderr
    return done.stdout + done.stderr


def test_open_addresses_need_a_decision(tmp_path):
    """All mistakes are said at once, before a port is bound."""
    said = refused_start(
        "up", "--data-dir", str(tmp_path), "--http", "0.0.0.0:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
        "--session", "127.0.0.1:0", "--model", "bad/name=/nowhere",
    )
    for part in ("0.0.0.0", "--token-file", "--insecure", "bad/name"):
        assert part in said


def test_a_token_that_others_can_read_is_refused(tmp_path):
    path = token_file(tmp_path, 0o644)
    said = refused_start("up", "--data-dir", str(tmp_path), "--http", "127.0.0.1:0", "--token-file", str(path))
    assert "chmod" in said and TOKEN not in said


@pytest.mark.parametrize("listener", ["http", "metrics"])
@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v1/models", "/metrics"])
def test_hosts_that_are_not_ours(server, listener, path):
    """DNS rebinding: a browser that was led here names the attacker's host."""
    address = getattr(server, listener)
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"):
        assert server.get(path, address, headers={"Host": host})[0] in (403, 421), host
    port = address.rsplit(":", 1)[1]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert server.get(path, address, headers={"Host": host})[0] in (200, 404), host


def exchange(address, data):
    """Sends raw bytes and reads until the other end closes or has said enough."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(data)
        return connection.recv(65536)


def test_a_host_must_be_named(server):
    assert exchange(server.http, b"GET /v2 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("listener", ["http", "metrics"])
def test_headers_are_bounded(server, listener):
    try:
        status = server.get("/v2", getattr(server, listener), headers={"x-large": "x" * 40_000})[0]
    except ConnectionError:
        status = "hung up"  # closing on unread bytes can overtake the answer
    assert status in (431, "hung up")
    assert server.get("/v2/health/live")[0] == 200


@pytest.mark.parametrize("listener", ["http", "grpc", "session"])
def test_http2_settings_are_bounded(server, listener):
    """The first frame of the server: 256 streams a connection, 16 KiB of headers."""
    said = exchange(getattr(server, listener), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    length, kind = int.from_bytes(said[:3], "big"), said[3]
    assert kind == 4, "the first frame must be SETTINGS"
    settings = dict(struct.iter_unpack(">HI", said[9 : 9 + length]))
    assert 0 < settings[3] <= 256 and 0 < settings[6] <= 16384


def test_a_length_over_the_limit_is_refused_unread(server):
    request = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    assert exchange(server.http, request).startswith(b"HTTP/1.1 413")


def test_many_tiny_chunks(server):
    """Each chunk must not cost an allocation that stays."""
    count = 2_000_000 if serving.LONG else 200_000
    body = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[1]}]}'
    head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"1\r\n" + body[at : at + 1] + b"\r\n" for at in range(len(body)))
    said = exchange(server.http, head + chunks + b"1\r\n \r\n" * count + b"0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200"), said[:200]


def frame(kind, flags, stream, payload):
    """An HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def test_rapid_resets_do_not_stop_the_server(server):
    """HTTP/2 rapid reset: streams opened and reset at once, many times over."""
    host, port = server.grpc.rsplit(":", 1)
    rounds = 20 if serving.LONG else 2
    path = b"/inference.GRPCInferenceService/ModelInfer"
    headers = bytes([0x83, 0x86]) + b"\x04" + bytes([len(path)]) + path + b"\x01\x09localhost"
    for _ in range(rounds):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            attack = b"".join(
                frame(1, 4, stream, headers) + frame(3, 0, stream, struct.pack(">I", 8)) for stream in range(1, 4001, 2)
            )
            try:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + attack)
            except OSError:
                pass  # the server hung up on us, as it may
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    assert client.is_server_live()
    client.close()


def test_nothing_secret_is_written(start, tmp_path):
    server = start("up", token_file=token_file(tmp_path))
    server.get("/v2", headers={"authorization": "Bearer something-else"})
    for folder, _, files in os.walk(server.folder):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                assert TOKEN.encode() not in file.read(), name


HUGE = 2_000_000
BODIES = {
    "/v1/embeddings": {"input": "a"},
    "/v1/rerank": {"query": "a", "documents": ["a"]},
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
}
ZEROS = "[" + "0," * HUGE + "0]"


@pytest.mark.parametrize("shape", ["two"])
def test_a_body_does_not_grow_in_memory(start, shape):
    """Numbers and short texts take some thirty times their JSON as values: 128 MiB of them would be gigabytes."""
    server = start(shape, {})
    texts, bias = "[" + '"",' * HUGE + '""]', "{" + ",".join(f'"{n}":1' for n in range(HUGE // 4)) + "}"
    fields = [(path, "x", ZEROS) for path in BODIES]
    fields += [("/v1/chat/completions", name, ZEROS) for name in ("messages", "tools", "tool_choice")]
    fields += [("/v1/chat/completions", "messages", '[{"role": "user", "content": ' + ZEROS + "}]")]
    fields += [("/v1/completions", name, value) for name in ("prompt", "stop") for value in (ZEROS, texts)]
    fields += [("/v1/completions", "prompt", "[" + "[]," * HUGE + "[]]"), ("/v1/completions", "logit_bias", bias)]
    schema = '{"type": "json_schema", "json_schema": {"schema": {"enum": ' + ZEROS + "}}}"
    fields += [("/v1/completions", "response_format", schema)]
    memory = pathlib.Path(f"/proc/{server.scheduler.child.pid}")

    def mebibytes(key):
        line = next(line for line in (memory / "status").read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024

    for path, name, value in fields:
        given = {"model": "none"} | {key: text for key, text in BODIES[path].items() if key != name}
        body = json.dumps(given)[:-1] + f', "{name}": {value}}}'
        (memory / "clear_refs").write_text("5")  # the peak counts from here
        before = mebibytes("VmRSS")
        status, _, said = server.get(path, method="POST", body=body.encode())
        grown = mebibytes("VmHWM") - before
        assert status in (400, 404), (path, name, said)
        assert grown < 8 * len(body) / 2**20, (path, name, grown)
