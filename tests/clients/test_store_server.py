"""What a node that serves its store may be sent."""

import contextlib
import os
import socket
import threading

import grpc
import pytest

import peers
import serving
from stores import CacheServer, FAILED, orion, pull, pulled, push, refused


def hostile(artifact):
    count = len(artifact.chunks)
    begin = peers.receiver(begin={"root": artifact.root, "bitmap": peers.bits([], count)})
    want = peers.receiver(want={"chunk": 0})
    yield "nothing", []
    yield "garbage", [b"\xff" * 100]
    yield "garbage later", [begin, b"\xff" * 100]
    yield "empty message", [peers.receiver()]
    yield "no begin", [want]
    yield "two begins", [begin, begin]
    yield "wants without a turn", [begin] + [want] * 1000
    yield "a chunk that is not", [begin, peers.receiver(want={"chunk": 2**32 - 1})]
    yield "a form that is not", [begin, peers.receiver(want={"chunk": 0, "form": 99})]
    yield "a difference that is not", [begin, peers.receiver(want={"chunk": 0, "form": 2})]
    yield "endless credit", [begin] + [peers.receiver(credit={"bytes": 2**64 - 1})] * 100
    yield "passes", [begin] + [peers.receiver(**{"pass": {}})] * 10000
    yield "cancels", [begin] + [peers.receiver(cancel={"chunk": n}) for n in (0, 5, 2**32 - 1)] * 100
    yield "interest", [begin] + [peers.receiver(interested={})] * 10000
    yield (
        "haves and comings",
        [begin, peers.receiver(have={"chunks": [2**32 - 1, *range(50000)]})]
        + [peers.receiver(coming={"chunk": n}) for n in [2**32 - 1, *range(3000)]],
    )
    for length in (0, 1, (count + 7) // 8 + 1, 200_000):
        yield f"a bitmap of {length}", [peers.receiver(begin={"root": artifact.root, "bitmap": b"\xff" * length}), want]
    yield "a root of 3 bytes", [peers.receiver(begin={"root": b"abc"})]
    yield "a root that is not", [peers.receiver(begin={"root": bytes(32)})]
    yield (
        "a long address",
        [peers.receiver(begin={"root": artifact.root, "bitmap": peers.bits([], count), "address": "x" * 200_000})],
    )
    yield "a message of 5 MB", [peers.receiver(begin={"root": artifact.root, "bitmap": bytes(5_000_000)})]


def hostile_uploads(artifact):
    begin = {"root": artifact.root, "bitmap": peers.bits([], len(artifact.chunks))}
    yield "no begin", [peers.sender(turn={})]
    yield "no artifact", [peers.sender(begin=begin)]
    yield "an artifact of any length", [peers.sender(begin={**begin, "artifact": b"x", "artifact_bytes": 2**64 - 1})]
    yield "endless parts", [peers.sender(begin={**begin, "artifact": b"", "artifact_bytes": 9})] * 100
    yield "garbage for an artifact", [peers.sender(begin={**begin, "artifact": b"\xff" * 9, "artifact_bytes": 9})]
    whole = {**begin, "artifact": artifact.encoded, "artifact_bytes": len(artifact.encoded)}
    yield "a bitmap of another length", [peers.sender(begin={**whole, "bitmap": b"1"})]
    yield (
        "pieces of what was not asked",
        [peers.sender(begin=whole)] + [peers.sender(piece={"chunk": 1, "bytes": bytes(100)})] * 100,
    )
    yield "it leaves", [peers.sender(begin=whole), peers.sender(turn={})]


@pytest.fixture(scope="module")
def besieged(tmp_path_factory, small):
    folder = tmp_path_factory.mktemp("besieged")
    push(small, "small@1", folder / "store")
    server = CacheServer(folder / "store", folder / "log", "--accept-uploads")
    yield server
    assert "panicked" not in server.process.text()
    server.kill()


def test_a_server_outlives_hostile_messages(small, tmp_path, copy, besieged):
    sent = [("Download", *case) for case in hostile(copy.artifact)]
    sent += [("Upload", *case) for case in hostile_uploads(copy.artifact)]
    made = peers.artifact(peers.made("m", "1", [("a", b"text")]))
    sent += [("Upload", *case) for case in hostile_uploads(made)]
    with peers.Client(besieged.address) as client:
        for method, what, messages in sent:
            try:
                list(client.call(method, iter(messages)))
            except grpc.RpcError as error:
                assert error.code() not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED), (what, error)
        for request in (
            b"\xff" * 50,
            peers.MESSAGES["FindRequest"](name="../.."),
            peers.MESSAGES["FindRequest"](name="a" * 100000),
        ):
            with pytest.raises(grpc.RpcError):
                list(client.call("Find", request))
        for name in ("..", "small/1", "", "/etc", "."):
            for version in ("", "..", "../small/1"):
                with pytest.raises(grpc.RpcError):
                    list(client.call("Find", peers.MESSAGES["FindRequest"](name=name, version=version)))
    with socket.create_connection(tuple(besieged.address.split(":"))) as raw:
        raw.sendall(os.urandom(10000))
    assert "panicked" not in besieged.process.text()
    pulled(pull("small", tmp_path / "a", besieged.address), small)


@pytest.mark.parametrize("what", ["wants without a turn", "two begins", "a bitmap of 1"])
def test_who_breaks_the_protocol_is_told(copy, seed, what):
    messages = dict(hostile(copy.artifact))[what]
    with peers.Client(seed.address) as client, pytest.raises(grpc.RpcError) as error:
        list(client.call("Download", iter(messages)))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("count", [1, 15, 16])
def test_receivers_that_take_nothing_hold_nobody_up(small, tmp_path, copy, besieged, count):
    """They have turns and want chunks, and give no credit."""
    chunk = max(range(len(copy.artifact.chunks)), key=lambda chunk: copy.artifact.chunks[chunk].bytes)
    with contextlib.ExitStack() as stack:
        stalled = [threading.Event() for _ in range(count)]
        for event in stalled:
            client = stack.enter_context(peers.Client(besieged.address))
            out = peers.queue.Queue()
            out.put(client.begin(copy.artifact))
            answers = client.call("Download", iter(out.get, None))
            stack.callback(out.put, None)
            stack.callback(answers.cancel)
            threading.Thread(target=wants, args=(answers, out, chunk, event), daemon=True).start()
        serving.until(lambda: all(event.is_set() for event in stalled), "pieces for each of them")
        pulled(pull("small", tmp_path / "a", besieged.address), small)


def wants(answers, out, chunk, stalled):
    with contextlib.suppress(grpc.RpcError):
        for answer in answers:
            if answer.WhichOneof("message") == "turn":
                out.put(peers.receiver(want={"chunk": chunk}))
            elif answer.WhichOneof("message") == "piece":
                stalled.set()


def test_receivers_hear_of_each_other(copy, seed):
    told = []
    with half_open(seed.address, copy, "10.1.2.3:4"), peers.Client(seed.address) as client:
        client.download(copy.artifact, wanted=[0, 1], address="10.9.9.9:9", peers=told)
    assert told == ["10.1.2.3:4"]


@contextlib.contextmanager
def half_open(address, copy, own):
    """A receiver that began and says no more."""
    out = peers.queue.Queue()
    with peers.Client(address) as client:
        out.put(client.begin(copy.artifact, own))
        answers = client.call("Download", iter(out.get, None))
        next(answers)
        yield
        out.put(None)
        answers.cancel()


def test_what_is_published_or_removed_is_seen_by_a_server_that_runs(small, tmp_path, serve):
    server = serve(tmp_path / "a")
    push(small / "more", "m@1", tmp_path / "a")
    pulled(pull("m", tmp_path / "b", server.address), small / "more")
    orion("cache", "rm", "m@1", "--store", tmp_path / "a")
    error = refused("m", tmp_path / "c", server.address)
    assert "m" in error and server.address in error
    with peers.Client(server.address) as client:
        assert not client.list()


def test_mistakes_are_named(small, tmp_path, seed):
    assert "none" in refused("none@1", tmp_path / "a", seed.address)
    assert "cannot be reached" in refused("small", tmp_path / "a", "127.0.0.1:1")
    assert "HOST:PORT" in refused("small", tmp_path / "a", "no address")
    pull("small", tmp_path / "b", "127.0.0.1:1", seed.address)
    for command in (["rm", "none"], ["verify", "none@3"]):
        assert "none" in orion("cache", *command, "--store", tmp_path / "a", status=FAILED).stderr
    assert "cannot be read" in orion("push", tmp_path / "absent", "--store", tmp_path / "a", status=FAILED).stderr
