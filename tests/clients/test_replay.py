"""A trace is replayed against real processes by the script that measures it: every arrival is answered or refused."""

import json
import random
import subprocess
import sys

import pytest

import serving


def trace(**other):
    """Six models of 40 MB on two devices of 100 MB: four of them are there at a time."""
    draw, at, arrivals = random.Random(3), 0.0, []
    while (at := at + draw.expovariate(0.1)) < 3000:
        arrivals.append([round(at, 3), draw.randrange(6)])
    return {
        "gpus": 2, "gpu_mb": 100.0, "copy_mb_per_ms": 2.0, "max_batch": 8, "slo_ms": 2000.0, "warm_ms": 500.0,
        "load": 0.2, "seed": 3, "lp_bound_requests": 300.0, "models": [{"alpha_ms": 1.0, "beta_ms": 2.0, "mb": 40.0}] * 6, "arrivals": arrivals, **other,
    }


def replay(folder, replayed, *arguments):
    path = folder / "trace.json"
    path.write_text(json.dumps(replayed))
    command = [sys.executable, "-B", str(serving.ROOT / "scripts/replay-trace"), str(path), "--orion", str(serving.BINARY)]
    return subprocess.run(
        [*command, *arguments, "-o", "json"], capture_output=True, text=True, timeout=180, env=serving.environment(), check=False
    )


def test_more_models_than_memory_holds(tmp_path):
    done = replay(tmp_path, trace(), "--slow", "1")
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["lost"] == 0 and told["left_under_way"] == 0, told
    assert told["counted"] == sum(at >= 500 for at, _ in trace()["arrivals"])
    # Devices that hold four of six models; each must have been copied once, and some came back.
    assert told["loads"] > 6 and not told["loads_failed"] and not told["stuck_loads"] and not told["complaints"], told
    assert told["answered"] + sum(one["count"] for one in told["refused"]) >= told["counted"]
    assert told["answered"] > 0


def test_a_file_that_is_no_trace(tmp_path):
    done = replay(tmp_path, {"arrivals": []})
    assert done.returncode == 1 and "is not a trace of workload a: it has no copy_mb_per_ms" in done.stderr


def test_a_part_of_a_trace(tmp_path):
    done = replay(tmp_path, trace(), "--slow", "1", "--limit-seconds", "0.4")
    assert done.returncode == 1 and "arrivals count after 0.5 s" in done.stderr
    told = json.loads(replay(tmp_path, trace(), "--slow", "1", "--limit-seconds", "1").stdout)
    assert told["counted"] == sum(500 <= at < 1000 for at, _ in trace()["arrivals"])
    assert told["of_bound"] is None and told["simulation"]["counted"] == told["counted"]


def bench_replay(server, folder, replayed, *arguments):
    path = folder / "trace.json"
    path.write_text(json.dumps(replayed))
    command = [str(serving.BINARY), "bench", "replay", str(path), "--server", server.grpc, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=serving.environment(), check=False
    )


@pytest.mark.parametrize("wrong, said", [
    ({"slo_ms": 0}, "slo_ms is 0, it must be more than 0"),
    ({"arrivals": [[600, 6]]}, "an arrival at 600 ms is of model 6, of 6"),
    ({"warm_ms": 4000}, "no arrival counts: none is after warm_ms, 4000"),
])
def test_a_trace_that_cannot_be(server, tmp_path, wrong, said):
    done = bench_replay(server, tmp_path, trace(**wrong))
    assert done.returncode == 1 and f"trace '{tmp_path}/trace.json': {said}" in done.stderr, done.stderr


def test_a_server_without_the_models(server, tmp_path):
    done = bench_replay(server, tmp_path, trace(arrivals=[[600, 0], [610, 1]]), "--prefix", "none")
    assert done.returncode == 1 and "no request was answered, most often NotFound" in done.stderr, done.stderr
    refusals = [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("refused")]
    assert refusals == [["refused", "2", "NotFound:"]], done.stdout
