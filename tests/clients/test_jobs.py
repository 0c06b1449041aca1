"""Jobs over gRPC, by what the server reflects: none that was acknowledged is lost, whoever is killed meanwhile."""

import json
import subprocess
import sys

import grpc
import pytest

import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402


def Jobs(server):  # noqa: N802
    return jobs_wire.Jobs(server.grpc)


@pytest.fixture
def jobs(server):
    return Jobs(server)


def test_a_job_is_run_and_its_result_kept(jobs):
    job = jobs.submit([1, 2, 3])
    seen = jobs.watch(job)
    assert seen[-1].state == "succeeded" and seen[-1].attempt == 1 and not seen[-1].failed
    assert [one.id for one in seen] == [job] * len(seen)
    assert jobs.result(job) == [1, 2, 3]
    assert jobs.get(job).spec.inference.model_name == "identity"


def test_a_key_names_one_job(jobs):
    first = jobs.submit([1], idempotency_key="letter 17")
    assert jobs.submit([2], idempotency_key="letter 17") == first
    jobs.watch(first)
    assert jobs.submit([3], idempotency_key="letter 17") == first
    assert jobs.result(first) == [1]


def test_a_stream_of_jobs_is_answered_in_order(jobs):
    wrong = jobs.spec([0], priority="urgent")
    asked = [jobs.spec([n], labels={"stream": "s"}) for n in range(200)] + [wrong]
    answers = list(jobs.call("SubmitStream", "stream_stream")(iter(asked), timeout=60))
    ids = [answer.id for answer in answers[:-1]]
    assert ids == sorted(ids) and len(set(ids)) == 200 and answers[-1].id == 0
    assert answers[-1].code == "INVALID_ARGUMENT" and "realtime, critical" in answers[-1].message
    for n in (0, 99, 199):
        jobs.watch(ids[n])
        assert jobs.result(ids[n]) == [n]
    listed, before = [], 0
    while True:
        page = jobs.list(labels={"stream": "s"}, before=before, limit=64)
        listed += [job.id for job in page.jobs]
        before = page.before
        if not before:
            break
    assert listed == ids[::-1]


@pytest.mark.parametrize(("fields", "code", "part"), [
    ({"priority": "urgent"}, "INVALID_ARGUMENT", "priority 'urgent' must be"),
    ({"after": [10**9]}, "INVALID_ARGUMENT", "there is not"),
    ({"labels": {"a=b": "c"}}, "INVALID_ARGUMENT", "label 'a=b=c'"),
    ({"idempotency_key": "k" * 257}, "INVALID_ARGUMENT", "257 bytes, it may have 256"),
    ({"model": ""}, "INVALID_ARGUMENT", "names no model"),
])
def test_what_is_wrong_is_said(jobs, fields, code, part):
    with pytest.raises(grpc.RpcError) as refused:
        jobs.submit(**{"values": [1], **fields})
    assert refused.value.code().name == code and part in refused.value.details()


def test_what_is_large_is_kept_beside_the_journal_for_as_long_as_its_job(start):
    server = start("two")
    jobs, contents = Jobs(server), server.folder / "scheduler" / "contents"
    large = [float(n) for n in range(1_100_000)]
    job = jobs.submit(large, keep_ms=1000)
    small = jobs.submit([1])
    # One without a key that is the same in all is kept once.
    again = jobs.submit(large)
    assert not jobs.get(again).spec.inference.raw_input_contents
    assert jobs.get(again, with_inputs=True).spec.inference.raw_input_contents[0] == jobs.spec(large).spec.inference.raw_input_contents[0]
    assert jobs.watch(small)[-1].state == "succeeded"
    server.scheduler.kill()
    jobs = started_anew(server)
    for one in (job, again):
        assert jobs.watch(one)[-1].state == "succeeded"
    assert jobs.result(again) == large
    assert len(list(contents.iterdir())) >= 2
    # The inputs are those of both, each result has its own name in it.
    serving.until(lambda: len(list(contents.iterdir())) == 2, "the first job to be forgotten", 60)
    assert jobs.result(again) == large
    page = jobs.list(limit=2).jobs
    assert [one.id for one in page] == [again, small] and not page[0].spec.inference.raw_input_contents


def test_jobs_that_fail_keep_why(jobs):
    wrong = jobs.submit([1], model="nobody-has-this")
    job = jobs.watch(wrong)[-1]
    assert (job.state, job.attempt, [failed.code for failed in job.failed]) == ("failed", 1, ["NOT_FOUND"])
    with pytest.raises(grpc.RpcError) as refused:
        jobs.result(wrong)
    assert refused.value.code().name == "FAILED_PRECONDITION" and "nobody-has-this" in refused.value.details()
    with pytest.raises(grpc.RpcError) as refused:
        jobs.submit([1], after=[wrong])
    assert refused.value.code().name == "FAILED_PRECONDITION"
    assert [one.id for one in jobs.list(state="failed").jobs][:1] == [wrong]
    with pytest.raises(grpc.RpcError) as refused:
        jobs.get(10**9)
    assert refused.value.code().name == "NOT_FOUND"


@pytest.fixture
def slow(start, tmp_path):
    return start("two", {"delay": serving.simulated(tmp_path / "delay", 0.05, max_rows=1)})


def test_what_waits_ends_with_what_it_waits_for(slow):
    jobs = Jobs(slow)
    many = [jobs.submit([1], model="delay") for _ in range(20)]
    first = jobs.submit([1], model="delay", priority="low")
    second = jobs.submit([1], after=[first])
    third = jobs.submit([1], after=[second])
    fine = jobs.submit([7], after=[many[0]])
    assert jobs.get(third).state == "waiting" and str(second) in jobs.get(third).reason
    jobs.call("Cancel")(jobs.asked(first), timeout=30)
    assert [jobs.watch(job)[-1].state for job in (first, second, third)] == ["cancelled", "failed", "failed"]
    assert jobs.watch(fine)[-1].state == "succeeded" and jobs.result(fine) == [7]
    with pytest.raises(grpc.RpcError) as refused:
        jobs.call("Retry")(jobs.asked(second), timeout=30)
    assert refused.value.code().name == "FAILED_PRECONDITION" and f"job {first}, which was cancelled" in refused.value.details()
    again = jobs.call("Retry")(jobs.asked(first), timeout=30)
    assert again.state in ("queued", "running")
    assert jobs.call("Retry")(jobs.asked(second), timeout=30).state == "waiting"
    assert [jobs.watch(job)[-1].state for job in (first, second)] == ["succeeded", "succeeded"]
    with pytest.raises(grpc.RpcError) as refused:
        jobs.call("Retry")(jobs.asked(first), timeout=30)
    assert refused.value.code().name == "FAILED_PRECONDITION" and "succeeded" in refused.value.details()
    assert first in [job.id for job in jobs.list(state="succeeded").jobs]
    assert all(jobs.watch(job)[-1].state == "succeeded" for job in many)


def test_a_deadline_ends_a_job(slow):
    jobs = Jobs(slow)
    late = [jobs.submit([1], model="delay", deadline_ms=300) for _ in range(20)]
    ends = [jobs.watch(job)[-1] for job in late]
    assert {job.state for job in ends} == {"succeeded", "failed"}
    assert all("DEADLINE_EXCEEDED" in job.reason for job in ends if job.state == "failed")


def test_a_model_that_does_not_answer_leaves_places_to_others(start, tmp_path):
    server = start("two", {"still": serving.simulated(tmp_path / "still", 1, max_rows=1)})
    jobs = Jobs(server)
    still = [jobs.submit([1], model="still", priority="high") for _ in range(600)]
    fine = jobs.submit([7])
    assert jobs.watch(fine)[-1].state == "succeeded"
    running = [job.id for job in jobs.list(state="running", limit=1000).jobs]
    assert len(running) == 256 and set(running) <= set(still)
    for job in still:
        jobs.call("Cancel")(jobs.asked(job), timeout=30)


def test_a_job_says_what_it_waits_for_and_what_happened(slow):
    slow.worker.kill()
    # Until its lease has ended it may be back.
    serving.until(lambda: not slow.ready("delay"), "the model to be gone", 30)
    jobs = Jobs(slow)
    waits = jobs.submit([7], model="delay")
    serving.until(lambda: "model 'delay' is not ready: " in jobs.get(waits).reason, "what it waits for")
    command = [str(serving.BINARY), "jobs", "logs", str(waits), "--follow", "--server", slow.grpc]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=serving.environment()) as follows:
        before = [follows.stdout.readline() for _ in range(3)]
        slow.start_worker()
        after, _ = follows.communicate(timeout=60)
    assert "submitted: inference of model 'delay'" in before[0] and "attempt 1: begins" in before[1]
    assert "is not ready" in before[2] and after.splitlines()[-1].endswith(" info  attempt 1: succeeded")
    assert jobs.get(waits).reason == ""


def started_anew(server):
    server.start_scheduler()
    server.until_ready()
    return Jobs(server)


@pytest.mark.parametrize("victim", ["scheduler", "scheduler, which drains", "worker"])
def test_no_job_is_lost_when_a_process_is_killed(slow, victim):
    jobs = Jobs(slow)
    ids = [jobs.submit([n], model="delay", labels={"n": str(n)}) for n in range(60)]
    serving.until(lambda: jobs.list(state="succeeded").jobs, "the first job")
    done = {job.id for job in jobs.list(state="succeeded").jobs}
    if victim != "worker":
        if victim == "scheduler":
            slow.scheduler.kill()
        else:
            slow.scheduler.stop()
            # One that ended well is not looked after any more.
            slow.processes.remove(slow.scheduler)
        jobs = started_anew(slow)
    else:
        slow.worker.kill()
        slow.start_worker()
    ends = {job: jobs.watch(job)[-1] for job in ids}
    assert {job.state for job in ends.values()} == {"succeeded"}
    # What had ended is not run again, and no more than ran is run twice.
    assert all(ends[job].attempt == 1 for job in done)
    assert not any(job.failed for job in ends.values()) or victim == "worker"
    assert all(job.attempt <= 2 for job in ends.values())
    assert [jobs.result(job) for job in ids] == [[n] for n in range(60)]


def test_two_schedulers_of_one_folder_do_not_share_its_journal(start, tmp_path):
    first = start("up")
    Jobs(first).submit([1])
    second = first.start([
        "up", *[part for name in serving.LISTENERS for part in (f"--{name}", "127.0.0.1:0")], "--data-dir",
        str(first.folder / "up"),
    ])
    addresses = serving.until(second.addresses, "the second scheduler")
    with grpc.insecure_channel(addresses["grpc"]) as channel:
        asked = Jobs(first)
        asked.channel = channel
        with pytest.raises(grpc.RpcError) as refused:
            asked.submit([1])
    assert refused.value.code().name == "FAILED_PRECONDITION" and "another process" in refused.value.details()


def test_the_command_line_submits_watches_and_says_how_it_ended(slow):
    def orion(*arguments):
        command = [str(serving.BINARY), "jobs", *arguments, "--server", slow.grpc]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=serving.environment(), check=False)
        return done.returncode, done.stdout, done.stderr

    given = ("--input", "INPUT0=FP32[1,2]:1,2")
    status, out, _ = orion("submit", "identity", *given, "--watch", "--label", "from=shell")
    assert status == 0 and "succeeded" in out
    status, out, _ = orion("ls", "--label", "from=shell")
    assert status == 0 and "from=shell" in out
    job = slow.orion("jobs", "submit", "identity", *given)["id"]
    assert slow.orion("jobs", "watch", str(job))["state"] == "succeeded"
    assert slow.orion("jobs", "result", str(job))["outputs"][0]["data"] == [1.0, 2.0]
    status, _, err = orion("submit", "nobody-has-this", *given, "--watch")
    assert status == 1 and "NOT_FOUND" in err
    assert orion("show", "999999")[0] == 1


def test_a_journal_is_checked_and_printed_while_nobody_runs(start):
    server = start("up")
    jobs = Jobs(server)
    fine, wrong = jobs.submit([1], labels={"a": "b"}), jobs.submit([1], model="nobody-has-this")
    jobs.watch(fine), jobs.watch(wrong)
    file = server.folder / "up" / "jobs.redb"

    def journal(*arguments):
        command = [str(serving.BINARY), "journal", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=serving.environment(), check=False)

    assert "another process" in journal("verify", str(file)).stderr
    server.scheduler.kill()
    found = json.loads(journal("verify", str(file), "-o", "json").stdout)
    assert (found["unfinished"], found["ended"]) == (0, {"succeeded": 1, "failed": 1})
    lines = [json.loads(line) for line in journal("dump", str(file)).stdout.splitlines()]
    assert [line["record"] for line in lines] == list(range(len(lines)))
    assert [line["event"] for line in lines if line.get("job") == fine] == ["submitted", "begun", "ended"]
    assert next(line["code"] for line in lines if line["event"] == "ended" and line["job"] == wrong) == "NOT_FOUND"
    damaged = server.folder / "damaged.redb"
    damaged.write_bytes(b"nothing of a journal" * 1000)
    for path in (damaged, server.folder / "missing.redb"):
        done = journal("verify", str(path))
        assert done.returncode == 1 and str(path) in done.stderr and "panicked" not in done.stderr


def test_killing_everything_again_and_again_loses_no_job(tmp_path):
    command = [sys.executable, "-B", str(serving.ROOT / "scripts/chaos"), "--orion", str(serving.BINARY)]
    done = subprocess.run(
        [*command, "--seconds", "120" if serving.LONG else "8", "--keep", str(tmp_path / "chaos")],
        capture_output=True, text=True, timeout=200, env=serving.environment(), check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    last = done.stdout.splitlines()[-1].split()
    told = {last[at]: int(last[at + 1]) for at in range(0, len(last), 2)}
    assert told["lost"] == told["duplicated"] == 0 and told["submitted"] == told["done"] > 100, told


def test_the_command_line_watches_over_a_restart_of_the_scheduler(slow):
    jobs = Jobs(slow)
    before = [jobs.submit([1], model="delay") for _ in range(20)]
    job = jobs.submit([1], model="delay", retry=jobs.message("orion.v1.RetryPolicy")(attempts=1))
    command = [str(serving.BINARY), "jobs", "watch", str(job), "--server", slow.grpc]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=serving.environment()) as watch:
        serving.until(lambda: jobs.get(before[9]).state == "succeeded", "ten jobs")
        slow.scheduler.kill()
        started_anew(slow)
        out, err = watch.communicate(timeout=60)
    assert watch.returncode == 0 and "succeeded" in out, out + err
