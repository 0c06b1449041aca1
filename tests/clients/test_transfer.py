"""What the codecs of transfers make of real weights. Ratios are of the bytes alone, so they are the same everywhere."""

import json
import subprocess

import pytest

import serving


def orion(*arguments):
    return subprocess.run(
        [serving.BINARY, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=serving.environment(),
        check=False,
    )


def bench(*arguments):
    done = orion("bench", "transfer", *arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    return {(one["file"], one["codec"]): one for one in json.loads(done.stdout)}


@pytest.mark.parametrize("dtype, least", [("f32", 1.215), ("bf16", 1.50), ("f16", 1.1775)])
def test_weights_are_smaller_than_any_usual_codec_makes_them(models, tmp_path, dtype, least):
    weights = models["minilm"] / "model.safetensors"
    if dtype != "f32":
        done = orion("models", "convert", weights, tmp_path / dtype, "--dtype", dtype)
        assert done.returncode == 0, done.stderr
        weights = tmp_path / dtype / "model.safetensors"
    said = bench(weights, "--codec", "none,lz4,zstd,weights")
    ratio = {codec: one["ratio"] for (_, codec), one in said.items()}
    assert ratio["none"] == 1 and ratio["weights"] >= least, ratio
    assert ratio["weights"] > 1.02 * max(ratio["lz4"], ratio["zstd"]), ratio
    assert all(one["encode_mb_s"] > 0 and one["decode_mb_s"] > 0 for one in said.values())
    assert all(one["raw_bytes"] == weights.stat().st_size for one in said.values())


def test_any_file_is_measured_with_every_codec(tmp_path):
    text, nothing = tmp_path / "text", tmp_path / "nothing"
    text.write_text("what is said twice is said twice; " * 4000)
    nothing.write_bytes(b"")
    said = bench(text, nothing, "--chunk-bytes", 5000)
    codecs = ["none", "gzip", "deflate", "brotli", "lz4", "zstd", "weights"]
    assert list(said) == [(str(path), codec) for path in (text, nothing) for codec in codecs]
    assert said[str(text), "none"]["chunks"] == 28
    assert all(said[str(text), codec]["ratio"] > 10 for codec in codecs[1:6])
    # Letters are no weights: coded one by one they still take less than a byte.
    assert said[str(text), "weights"]["ratio"] > 1.5


def test_mistakes_are_named(tmp_path):
    done = orion("bench", "transfer", tmp_path / "none")
    assert done.returncode == 1 and "none cannot be read" in done.stderr, done.stderr
    done = orion("bench", "transfer", tmp_path, "--codec", "snappy")
    assert done.returncode != 0 and "one of none, gzip, deflate, brotli, lz4, zstd, weights" in done.stderr, done.stderr
