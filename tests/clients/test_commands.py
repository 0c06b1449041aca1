"""The client commands against a real server, and what scripts read of them."""

import json
import subprocess

import numpy as np
import pytest

import serving
from serving import EXPECTED


def run(*arguments):
    command = [str(serving.BINARY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=serving.environment(), check=False)


def test_infer_prints_the_embeddings(server):
    texts = [argument for text in EXPECTED["text"] for argument in ("--text", text)]
    said = server.orion("infer", "minilm", *texts)
    rows = [value for _, value in serving.walk([said]) if isinstance(value, list) and len(value) in (384, 6 * 384)]
    assert np.abs(np.array(rows, np.float32).reshape(6, 384) - np.array(EXPECTED["embedding"])).max() < 1e-4


def test_tables_and_json_name_the_same(server):
    assert "minilm" in str(server.orion("models")) and "embedding" in str(server.orion("models", "show", "minilm"))
    name = "w1" if "w1" in server.nodes() else "local"
    for command in (["nodes"], ["nodes", "show", name], ["status"], ["models"]):
        table = run(*command, "--server", server.grpc)
        assert table.returncode == 0 and table.stdout.strip(), table.stderr
        assert "\x1b" not in table.stdout, "colours only belong on a terminal"


def test_bench_measures(server):
    for model, shape in (("identity", ["--shape", "1,16"]), ("minilm", ["--text", "a few words"])):
        said = server.orion("bench", model, "--concurrency", "1,4", "--seconds", "0.5", "--warmup", "0.1", *shape)
        rows = [value for _, value in serving.walk([said]) if isinstance(value, dict) and "concurrency" in value]
        assert [row["concurrency"] for row in rows] == [1, 4]
        for row in rows:
            assert row["rate"] > 0 and 0 < row["p50_us"] <= row["p95_us"] <= row["p99_us"] <= row["max_us"]
            assert not row["errors"]


def test_exit_statuses(server):
    refused = run("infer", "nothing", "--text", "a", "--server", server.grpc)
    assert refused.returncode == 1 and "nothing" in refused.stderr and not refused.stdout
    absent = run("status", "--server", "127.0.0.1:1")
    assert absent.returncode in (1, 2) and "orion up" in absent.stderr


@pytest.mark.parametrize("command", "up scheduler worker infer models nodes status explain bench doctor completion".split())
def test_help_ends_with_examples(command):
    said = run(command, "--help")
    assert said.returncode == 0 and f"orion {command}" in said.stdout.partition("Examples:")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    said = run("completion", shell)
    assert said.returncode == 0 and "bench" in said.stdout


def test_doctor_speaks_json(tmp_path):
    said = run("doctor", "--data-dir", str(tmp_path), "-o", "json")
    assert isinstance(json.loads(said.stdout), list | dict)
