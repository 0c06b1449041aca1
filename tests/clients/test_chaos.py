"""Workers are killed under load by the script that measures it: no request is lost, none is answered twice."""

import json
import subprocess
import sys
import types

import pytest

import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))

import chaos_report  # noqa: E402
from chaos_faults import Fault  # noqa: E402
from chaos_load import Sent  # noqa: E402


def chaos(*arguments):
    """The script's status, and what it told."""
    command = [sys.executable, "-B", str(serving.ROOT / "scripts/chaos-requests"), "--orion", str(serving.BINARY)]
    done = subprocess.run(
        [*command, *arguments, "-o", "json"], capture_output=True, text=True, timeout=180, env=serving.environment(), check=False
    )
    assert done.stdout, f"chaos-requests ended with {done.returncode}: {done.stderr[-4000:]}"
    return done.returncode, json.loads(done.stdout)


def test_killing_workers_loses_no_request():
    status, told = chaos("--seconds", "60" if serving.LONG else "8", "--every", "1.5", "--rate", "100")
    assert told["sent"] > 300 and len(told["faults"]) >= 2, told
    wrong = {key: told[key] for key in ("lost", "duplicated", "false_deaths", "faults")}
    assert status == 0 and not (wrong["lost"] or wrong["duplicated"] or wrong["false_deaths"]), str(wrong)
    assert told["totals"]["requests_queued"] == told["totals"]["requests_running"] == 0, told
    assert not told["complaints"], told["complaints"]
    # Another worker holds what was killed, or loads it well within a request's second.
    refused = [one for one in told["refused"] if one["idempotent"] and one["code"] == "UNAVAILABLE"]
    assert not refused, refused
    assert told["unnoticed"] == 0, told["faults"]


@pytest.fixture
def run():
    """A hundred requests in ten seconds, all answered in a hundredth, and a worker killed at the fifth second."""
    requests = [
        Sent(n, "m", n / 10, True, False, sent=n / 10, settled=n / 10 + 0.01, code="OK", times_settled=1) for n in range(100)
    ]
    return types.SimpleNamespace(requests=requests, faults=[Fault("kill", "w1", 5.0, 7.0, 7.5)], suspects=[suspect("w1", 5.1)])


def suspect(worker, at):
    return {"worker": worker, "at": at, "reason": "silent"}


def told(run):
    return chaos_report.report(run.requests, 1.0, run.faults, run.suspects, {})


def test_a_run_without_loss_is_told_as_such(run):
    report = told(run)
    assert (report["lost"], report["duplicated"], report["false_deaths"], report["attainment"]) == ([], [], [], 1.0)
    assert report["suspected_after_seconds"]["kill"]["max"] == pytest.approx(0.1)
    assert all(met for _, met in chaos_report.goals(report))


def test_what_goes_wrong_is_counted(run):
    for one in run.requests[50:53]:
        one.code, one.times_settled = "", 0
    run.requests[60].times_settled, run.requests[61].mixed_up = 2, True
    run.suspects += [suspect("w1", 8.4), suspect("w1", 8.6), suspect("w2", 5.2)]
    report = told(run)
    assert report["lost"] == [50, 51, 52] and report["duplicated"] == [60, 61]
    assert [(one["worker"], one["at"]) for one in report["false_deaths"]] == [("w1", 8.6), ("w2", 5.2)]
    assert report["faults"][0]["back_to_normal"] == 0.3


def test_a_p99_is_told_with_how_many_it_is_of(run):
    run.faults = [Fault("kill", "w1", 3.0 * at, 3.0 * at + 1, 3.0 * at + 1.5) for at in range(1, 151)]
    run.suspects = [suspect("w1", fault.begun + (0.3 if at < 2 else 0.005)) for at, fault in enumerate(run.faults)]
    goals = dict(chaos_report.goals(told(run)))
    # Of 150 the second longest counts.
    assert goals["kill to suspect within 0.2 s at p99 of 150"] is False
    run.suspects[1]["at"] = run.faults[1].begun + 0.005
    assert dict(chaos_report.goals(told(run)))["kill to suspect within 0.2 s at p99 of 150"] is True


def test_goals_that_are_missed_are_told(run):
    for one in run.requests[50:80]:
        one.settled += 1
    run.suspects = [suspect("w1", 5.25)]
    missed = [goal for goal, met in chaos_report.goals(told(run)) if not met]
    few = "too few for more than their longest"
    assert missed == [f"kill to suspect within 0.2 s at p99 of 1, {few}", "back to normal within 2.0 s after each of 1"]
    run.suspects = []
    assert told(run)["unnoticed"] == 1
