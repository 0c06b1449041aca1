"""A trace is replayed against real processes by the script that measures it: every arrival is answered or refused."""

import collections
import json
import random
import subprocess
import sys
import types

import pytest

import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))

import replay_report  # noqa: E402


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


def told(latencies, late):
    """Of arrivals at 0, 0.25, … s of a trace that is slowed twice, whose first two do not count."""
    shown = trace(arrivals=[[250.0 * n, 0] for n in range(len(latencies))], slo_ms=100.0, lp_bound_requests=4.0)
    refused = collections.Counter({("UNAVAILABLE", "why"): 1})
    client = types.SimpleNamespace(latency=latencies, late=late, refused=refused, lost=0)
    return replay_report.figures(shown, 2.0, client, True)


def test_figures():
    report = told([9.0, 9.0, 0.1, 0.2, 0.21, None], [0.0, 0.0, 0.0, 0.0, 0.03, 0.0])
    assert (report["counted"], report["answered"], report["attainment"], report["of_bound"]) == (4, 3, 0.5, 0.5)
    # What the sender was late by would have saved one; in the other three half seconds it was on time.
    assert report["attainment_from_sending"] == 0.75
    assert report["undisturbed"] == {"counted": 3, "attainment": pytest.approx(2 / 3)}
    assert (report["p50_ms"], report["p99_ms"]) == (100.0, 105.0)


def test_a_part_of_a_trace_has_no_bound():
    part = replay_report.cut(trace(), 1)
    assert part["arrivals"][-1][0] < 1000 and part["lp_bound_requests"] == 1.0
    with pytest.raises(SystemExit, match="arrivals count after 0.5 s"):
        replay_report.cut(trace(), 0.4)
