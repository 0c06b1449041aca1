"""A scheduler dies and another leads: what its workers run for jobs goes on, and is not run again."""

import json
import signal
import subprocess
import sys

import pytest

import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402


def records(server, event=None):
    """The journal's records, once the scheduler has stopped."""
    file = server.folder / "scheduler" / "jobs.redb"
    done = subprocess.run(
        [str(serving.BINARY), "journal", "dump", str(file)], capture_output=True, text=True, check=True,
        env=serving.environment(),
    )
    all_of_them = [json.loads(line) for line in done.stdout.splitlines()]
    return [record for record in all_of_them if event in (None, record["event"])]


def running(jobs, job):
    return serving.until(lambda: jobs.get(job).state == "running", f"job {job} to run")


def held(server, count):
    """Until the worker has so many batches."""
    serving.until(lambda: server.figure("requests_running") == count, f"{count} requests on the worker")


def lost(server):
    return server.worker.text().count("scheduler_lost_will_keep_trying")


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_what_runs_goes_on_under_the_scheduler_that_is_started_next(start, tmp_path, how):
    server = start("two", {"slow": serving.simulated(tmp_path / "slow", 1.5, max_rows=2)})
    jobs = jobs_wire.Jobs(server.grpc)
    first = [jobs.submit([n], model="slow") for n in range(3)]
    for job in first:
        running(jobs, job)
    held(server, 1)
    # An order to stop waits for what runs as long as that may take: here the scheduler is cut off in the middle of it.
    if how == "stop":
        server.scheduler.child.send_signal(signal.SIGTERM)
        serving.until(lambda: "draining" in server.scheduler.text(), "the scheduler to drain")
    server.scheduler.kill()
    server.start_scheduler()
    jobs = jobs_wire.Jobs(server.grpc)
    ended = [jobs.watch(job)[-1] for job in first]
    assert [job.state for job in ended] == ["succeeded"] * 3
    assert [jobs.result(job) for job in first] == [[0], [1], [2]]
    assert server.figure("attempts_retried") == 0
    server.stop()
    server.processes.clear()
    # The first was on the device; the others waited for it, and were given out anew.
    assert [record["job"] for record in records(server, "begun")].count(first[0]) == 1
    assert {record["job"] for record in records(server, "released")} <= set(first[1:])
    assert [record["worker"] for record in records(server, "joined")][0] == "w1"


def test_a_result_that_the_scheduler_did_not_write_down_is_delivered_again(start, tmp_path):
    server = start("two", {"slow": serving.simulated(tmp_path / "slow", 0.3)})
    jobs = jobs_wire.Jobs(server.grpc)
    job = jobs.submit([7], model="slow")
    running(jobs, job)
    held(server, 1)
    # It is delivered to a scheduler that does not read it any more.
    server.scheduler.child.send_signal(signal.SIGSTOP)
    serving.until(lambda: lost(server), "the worker to see the loss")
    server.scheduler.kill()
    server.start_scheduler()
    jobs = jobs_wire.Jobs(server.grpc)
    ended = jobs.watch(job)[-1]
    assert (ended.state, ended.attempt, jobs.result(job)) == ("succeeded", 1, [7])
    server.stop()
    server.processes.clear()
    assert len(records(server, "begun")) == 1 and not records(server, "released")


def test_a_generation_goes_on_with_every_token(start):
    model = serving.MODELS / "stories15m"
    server = start("two", {"stories": model})
    jobs = jobs_wire.Jobs(server.grpc)

    def submit():
        spec = jobs.message("orion.v1.JobSpec")()
        spec.inference.model_name = "stories"
        given = spec.inference.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        text = b"Once upon a time"
        spec.inference.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
        assert given.name == "text_input"
        for name, value in (("max_tokens", 220), ("seed", 5)):
            spec.inference.parameters[name].int64_param = value
        spec.inference.parameters["temperature"].double_param = 0.8
        return jobs.call("Submit")(jobs.message("orion.v1.SubmitJobRequest")(spec=spec), timeout=30).id

    def text(job):
        return jobs.call("Result")(jobs.asked(job), timeout=30).inference.raw_output_contents[0][4:].decode()

    expected = submit()
    assert jobs.watch(expected)[-1].state == "succeeded"
    oracle = text(expected)
    assert len(oracle) > 300
    job = submit()
    running(jobs, job)
    # Some of it was told to the scheduler that dies, which is the only one that knew it.
    serving.until(lambda: server.figure("requests_running") == 1, "the generation to run")
    server.scheduler.kill()
    server.start_scheduler()
    jobs = jobs_wire.Jobs(server.grpc)
    ended = jobs.watch(job)[-1]
    assert ended.state == "succeeded" and text(job) == oracle
    assert server.figure("attempts_retried") == 0
    server.stop()
    server.processes.clear()
    assert {record["attempt"] for record in records(server, "begun")} == {1}


def test_a_worker_that_hears_of_no_scheduler_gives_up_what_it_has(start, tmp_path):
    server = start("two", {"slow": serving.simulated(tmp_path / "slow", 12.0)})
    jobs = jobs_wire.Jobs(server.grpc)
    job = jobs.submit([7], model="slow")
    running(jobs, job)
    held(server, 1)
    server.scheduler.kill()
    serving.until(lambda: "work_given_up" in server.worker.text(), "the worker to give up")
    server.start_scheduler()
    jobs = jobs_wire.Jobs(server.grpc)
    # Nobody has it: it is given out anew as soon as its worker is back.
    serving.until(lambda: jobs.get(job).attempt == 2, "a second attempt")
    assert jobs.get(job).state == "running" and not jobs.get(job).failed
    jobs.call("Cancel")(jobs.asked(job), timeout=30)
