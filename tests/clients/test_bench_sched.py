"""The scheduler's own benchmark: the reference's traces are read, and the comparison's tables and plots are made."""

import json
import subprocess
import sys
import xml.etree.ElementTree as xml

import pytest

import serving

SCRIPTS = serving.ROOT / "scripts"


def run(*command):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, env=serving.environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def dump(folder, part, load, *arguments):
    """A short trace of the reference simulator."""
    prefix = folder / "t"
    run(sys.executable, SCRIPTS / "sched_sim.py", part, "--quick", "--loads", load, "--dump", prefix, *arguments)
    (trace,) = folder.glob(f"t-{part}*.json")
    return trace


def sched(*arguments):
    return json.loads(run(serving.BINARY, "bench", "sched", *arguments, "-o", "json"))


def test_the_references_traces_are_replayed(tmp_path):
    trace = dump(tmp_path, "a", 0.2)
    said = sched("--workload", "a", "--trace", trace)
    counted = sum(at >= 2000 for at, _ in json.loads(trace.read_text())["arrivals"])
    assert (said["workload"], said["load"], said["seed"]) == ("a", 0.2, 1)
    assert 0.9 < said["attainment"] <= said["of_bound"] <= 1 and said["answered"] <= counted
    assert said["decisions"] > counted and 0 < said["decision_ns_p50"] <= said["decision_ns_p99"]
    assert sched("--workload", "a", "--trace", trace)["attainment"] == said["attainment"], "the same trace, the same answers"
    said = sched("--workload", "b", "--trace", dump(tmp_path, "b", 0.5, "--routers", 1, "--replicas", 10))
    assert said["workload"] == "b" and 1 <= said["p99_of_oracle"] < 2


@pytest.fixture
def bench(tmp_path):
    """Runs scripts/bench-sched into a folder of the test's own."""
    def run_one(*arguments):
        settings = ("--quick", "--out", tmp_path, "--plots", tmp_path / "plots", "--orion", serving.BINARY)
        return run(sys.executable, SCRIPTS / "bench-sched", *settings, *arguments), tmp_path / "plots"

    return run_one


def test_decisions_are_plotted_over_the_clusters_size(bench):
    said, plots = bench("--parts", "scale")
    rows = [line for line in said.splitlines() if line.startswith("| 1")]
    assert len(rows) == 2 and all("µs" in row for row in rows), said
    plot = xml.parse(plots / "decision.svg").getroot()
    texts = [text.text for text in plot.iter("{http://www.w3.org/2000/svg}text")]
    assert {"workers", "µs", "p50", "p99", "10", "300"} <= set(texts), texts
    lines = list(plot.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 2 and all(len(line.get("points").split()) == 4 for line in lines)
    heights = [float(point.split(",")[1]) for point in lines[1].get("points").split()]
    assert all(0 < height < 420 for height in heights)
