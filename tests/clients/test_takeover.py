"""Several schedulers of one journal in PostgreSQL: one leads, another takes over when it is gone, and no job is lost."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid

import grpc
import openai
import pytest

import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402

POSTGRES = os.environ.get("ORION_TEST_POSTGRES")
pytestmark = pytest.mark.skipif(not POSTGRES, reason="needs PostgreSQL: scripts/with-postgres runs a command beside one")


def sql(statement, database="postgres"):
    command = ["psql", "-q", "-v", "ON_ERROR_STOP=1", POSTGRES.rsplit("/", 1)[0] + "/" + database, "-Atc", statement]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Scheduler:
    """One of several; it keeps its addresses over its lives."""

    def __init__(self, name, folder, journal, model):
        self.name, self.folder, self.journal, self.model = name, folder, journal, model
        self.at, self.lives = dict.fromkeys(serving.LISTENERS, "127.0.0.1:0"), 0
        self.start()

    def start(self):
        self.lives += 1
        listeners = [part for listener in serving.LISTENERS for part in (f"--{listener}", self.at[listener])]
        command = ["scheduler", *listeners, "--model", f"delay={self.model}", "--journal", self.journal]
        log = self.folder / f"{self.name}-{self.lives}.log"
        arguments = [*command, "--data-dir", str(self.folder / self.name), "--log-format", "json"]
        self.process = serving.Process(arguments, log)
        self.at = serving.until(self.process.addresses, f"scheduler {self.name}")
        self.jobs = jobs_wire.Jobs(self.at["grpc"])

    def said(self, event):
        lines = [line for line in self.process.text().splitlines() if line.startswith("{")]
        return any(value == event for line in lines for _, value in serving.walk(json.loads(line)))


@pytest.fixture
def database():
    """An empty database."""
    name = f"orion_{uuid.uuid4().hex}"
    sql(f"CREATE DATABASE {name}")
    return name


def knows(journal, worker):
    """Whether whoever leads next would wait for it: it is written down a moment after it has joined."""
    command = [str(serving.BINARY), "journal", "dump", journal]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=serving.environment())
    records = map(json.loads, done.stdout.splitlines())
    return any((record["event"], record.get("worker")) == ("joined", worker) for record in records)


@pytest.fixture
def cluster(request, tmp_path, database):
    """Two schedulers, of which the first leads, and a worker that joins whichever does; a batch takes 0.05 s, or the parameter."""
    journal = POSTGRES.rsplit("/", 1)[0] + "/" + database
    model = serving.simulated(tmp_path / "delay", getattr(request, "param", 0.05), max_rows=1)
    first = Scheduler("first", tmp_path, journal, model)
    serving.until(lambda: first.said("leads"), "the first to lead")
    second = Scheduler("second", tmp_path, journal, model)
    serving.until(lambda: second.said("follows"), "the second to follow")
    # It tries the one that does not lead before the other.
    join = f"{second.at['session']},{first.at['session']}"
    worker = serving.Process(["worker", "--join", join, "--name", "w1", "--data-dir", str(tmp_path / "w1")], tmp_path / "w1.log")
    try:
        serving.until(lambda: knows(journal, "w1"), "the journal to know of the worker")
        yield first, second, database
    finally:
        for process in (worker, first.process, second.process):
            if process.child.poll() is None:
                process.child.send_signal(signal.SIGCONT)
                process.stop()


def accepted(scheduler, **fields):
    """Submits as soon as it is taken; the job and how long that took."""
    began = time.monotonic()

    def submit():
        try:
            return scheduler.jobs.submit([1], model="delay", **fields)
        except grpc.RpcError as error:
            assert error.code().name in ("UNAVAILABLE", "FAILED_PRECONDITION"), error
            return None

    # No job has the number 0: the first record says who leads.
    return serving.until(submit, "a submission"), time.monotonic() - began


def ended(scheduler, job):
    """Watches until the job has ended, over whoever leads."""
    def end():
        try:
            last = scheduler.jobs.watch(job)[-1]
            return last if last.state in ("succeeded", "failed", "cancelled") else None
        except grpc.RpcError as error:
            assert error.code().name in ("UNAVAILABLE", "FAILED_PRECONDITION"), error
            return None

    return serving.until(end, f"the end of job {job}")


def verified(journal):
    done = subprocess.run(
        [str(serving.BINARY), "journal", "verify", journal, "-o", "json"], capture_output=True, text=True, check=True,
        env=serving.environment(),
    )
    return json.loads(done.stdout)


def test_the_one_that_stands_by_passes_on_and_takes_over(cluster):
    first, second, _ = cluster
    ids = [(first, second)[n % 2].jobs.submit([n], model="delay", labels={"n": str(n)}) for n in range(60)]
    assert ended(second, ids[0]).state == "succeeded" and second.jobs.result(ids[0]) == [0]
    assert {job.id for job in second.jobs.list(labels={"n": "7"}).jobs} == {ids[7]}
    unwanted = second.jobs.submit([1], model="delay", priority="low")
    assert second.jobs.call("Cancel")(second.jobs.asked(unwanted), timeout=30).state == "cancelled"
    keyed = second.jobs.submit([1], model="delay", idempotency_key="one")
    first.process.kill()
    job, seconds = accepted(second)
    print(f"accepted {seconds:.2f} s after the leader's death")
    assert second.jobs.submit([1], model="delay", idempotency_key="one") == keyed
    assert {ended(second, job).state for job in [*ids, job, keyed]} == {"succeeded"}
    assert [second.jobs.result(job) for job in ids] == [[n] for n in range(60)]
    assert second.jobs.get(unwanted).state == "cancelled"
    # The one that died comes back and stands by; what it is asked is passed on.
    first.start()
    serving.until(lambda: first.said("follows"), "the first to follow")
    assert ended(first, first.jobs.submit([1], model="delay")).state == "succeeded"
    # One that leaves in order makes room at once.
    second.process.stop()
    again, seconds = accepted(first)
    print(f"accepted {seconds:.2f} s after the leader left")
    assert ended(first, again).state == "succeeded"
    found = verified(first.journal)
    assert (found["unfinished"], found["ended"]) == (0, {"succeeded": 64, "cancelled": 1})


def on_workers(scheduler):
    """How many requests workers have."""
    done = subprocess.run(
        [str(serving.BINARY), "status", "--server", scheduler.at["grpc"], "-o", "json"], capture_output=True, text=True,
        check=True, env=serving.environment(),
    )
    return json.loads(done.stdout)["requests_running"]


@pytest.mark.parametrize("cluster", [4.0], indirect=True)
def test_what_runs_goes_on_under_the_one_that_takes_over(cluster, tmp_path):
    first, second, _ = cluster
    job = first.jobs.submit([7], model="delay")
    serving.until(lambda: on_workers(first) == 1, "the worker to have it")
    waits = first.jobs.submit([8], model="delay")
    first.process.kill()
    done = ended(second, job)
    # A machine that stands still for longer than the work's lease lets its worker give it up.
    given_up = "work_given_up" in (tmp_path / "w1.log").read_text()
    command = [str(serving.BINARY), "jobs", "logs", "--server", second.at["grpc"], str(job)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=serving.environment())
    assert (done.state, second.jobs.result(job)) == ("succeeded", [7])
    assert done.attempt == 1 or given_up, said.stdout + (tmp_path / "w1.log").read_text()
    assert ended(second, waits).state == "succeeded"


def test_a_leader_that_was_paused_is_fenced(cluster):
    first, second, database = cluster
    ids = [first.jobs.submit([n], model="delay") for n in range(40)]
    ended(first, ids[0])
    first.process.child.send_signal(signal.SIGSTOP)
    serving.until(lambda: second.said("leads"), "the second to lead")
    between = second.jobs.submit([1], model="delay")
    holder = sql("SELECT encode(holder, 'hex') FROM orion_journal", database)
    first.process.child.send_signal(signal.SIGCONT)
    # Whatever the first still wanted to write is not written, and it says who leads.
    serving.until(lambda: first.said("follows"), "the first to follow")
    assert sql("SELECT encode(holder, 'hex') FROM orion_journal", database) == holder
    after = first.jobs.submit([1], model="delay")
    assert {ended(first, job).state for job in [*ids, between, after]} == {"succeeded"}
    assert verified(second.journal)["ended"] == {"succeeded": 42}


def test_schedulers_killed_again_and_again_lose_no_job(cluster):
    first, second, _ = cluster
    taken = []
    for round in range(12 if serving.LONG else 4):
        leader, other = (first, second) if round % 2 == 0 else (second, first)
        taken += [accepted(other, labels={"round": str(round)})[0] for _ in range(15)]
        leader.process.kill()
        taken += [accepted(other)[0] for _ in range(5)]
        leader.start()
        serving.until(lambda: leader.said("follows"), "the one that was killed to follow")
    assert len(set(taken)) == len(taken)
    assert {ended(first, job).state for job in taken} == {"succeeded"}
    found = verified(first.journal)
    # One that was taken without an answer is a job too.
    assert found["unfinished"] == 0 and found["ended"]["succeeded"] >= len(taken) and set(found["ended"]) == {"succeeded"}


def test_killing_and_stopping_everything_again_and_again_loses_no_job(tmp_path, database):
    command = [sys.executable, "-B", str(serving.ROOT / "scripts/chaos"), "--orion", str(serving.BINARY)]
    journal = POSTGRES.rsplit("/", 1)[0] + "/" + database
    done = subprocess.run(
        [*command, "--journal", journal, "--seconds", "120" if serving.LONG else "12", "--keep", str(tmp_path / "chaos")],
        capture_output=True, text=True, timeout=200, env=serving.environment(), check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    last = done.stdout.splitlines()[-1].split()
    told = {last[at]: int(last[at + 1]) for at in range(0, len(last), 2)}
    assert told["lost"] == told["duplicated"] == 0 and told["submitted"] == told["done"] > 100, told


def test_without_its_server_requests_are_served_and_jobs_refused(tmp_path):
    model = serving.simulated(tmp_path / "delay", 0.05)
    alone = Scheduler("alone", tmp_path, "postgres://me:hidden@127.0.0.1:1/none", model)
    with pytest.raises(grpc.RpcError) as refused:
        alone.jobs.submit([1], model="delay")
    assert refused.value.code().name == "UNAVAILABLE"
    serving.until(lambda: alone.said("journal_not_followed"), "a word of what is wrong")
    assert "hidden" not in alone.process.text()
    alone.process.stop()


def test_a_batch_goes_on_under_the_scheduler_that_takes_over(cluster):
    first, second, _ = cluster
    lines = [{"url": "/v2/models/delay/infer", "body": {
        "inputs": [{"name": "INPUT0", "shape": [1, 1], "datatype": "FP32", "data": [n]}]}} for n in range(200)]

    def client_of(scheduler):
        return openai.OpenAI(base_url=f"http://{scheduler.at['http']}/v1", api_key="none", max_retries=0)

    # To the one that follows: it passes it on.
    with client_of(second) as client:
        text = "\n".join(json.dumps(line) for line in lines).encode()
        with pytest.raises(grpc.RpcError) as broken:
            jobs_wire.Files(second.at["grpc"]).put([{"name": "half", "piece": b"x" * 100_000}])
        assert broken.value.code().name == "INVALID_ARGUMENT" and "broke off" in broken.value.details()
        with pytest.raises(openai.BadRequestError, match="unknown"):
            client.files.create(file=("half", text), purpose="batch", extra_body={"odd": "field"})
        file = client.files.create(file=("calls.jsonl", text), purpose="batch")
        assert [one.id for one in client.files.list()] == [file.id]
        assert client.files.content(file.id).content == text
        made = client.batches.create(input_file_id=file.id, endpoint="/v2/models/delay/infer", completion_window="1h")
        serving.until(lambda: client.batches.retrieve(made.id).request_counts.completed > 20, "some lines")
        first.process.kill()

        def ended():
            try:
                now = client.batches.retrieve(made.id)
                return now if now.status == "completed" else None
            except openai.APIStatusError as error:
                assert error.status_code == 503, error
                return None

        done = serving.until(ended, "the batch", 120)
        counts = done.request_counts
        assert (counts.total, counts.completed, counts.failed) == (200, 200, 0)
        answers = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert [answer["response"]["body"]["outputs"][0]["data"] for answer in answers] == [[n] for n in range(200)]
    # What had been begun and no worker has is begun anew, which is no failure.
    rows = json.loads(urllib.request.urlopen(f"http://{second.at['http']}/v1/jobs?of_job={made.id[6:]}&limit=1000").read())["jobs"]
    assert len(rows) == 200 and not any(row["failed"] for row in rows)
