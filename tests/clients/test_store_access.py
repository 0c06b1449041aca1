"""Whom a node believes and lets in, and how much it takes."""

import contextlib
import os

import grpc
import numpy as np
import pytest

import hashes
import peers
from stores import Absurd, CacheServer, FAILED, Made, half_pulled, keys, listed, orion, pull, pulled, push, refused, said


# Who published it.


@pytest.fixture(scope="module")
def signed(tmp_path_factory, small):
    folder = tmp_path_factory.mktemp("signed")
    good, bad = keys(folder, "good"), keys(folder, "bad")
    push(small / "more", "m@1", folder / "good-store", "--sign", good[0])
    push(small / "more", "m@1", folder / "bad-store", "--sign", bad[0])
    push(small / "more", "m@1", folder / "unsigned-store")
    servers = {
        name: CacheServer(folder / f"{name}-store", folder / f"{name}.log") for name in ("good", "bad", "unsigned")
    }
    yield {name: server.address for name, server in servers.items()} | {
        "key": good[1],
        "other key": bad[1],
        "private": good[0],
    }
    for server in servers.values():
        server.kill()


def test_what_is_signed_by_whom_is_trusted_is_taken(small, tmp_path, signed):
    trust = ["--trust", f"{signed['other key']},{signed['key']}"]
    done = pulled(pull("m", tmp_path / "a", signed["good"], more=trust), small / "more")
    assert done["signed"] and said("cache", "ls", "--store", tmp_path / "a")["artifacts"][0]["signed"]


@pytest.mark.parametrize("whose, message", [("bad", "not trusted"), ("unsigned", "not signed")])
def test_what_is_not_is_refused(tmp_path, signed, whose, message):
    assert message in refused("m", tmp_path / "a", signed[whose], more=["--trust", signed["key"]])
    assert "key" in refused("m", tmp_path / "a", signed["good"], more=["--trust", signed["private"]])


@pytest.mark.parametrize("whose", ["bad", "unsigned"])
def test_one_that_is_not_trusted_does_not_hide_one_that_is(small, tmp_path, signed, whose):
    pulled(pull("m", tmp_path / "a", signed[whose], signed["good"], more=["--trust", signed["key"]]), small / "more")


@pytest.mark.parametrize("field, length", [("signature", 64), ("key", 32)])
def test_a_signature_that_is_not_right_is_refused(tmp_path, signed, other, field, length):
    copy = peers.Copy(signed["good"], "m")
    message = peers.MESSAGES["Artifact"].FromString(copy.artifact.encoded)
    for wrong in (bytes(length), getattr(message, field)[:-1], getattr(message, field)[::-1]):
        setattr(message, field, wrong)
        server = other(copy, Absurd(message.SerializeToString()))
        for more in ([], ["--trust", signed["key"]]):
            assert "signature" in refused("m", tmp_path / "a", server.address, more=more)


def test_uploads_must_be_trusted_too(small, tmp_path, signed, serve):
    node = serve(tmp_path / "b", "--accept-uploads", "--trust", signed["key"])
    error = orion("push", small, "--store", tmp_path / "a", "--to", node.address, status=FAILED).stderr
    assert "not signed" in error and listed(tmp_path / "b") == []
    push(small, "m@1", tmp_path / "a", "--sign", signed["private"], "--to", node.address)
    assert listed(tmp_path / "b") == ["m@1"]


# Room.


def test_a_full_disk_is_named_and_harms_nothing(small, seed, disk):
    push(small / "config.json", "tiny@1", disk / "store")
    for command in (["pull", "small", "--from", seed.address], ["push", small]):
        error = orion(*command, "--store", disk / "store", status=FAILED).stderr
        assert "no space left" in error, error
    assert listed(disk / "store") == ["tiny@1"] and not said("cache", "verify", "--store", disk / "store")[0]["damaged"]


def test_what_has_no_room_takes_none(small, seed, disk):
    push(small / "config.json", "tiny@1", disk / "store")
    before = os.statvfs(disk).f_bfree
    orion("pull", "small", "--from", seed.address, "--store", disk / "store", status=FAILED)
    orion("cache", "gc", "--store", disk / "store")
    assert os.statvfs(disk).f_bfree > 0.9 * before


def test_a_manifest_of_more_than_any_disk_takes_no_room(disk, other):
    manifest = peers.made("m", "1", [("a", b"some text")], chunk_bytes=1 << 24)
    for _ in range(20000):
        manifest.files[0].chunks.add(bytes=1 << 24, address=bytes(32))
    huge = other(Made(peers.artifact(manifest), [b"some text"]))
    before = os.statvfs(disk).f_bfree
    assert "no space left" in orion("pull", "m", "--from", huge.address, "--store", disk / "s", status=FAILED).stderr
    assert os.statvfs(disk).f_bfree > 0.9 * before


def test_uploads_that_are_only_begun_keep_to_the_quota(tmp_path, serve):
    node = serve(tmp_path / "a", "--accept-uploads", "--store-bytes", "8MB")
    with peers.Client(node.address) as client:
        for number in range(8):
            manifest = peers.made("m", str(number), [("a", b"some text")], chunk_bytes=1 << 24)
            manifest.files[0].chunks.add(bytes=3_000_000, address=hashes.digest(bytes([number])))
            made = peers.artifact(manifest)
            begin = {"root": made.root, "bitmap": b"\0", "artifact": made.encoded, "artifact_bytes": len(made.encoded)}
            with contextlib.suppress(grpc.RpcError):
                next(client.call("Upload", iter([peers.sender(begin=begin)])))
    assert said("cache", "ls", "--store", tmp_path / "a")["used_bytes"] <= 8_000_000


def test_a_quota_is_kept(small, tmp_path, seed):
    error = refused("small", tmp_path / "a", seed.address, more=["--store-bytes", "1MB"])
    assert "--store-bytes" in error and "no room" in error
    assert (
        "--store-bytes" in orion("push", small, "--store", tmp_path / "a", "--store-bytes", "1MB", status=FAILED).stderr
    )
    assert listed(tmp_path / "a") == [] and said("cache", "ls", "--store", tmp_path / "a")["used_bytes"] == 0


def test_the_oldest_leaves_first(tmp_path, serve):
    room = ["--store-bytes", "7MB", "--store-policy", "lru"]
    for name in "abcd":
        file = tmp_path / f"{name}.bin"
        file.write_bytes(np.random.default_rng(ord(name)).bytes(2_000_000))
        push(file, f"{name}@1", tmp_path / "from")
    address = serve(tmp_path / "from").address
    for name in "abcd":
        pull(name, tmp_path / "to", address, more=room)
        if name == "c":
            pull("a", tmp_path / "to", address, more=room)
    assert "b@1" not in listed(tmp_path / "to") and {"a@1", "d@1"} <= set(listed(tmp_path / "to"))
    assert said("cache", "gc", "--store", tmp_path / "to", "--store-bytes", "3MB", "--store-policy", "lru")["removed"]
    assert listed(tmp_path / "to") == ["d@1"]


# Who may ask.


def test_a_token_is_asked_for(small, tmp_path, copy, serve):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("a-token-of-this-test\n")
    bad.write_text("another-of-this-test\n")
    good.chmod(0o600)
    bad.chmod(0o600)
    push(small, "small@1", tmp_path / "a")
    server = serve(tmp_path / "a", "--token-file", good, "--accept-uploads")
    assert "token is needed" in refused("small", tmp_path / "b", server.address)
    assert "token is wrong" in refused("small", tmp_path / "b", server.address, more=["--token-file", bad])
    assert "token" in orion("push", small, "--store", tmp_path / "c", "--to", server.address, status=FAILED).stderr
    with peers.Client(server.address) as client:
        for method, (kind, request, _) in peers.METHODS.items():
            with pytest.raises(grpc.RpcError) as error:
                answer = client.call(method, iter([]) if kind == "stream_stream" else peers.MESSAGES[request]())
                list(answer)
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
    pulled(pull("small", tmp_path / "b", server.address, more=["--token-file", good]), small)


@pytest.mark.parametrize(
    "command", [["cache", "serve", "0.0.0.0:0"], ["pull", "small", "--from", "127.0.0.1:1", "--peer", "10.0.0.1:0"]]
)
def test_other_machines_are_let_in_only_when_told(tmp_path, command):
    assert "--insecure" in orion(*command, "--store", tmp_path / "a", status=FAILED).stderr


def test_no_address_that_means_anywhere_is_told(tmp_path):
    command = ["pull", "small", "--from", "127.0.0.1:1", "--peer", "0.0.0.0:0", "--insecure"]
    assert "that others reach" in orion(*command, "--store", tmp_path / "a", status=FAILED).stderr
