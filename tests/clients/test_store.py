"""Models are pushed, pulled, cut off, damaged and mended."""

import json
import os
import pathlib
import subprocess

import gguf
import numpy as np
import pytest

import peers
import serving
from stores import END_SECONDS, FAILED, contents, flip, folder_of, half_pulled, listed, orion, pull, pulled, push, refused, said, weights


# What is published is what is fetched.


def test_a_real_model_is_pushed_pulled_and_pulled_again(models, tmp_path, serve):
    first = push(models["minilm"], "minilm@1", tmp_path / "a")
    server = serve(tmp_path / "a")
    done = pulled(pull("minilm", tmp_path / "b", server.address), models["minilm"])
    assert done["root"] == first["root"] and done["found_bytes"] == 0
    assert 0 < done["received_bytes"] <= first["bytes"]
    ls = said("cache", "ls", "--store", tmp_path / "b")["artifacts"]
    assert [(one["name"], one["version"], one["root"]) for one in ls] == [("minilm", "1", first["root"])]
    assert said("cache", "verify", "--store", tmp_path / "b") == [{"name": "minilm", "version": "1", "damaged": []}]
    again = pulled(pull("minilm@1", tmp_path / "b", server.address), models["minilm"])
    assert again["received_bytes"] == 0 and again["found_bytes"] == again["bytes"]


def test_the_same_content_has_the_same_root(small, tmp_path):
    first = push(small, "small@1", tmp_path / "a")
    assert push(small, "small@1", tmp_path / "b")["root"] == first["root"]
    assert (
        said("push", small, "--store", tmp_path / "c")["root"] == said("push", small, "--store", tmp_path / "d")["root"]
    )


@pytest.mark.parametrize("name", [["--as", "small@1"], []])
def test_pushed_twice_into_one_store_it_is_there_once(small, tmp_path, name):
    roots = {said("push", small, "--store", tmp_path / "a", *name)["root"] for _ in range(2)}
    assert len(listed(tmp_path / "a")) == 1 and len(roots) == 1


def test_a_version_is_not_replaced(small, tmp_path):
    push(small / "config.json", "m@1", tmp_path / "a")
    other = orion("push", small / "more", "--as", "m@1", "--store", tmp_path / "a", status=FAILED)
    assert "orion cache rm m@1" in other.stderr
    orion("cache", "rm", "m@1", "--store", tmp_path / "a")
    push(small / "more", "m@1", tmp_path / "a")
    assert listed(tmp_path / "a") == ["m@1"]


def test_a_version_is_fetched_as_its_difference(small, tmp_path, seed, serve):
    values = weights(7)
    values[::7] += np.float32(1e-6)
    second = folder_of(tmp_path / "second", values)
    push(small, "small@1", tmp_path / "a")
    published = push(second, "small@2", tmp_path / "a", "--base", "small@1")
    server = serve(tmp_path / "a")
    pull("small@1", tmp_path / "b", server.address)
    done = pulled(pull("small", tmp_path / "b", server.address), second)
    assert done["version"] == "2" and done["received_bytes"] < published["encoded_bytes"] / 2
    # Who has no base gets it whole.
    pulled(pull("small@2", tmp_path / "c", server.address), second)
    assert pulled(pull("small@1", tmp_path / "b", server.address), small)["received_bytes"] == 0


def test_what_a_version_shares_counts_for_nothing(small, tmp_path, serve):
    push(small, "small@1", tmp_path / "a")
    assert push(small, "small@2", tmp_path / "a", "--base", "small@1")["difference_bytes"] == 0


def test_a_model_of_the_same_files_takes_nothing_over_the_link(small, tmp_path, seed, serve):
    pull("small", tmp_path / "b", seed.address)
    push(small, "twin@9", tmp_path / "a")
    done = pulled(pull("twin", tmp_path / "b", serve(tmp_path / "a").address), small)
    assert done["received_bytes"] == 0
    orion("cache", "rm", "small@1", "--store", tmp_path / "b")
    assert pulled(done, small) and said("cache", "verify", "--store", tmp_path / "b")


def test_push_hands_over_and_is_refused_where_uploads_are(small, tmp_path, serve):
    taking, closed = serve(tmp_path / "b", "--accept-uploads"), serve(tmp_path / "c")
    push(small, "small@1", tmp_path / "a", "--to", taking.address)
    assert (
        listed(tmp_path / "b") == ["small@1"] and not said("cache", "verify", "--store", tmp_path / "b")[0]["damaged"]
    )
    error = orion(
        "push", small, "--as", "small@1", "--store", tmp_path / "d", "--to", closed.address, status=FAILED
    ).stderr
    assert closed.address in error and "takes no uploads" in error


def test_an_upload_does_not_take_the_place_of_another_model(small, tmp_path, serve):
    first = push(small / "more", "m@1", tmp_path / "b")
    server = serve(tmp_path / "b", "--accept-uploads")
    orion(
        "push", small / "config.json", "--as", "m@1", "--store", tmp_path / "a", "--to", server.address, status=FAILED
    )
    assert pull("m@1", tmp_path / "c", server.address)["root"] == first["root"]


# Another implementation of the protocol.


def test_a_stranger_reads_what_was_published(small, seed, copy):
    with peers.Client(seed.address) as client:
        (entry,) = client.list()
        assert (entry.name, entry.version, entry.whole, entry.root) == ("small", "1", True, copy.artifact.root)
        assert client.find(root=copy.artifact.root).encoded == copy.artifact.encoded
    files = {file.path: b"" for file in copy.artifact.manifest.files}
    numbers = {chunk.address: number for number, chunk in enumerate(copy.artifact.chunks)}
    for file in copy.artifact.manifest.files:
        files[file.path] = b"".join(copy.chunks[peers.RAW][numbers[chunk.address]] for chunk in file.chunks)
    assert files == contents(small)
    assert any(chunk.HasField("encoded") for chunk in copy.artifact.chunks)
    (tensor,) = next(file.tensors for file in copy.artifact.manifest.files if file.tensors)
    assert tensor.name == "w" and tensor.bytes == 4 * tensor.shape[0]


def test_a_strangers_server_is_pulled_from(small, tmp_path, copy, other):
    server = other()
    done = pulled(pull("small", tmp_path / "a", server.address), small)
    assert done["received_bytes"] == server.sent and server.wants == len(copy.artifact.chunks)


def test_two_that_have_half_each_make_a_whole(small, tmp_path, copy, other):
    half = len(copy.artifact.chunks) // 2
    one, two = other(copy, has=range(half)), other(copy, has=range(half, len(copy.artifact.chunks)))
    pulled(pull("small", tmp_path / "a", one.address, two.address), small)
    assert one.wants == half and two.wants == len(copy.artifact.chunks) - half


# What is cut off.



def test_a_pull_that_was_killed_goes_on_where_it_was(small, tmp_path, copy, other):
    with half_pulled(tmp_path / "a", copy, other, 30) as (server, _):
        pass
    rest = other()
    pulled(pull("small", tmp_path / "a", rest.address), small)
    # In whichever form each came: over a fast link some come as they are.
    whole = sum(len(data) for data in copy.chunks[peers.RAW].values())
    assert server.sent + rest.sent <= 1.01 * whole
    assert rest.wants == len(copy.artifact.chunks) - 30


def test_what_a_killed_pull_left_damaged_is_fetched_anew(small, tmp_path, copy, other):
    with half_pulled(tmp_path / "a", copy, other, 30):
        pass
    (bitmap,) = tmp_path.glob("a/incoming/*/bitmap")
    paths = [file.path for file in copy.artifact.manifest.files]
    chunk = next(
        n
        for n, (path, _) in enumerate(copy.artifact.places)
        if path.endswith("safetensors") and bitmap.read_bytes()[n // 8] >> n % 8 & 1
    )
    path, start = copy.artifact.places[chunk]
    flip(bitmap.parent / "files" / str(paths.index(path)), start + 5)
    rest = other()
    pulled(pull("small", tmp_path / "a", rest.address), small)
    assert rest.wants == len(copy.artifact.chunks) - 29


def test_a_pull_serves_what_it_has_already(small, tmp_path, copy, other):
    with half_pulled(tmp_path / "a", copy, other, 30, "--peer", "127.0.0.1:0") as (server, _):
        address = server.begins[0].address
        (bitmap,) = tmp_path.glob("a/incoming/*/bitmap")
        have = {n for n in range(len(copy.artifact.chunks)) if bitmap.read_bytes()[n // 8] >> n % 8 & 1}
        with peers.Client(address) as client:
            assert not client.list()[0].whole
            assert client.find("small").root == copy.artifact.root
            got = client.download(copy.artifact, wanted=have)
        assert got == {n: copy.chunks[peers.RAW][n] for n in have}


def test_two_pulls_at_once_fetch_one_copy(small, tmp_path, copy, other):
    server = other()
    command = [
        str(serving.BINARY),
        "pull",
        "small",
        "--from",
        server.address,
        "--store",
        str(tmp_path / "a"),
        "-o",
        "json",
    ]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=serving.environment())
        for _ in range(2)
    ]
    for one in both:
        out, error = one.communicate(timeout=END_SECONDS)
        assert one.returncode == 0, error
        pulled(json.loads(out), small)
    # Less than two of the shorter form, whichever form each came in.
    assert server.sent <= 1.01 * sum(len(data) for data in copy.chunks[peers.RAW].values())


# Damage.


@pytest.mark.parametrize("what", ["file", "pack", "both"])
def test_a_flipped_bit_is_never_admitted(small, tmp_path, seed, copy, serve, what):
    push(small, "small@1", tmp_path / "a")
    chunk = next(n for n, one in enumerate(copy.artifact.chunks) if one.bytes > 100_000 and one.HasField("encoded"))
    path, start = copy.artifact.places[chunk]
    if what in ("file", "both"):
        flip(tmp_path / f"a/models/{copy.artifact.root.hex()}" / path, start + 1000)
    if what in ("pack", "both"):
        flip(tmp_path / f"a/packs/{copy.artifact.root.hex()}.encoded", copy.artifact.in_pack(chunk) + 1000)
    server = serve(tmp_path / "a")
    if what == "both":
        error = refused("small", tmp_path / "b", server.address)
        assert "1 chunk" in error, error
    pulled(pull("small", tmp_path / "b", server.address, seed.address), small)
    assert not said("cache", "verify", "--store", tmp_path / "b")[0]["damaged"]
    if what == "pack":
        return
    assert said("cache", "verify", "--store", tmp_path / "a", status=FAILED)[0]["damaged"] == [
        {"path": path, "damaged_chunks": 1}
    ]
    table = orion("cache", "verify", "--store", tmp_path / "a", status=FAILED)
    assert path in table.stdout and "small@1" in table.stderr
    mended = pulled(pull("small", tmp_path / "a", seed.address), small)
    assert 0 < mended["received_bytes"] <= copy.artifact.chunks[chunk].bytes
    assert not said("cache", "verify", "--store", tmp_path / "a")[0]["damaged"]


@pytest.mark.parametrize("harm", ["removed", "cut", "empty pack", "no pack"])
def test_a_harmed_store_is_named_and_mended(small, tmp_path, seed, copy, harm):
    done = pull("small", tmp_path / "a", seed.address)
    file, pack = pathlib.Path(done["folder"]) / "model.safetensors", tmp_path / f"a/packs/{done['root']}.encoded"
    if harm == "removed":
        file.unlink()
    elif harm == "cut":
        os.truncate(file, 1000)
    elif harm == "empty pack":
        os.truncate(pack, 0)
    else:
        pack.unlink()
    if "pack" not in harm:
        (one,) = said("cache", "verify", "--store", tmp_path / "a", status=FAILED)
        assert [damage["path"] for damage in one["damaged"]] == ["model.safetensors"]
    pulled(pull("small", tmp_path / "a", seed.address), small)
    assert not said("cache", "verify", "--store", tmp_path / "a")[0]["damaged"]


@pytest.mark.parametrize("codec", ["none", "gzip", "deflate", "brotli", "lz4", "zstd", "weights"])
def test_a_publisher_may_choose_the_codec(small, tmp_path, serve, codec):
    few = folder_of(tmp_path / "few", weights(7, rows=300_000))
    pushed = push(few, "few@1", tmp_path / "from", "--codec", codec)
    server = serve(tmp_path / "from")
    pulled(pull("few", tmp_path / "to", server.address), few)
    with peers.Client(server.address) as client:
        chunks = client.find("few").chunks
    used = {chunk.encoded.codec for chunk in chunks if chunk.HasField("encoded")}
    numbers = {"none": 0, "gzip": 1, "deflate": 2, "brotli": 3, "lz4": 4, "zstd": 5, "weights": 6}
    assert used == ({numbers[codec]} if codec != "none" else set())
    assert (pushed["encoded_bytes"] < pushed["bytes"]) == bool(used)


def test_a_codec_that_there_is_not_is_named(small, tmp_path):
    error = orion("push", small, "--store", tmp_path / "store", "--codec", "zip", status=(1,)).stderr
    assert "'zip'" in error and "none, gzip, deflate, brotli, lz4, zstd, weights" in error


def test_a_gguf_file_is_cut_by_its_tensors(tmp_path, serve):
    path = next((serving.MODELS / "smollm2").glob("*.gguf"))
    reader = gguf.GGUFReader(path)
    push(path.parent, "smollm2@1", tmp_path / "store")
    with peers.Client(serve(tmp_path / "store").address) as client:
        [file] = client.find("smollm2").manifest.files
    named = {tensor.name: tensor for tensor in file.tensors}
    assert {tensor.name for tensor in reader.tensors} == set(named)
    borders, at = {0}, 0
    for chunk in file.chunks:
        at += chunk.bytes
        borders.add(at)
    for tensor in reader.tensors:
        told = named[tensor.name]
        assert (told.start, list(told.shape)) == (tensor.data_offset, list(tensor.shape))
        assert told.bytes >= tensor.n_bytes and {told.start, told.start + told.bytes} <= borders
