"""PostgreSQL itself dies again and again under two schedulers that share a journal: nothing that was acknowledged is lost or done
twice, nothing is acknowledged while it is away, and all goes on by itself when it is back."""

import collections
import contextlib
import json
import os
import random
import sys
import threading
import time

import grpc
import pytest

import outcomes
import serving
from postgres_server import PROGRAMS, PostgresServer
from test_batches import delayed, numbers
from test_takeover import POSTGRES, Scheduler

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (POSTGRES and PROGRAMS), reason="needs PostgreSQL's server: scripts/with-postgres runs a command where it is installed"
)
SEED = int(os.environ.get("ORION_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
RETRY = {"attempts": 100, "back_off_ms": 50}
# The lease of whoever leads; and what takes longer than an answer may: a hang.
LEASE_SECONDS, HANGS_SECONDS = 1.2, 60
# So many values of four bytes are more than 64 KiB, and kept beside the journal; jobs of a stream, lines of a file.
LARGE, AT_ONCE, LINES = 20_000, 8, 20


class Submitter(threading.Thread):
    """Submits one thing after the other to either scheduler in turn, each with its key until it is acknowledged."""

    # Every number that it submits is its own, and is what the job has to show.
    pause, number = 0.05, 0

    def __init__(self, schedulers):
        super().__init__(daemon=True)
        self.clients = [(jobs_wire.Jobs(one.at["grpc"]), jobs_wire.Files(one.at["grpc"])) for one in schedulers]
        self.acknowledged, self.given, self.refused, self.wrong, self.ends = {}, {}, 0, None, threading.Event()

    def run(self):
        calls = 0
        # What was begun is acknowledged before it ends.
        while not (self.ends.wait(self.pause) and len(self.acknowledged) == len(self.given)) and not self.wrong:
            calls += 1
            try:
                self.submit(*self.clients[calls % len(self.clients)])
            except grpc.RpcError as error:
                self.is_refused(error.code().name, error.details())
            except Exception as error:
                self.wrong = repr(error)

    def is_refused(self, code, message):
        if code != "UNAVAILABLE":
            self.wrong = f"refused as {code}: {message}"
        self.refused += 1

    def spec(self, jobs, number):
        """One of each six has large inputs, and a large result."""
        key, values = f"key {number}", [number] * (LARGE if number % 6 == 0 else 1)
        self.given[key] = values
        return jobs.spec(values, model="delay", idempotency_key=key, retry=RETRY)


class One(Submitter):
    """A job with each call."""

    def submit(self, jobs, _):
        self.acknowledged[f"key {self.number}"] = jobs.call("Submit")(self.spec(jobs, self.number), timeout=HANGS_SECONDS).id
        self.number += 1


class Stream(Submitter):
    """Several jobs with each call; those of them that are not acknowledged are submitted again."""

    pause, number = 0.3, 1_000_000

    def submit(self, jobs, _):
        left = [n for n in range(self.number, self.number + AT_ONCE) if f"key {n}" not in self.acknowledged]
        asked = iter([self.spec(jobs, n) for n in left])
        answers = jobs.call("SubmitStream", "stream_stream")(asked, timeout=HANGS_SECONDS)
        for n, answer in zip(left, answers, strict=False):
            if not answer.id:
                return self.is_refused(answer.code, answer.message)
            self.acknowledged[f"key {n}"] = answer.id
        self.number += AT_ONCE


class Batch(Submitter):
    """A file of calls, and the job that runs them."""

    pause, number, file = 1.0, 2_000_000, None

    def submit(self, jobs, files):
        key, calls = f"file {self.number}", range(self.number, self.number + LINES)
        self.given[key] = [[call] for call in calls]
        if not self.file:
            text = "\n".join(json.dumps(delayed(call)) for call in calls).encode()
            self.file = files.put([{"name": key, "piece": text[:500]}, {"piece": text[500:], "is_whole": True}]).id
        spec = {"file": {"file_id": self.file}, "idempotency_key": key, "retry": RETRY}
        asked = jobs.message("orion.v1.SubmitJobRequest")(spec=spec)
        self.acknowledged[key] = jobs.call("Submit")(asked, timeout=HANGS_SECONDS).id
        self.file, self.number = None, self.number + LINES


class Cluster:
    """Two schedulers whose journal is in a PostgreSQL server of its own, two workers, and three who submit."""

    def __init__(self, folder, postgres):
        self.postgres, self.chance = postgres, random.Random(SEED)
        model = serving.simulated(folder / "delay", 0.01, max_rows=4)
        self.schedulers = [Scheduler(name, folder, postgres.url, model) for name in ("first", "second")]
        self.processes = [scheduler.process for scheduler in self.schedulers]
        join = ",".join(scheduler.at["session"] for scheduler in self.schedulers)
        for name in ("w1", "w2"):
            command = ["worker", "--join", join, "--name", name, "--data-dir", str(folder / name)]
            self.processes.append(serving.Process(command, folder / f"{name}.log"))
        self.submitters = [kind(self.schedulers) for kind in (One, Stream, Batch)]

    def all(self, kind):
        return {key: value for submitter in self.submitters for key, value in getattr(submitter, kind).copy().items()}

    def is_well(self):
        wrong = [one.wrong for one in self.submitters if one.wrong]
        assert not wrong and all(process.child.poll() is None for process in self.processes), wrong or "a process has ended"
        return True

    def until_each(self, count, what):
        """Until this count of each who submits is more than now."""
        before = [(one, count(one)) for one in self.submitters]
        serving.until(lambda: self.is_well() and all(count(one) > was for one, was in before), what, HANGS_SECONDS)

    def goes_on(self, least):
        """Waits until so many more are acknowledged, some to each who submits."""
        enough = len(self.all("acknowledged")) + least
        self.until_each(lambda one: len(one.acknowledged), "acknowledgements to each")
        serving.until(lambda: self.is_well() and len(self.all("acknowledged")) >= enough, "acknowledgements")

    def said(self, event):
        """How often the schedulers did."""
        return sum(process.text().count(f'"{event}"') for process in self.processes)

    def stop(self):
        """Whoever submits ends, once all that it began is acknowledged."""
        for submitter in self.submitters:
            submitter.ends.set()
        serving.until(lambda: self.is_well() and not any(one.is_alive() for one in self.submitters), "the last", HANGS_SECONDS)

    def close(self):
        for submitter in self.submitters:
            submitter.wrong = submitter.wrong or "the test is over"
        for process in self.processes:
            process.kill()


@pytest.fixture
def cluster(tmp_path):
    with contextlib.closing(PostgresServer()) as postgres:
        postgres.start()
        with contextlib.closing(Cluster(tmp_path, postgres)) as one:
            yield one


def away(cluster):
    """Nothing is acknowledged while it is away: whoever submits is told so."""
    cluster.postgres.kill()
    # What is refused first may have been asked before.
    cluster.until_each(lambda one: one.refused, "refusals")
    acknowledged = cluster.all("acknowledged")
    cluster.until_each(lambda one: one.refused, "refusals")
    assert cluster.all("acknowledged") == acknowledged, "acknowledged without a database"


def paused(cluster):
    """For longer than the lease of whoever leads, who gives up; both refuse what they are asked then."""
    cluster.postgres.pause()
    until = time.monotonic() + LEASE_SECONDS
    serving.until(lambda: time.monotonic() > until and cluster.said("leads") == cluster.said("leads_no_more"), "nobody to lead")
    for scheduler in cluster.schedulers:
        with pytest.raises(grpc.RpcError) as refused:
            scheduler.jobs.call("Submit")(scheduler.jobs.spec([0], model="delay"), timeout=HANGS_SECONDS)
        assert refused.value.code().name == "UNAVAILABLE", refused.value
    cluster.postgres.resume()


FAULTS = {
    "killed": lambda cluster: cluster.postgres.kill(),
    "stopped at once": lambda cluster: cluster.postgres.stop_at_once(),
    "one process killed": lambda cluster: cluster.postgres.kill_one(cluster.chance),
    "paused": paused,
    "away": away,
}


def shown(cluster, job):
    """What a job has to show, of a file what came of its lines in their order; either scheduler is asked until one answers."""
    def once():
        scheduler = cluster.chance.choice(cluster.schedulers)
        try:
            outcomes.ended(scheduler.jobs, job)
            found = scheduler.jobs.call("Result")(scheduler.jobs.asked(job), timeout=30)
            if found.HasField("inference"):
                return scheduler.jobs.values(found)
            lines = jobs_wire.Files(scheduler.at["grpc"]).read(found.file.output_file_id)
            return numbers([json.loads(line) for line in lines.splitlines()])
        except grpc.RpcError as error:
            # One that has not found the database again yet; a job that failed is another code.
            assert error.code().name == "UNAVAILABLE", error

    return serving.until(once, f"the result of job {job}")


def test_nothing_acknowledged_is_lost_when_postgres_crashes(cluster):
    print(f"ORION_TEST_SEED={SEED}")
    faults = [*FAULTS, "killed", "one process killed"] * (6 if serving.LONG else 1)
    cluster.chance.shuffle(faults)
    for submitter in cluster.submitters:
        submitter.start()
    for fault in faults:
        # Some come before the schedulers are over the last one.
        if more := cluster.chance.choice([0, 10, 40]):
            cluster.goes_on(more)
        began = time.monotonic()
        FAULTS[fault](cluster)
        cluster.postgres.start()
        print(f"{fault} at {len(cluster.all('acknowledged'))}: {time.monotonic() - began:.2f} s")
    cluster.goes_on(20)
    cluster.stop()
    acknowledged = cluster.all("acknowledged")
    assert {key: shown(cluster, job) for key, job in acknowledged.items()} == cluster.all("given")
    for process in cluster.processes:
        process.stop()
    records = outcomes.records(cluster.postgres.url)
    outcomes.each_ended_once(records, acknowledged)
    lines = collections.Counter((record["of"], record["line"]) for record in records if record.get("of"))
    files = [job for key, job in acknowledged.items() if key.startswith("file")]
    assert lines == {(job, line): 1 for job in files for line in range(1, LINES + 1)}, "each line is one job"
    epochs = sum(record["event"] == "epoch" for record in records)
    print(f"{len(acknowledged)} acknowledged, {sum(one.refused for one in cluster.submitters)} refused, {epochs} epochs")
    panics = [line for process in cluster.processes for line in process.text().splitlines() if "panicked at" in line]
    assert not panics, panics
