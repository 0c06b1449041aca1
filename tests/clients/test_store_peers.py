"""Peers that do harm, to those who fetch from them."""

import contextlib
import socket
import threading

import pytest

import hashes
import peers
import serving
from stores import Absurd, Made, contents, pull, pulled, refused, weights


HARMFUL = {
    "liar": lambda ended: peers.Liar(),
    "stalling": lambda ended: peers.After(3, peers.stall(ended)),
    "stalling at once": lambda ended: peers.After(0, peers.stall(ended)),
    "leaving": lambda ended: peers.After(3, peers.leave),
    "out of turn": lambda ended: peers.After(3, peers.out_of_turn),
    "too long": lambda ended: peers.After(3, peers.too_long),
    "unknown chunks": lambda ended: peers.After(3, peers.unknown_chunk),
    "beginning again": lambda ended: peers.After(3, peers.begin_again),
    "garbage": lambda ended: peers.After(3, peers.garbage),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_beside_an_honest_peer_a_harmful_one_does_none(small, tmp_path, seed, copy, other, kind):
    ended = threading.Event()
    harmful = other(copy, HARMFUL[kind](ended))
    try:
        pulled(pull("small", tmp_path / "a", harmful.address, seed.address), small)
    finally:
        ended.set()
    assert harmful.begins


@pytest.mark.parametrize("kind", ["liar", "stalling", "out of turn", "garbage"])
def test_a_harmful_peer_alone_is_named_and_nothing_is_kept(tmp_path, copy, other, kind):
    ended = threading.Event()
    harmful = other(copy, HARMFUL[kind](ended))
    try:
        error = refused("small", tmp_path / "a", harmful.address)
    finally:
        ended.set()
    assert harmful.address in error


def test_a_liar_is_not_asked_again(tmp_path, copy, other):
    ended = threading.Event()
    liar, slow = other(copy, peers.Liar()), other(copy, peers.After(40, peers.stall(ended)))
    command = ["pull", "small", "--from", f"{liar.address},{slow.address}", "--store", str(tmp_path / "a")]
    process = serving.Process(command, tmp_path / "log")
    try:
        serving.until(lambda: len(liar.begins) > 3 or process.child.poll() is not None, "the end")
    finally:
        process.kill()
        ended.set()
    assert len(liar.begins) <= 3, f"{liar.wants} chunks were wanted in {len(liar.begins)} connections"


def manifests():
    """Manifests that nobody should take, by what is wrong with them."""
    text = b"some text"
    for path in ["../out", "a/../../out", "/tmp/out", "a//b", "", ".", "a/./b", "a\\b", "a\0b", "a\nb", "a" * 2000]:
        yield f"path {path[:9]!r}", peers.made("m", "1", [(path, text)])
    yield "long part", peers.made("m", "1", [("a" * 300, text)])
    for name in ["..", "a/b", "", "x" * 200]:
        yield f"name {name[:9]!r}", peers.made(name, "1", [("a", text)])
        yield f"version {name[:9]!r}", peers.made("m", name, [("a", text)])
    yield "other name", peers.made("n", "1", [("a", text)])
    yield "twice", peers.made("m", "1", [("a", text), ("a", text)])
    yield "file and folder", peers.made("m", "1", [("a", text), ("a/b", text)])
    for chunk_bytes in (0, 8, 2**32 - 1):
        yield f"chunks of {chunk_bytes}", peers.made("m", "1", [("a", text)], chunk_bytes=chunk_bytes)
    for what, fields in {
        "empty chunk": {"bytes": 0},
        "huge chunk": {"bytes": 2**32 - 1},
        "short address": {"address": b"12"},
        "element": {"element": 99},
        "codec": {"encoded": {"codec": 99, "bytes": 3, "hash": bytes(32)}},
        "encoded longer": {"encoded": {"codec": 5, "bytes": 10, "hash": bytes(32)}},
        "encoded empty": {"encoded": {"codec": 5, "bytes": 0, "hash": bytes(32)}},
        "difference to nothing": {"difference": {"base": bytes(32), "bytes": 3, "hash": bytes(32)}},
    }.items():
        manifest = peers.made("m", "1", [("a", text)])
        manifest.files[0].chunks[0].MergeFrom(peers.MESSAGES["Chunk"](**fields))
        if what == "empty chunk":
            manifest.files[0].chunks[0].bytes = 0
        yield what, manifest
    lengths = peers.made("m", "1", [("a", text)])
    lengths.files[0].chunks.add(bytes=3, address=hashes.digest(text))
    yield "lengths that differ", lengths
    tensor = peers.made("m", "1", [("a", text)])
    tensor.files[0].tensors.add(name="t", start=2**64 - 1, bytes=2**64 - 1)
    yield "tensor outside", tensor
    yield "base", peers.made("m", "1", [("a", text)], base=b"123")


MANIFESTS = dict(manifests())


# Defect ("long part"): it is refused only when all of it is here, and what is here stays.
@pytest.mark.parametrize("what", MANIFESTS)
def test_an_absurd_manifest_is_refused(tmp_path, copy, other, what):
    made = peers.artifact(MANIFESTS[what])
    absurd = other(Made(made, [b"some text"]))
    error = refused("m", tmp_path / "a", absurd.address)
    assert absurd.address in error and "manifest" in error or "another model" in error, error
    assert not absurd.begins and not list(tmp_path.rglob("out"))


@pytest.mark.parametrize("encoded", [b"", b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", bytes(5000)])
def test_what_is_no_manifest_is_refused(tmp_path, copy, other, encoded):
    absurd = other(copy, Absurd(encoded))
    error = refused("small", tmp_path / "a", absurd.address)
    assert absurd.address in error and not absurd.begins


def test_what_a_stranger_published_is_taken(tmp_path, other):
    made = peers.artifact(peers.made("m", "1", [("a/b/c", b"some text"), ("d", b"more"), ("e", b"some text")]))
    done = pull("m", tmp_path / "a", other(Made(made, [b"some text", b"more"])).address)
    assert contents(done["folder"]) == {"a/b/c": b"some text", "d": b"more", "e": b"some text"}


@pytest.mark.parametrize("codec", ["zstd", "weights"])
def test_codes_that_do_not_decode_are_refused(tmp_path, other, codec):
    """The hash of the encoded bytes is right, but they are no chunk."""
    codec, bad = {"zstd": 5, "weights": 6}[codec], b"not a code" * 10
    manifest = peers.made("m", "1", [("a", bytes(range(200)))])
    encoded = {"codec": codec, "bytes": len(bad), "hash": hashes.digest(bad)}
    manifest.files[0].chunks[0].encoded.MergeFrom(peers.MESSAGES["Encoded"](**encoded))
    server = Made(peers.artifact(manifest), [bytes(range(200))])
    server.chunks[peers.ENCODED] = {0: bad}
    assert "decode" in refused("m", tmp_path / "a", other(server).address)


def test_peers_that_are_told_of_are_not_all_dialled(tmp_path, copy, other):
    with socket.create_server(("0.0.0.0", 0), backlog=1000) as victim:
        port, knocks, ended = victim.getsockname()[1], [], threading.Event()

        def count():
            with contextlib.suppress(OSError):
                while True:
                    knocks.append(victim.accept()[0])

        threading.Thread(target=count, daemon=True).start()
        many = [f"127.1.{n // 250}.{n % 250 + 1}:{port}" for n in range(300)]

        def tell(chunk, data):
            yield peers.sender(peers={"addresses": ["", "no address", *many]})
            yield from peers.stall(ended)(chunk, data)

        server = other(copy, peers.After(3, tell))
        command = ["pull", "small", "--from", server.address, "--store", str(tmp_path / "a")]
        process = serving.Process(command, tmp_path / "log")
        try:
            serving.until(lambda: len(knocks) >= 100 or process.child.poll() is not None, "the end")
        finally:
            process.kill()
            ended.set()
    # Some are tried again; 300 were told.
    assert len(knocks) < 100, f"{len(knocks)} connections"
