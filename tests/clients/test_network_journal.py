"""The leader's link to the database fails: another takes over, and what the old one does under its epoch counts for nothing."""

import random
import sys
import threading

import grpc
import pytest

import outcomes
import serving
from fault_proxy import FaultProxy
from test_takeover import POSTGRES, Scheduler, database, sql  # noqa: F401

sys.path.insert(0, str(serving.ROOT / "scripts"))

pytestmark = pytest.mark.skipif(not POSTGRES, reason="needs PostgreSQL: scripts/with-postgres runs a command beside one")
SEED = 20261128
RETRY = {"attempts": 100, "back_off_ms": 50}


class Cluster:
    """Two schedulers of one journal; the first leads, and reaches it through a proxy. Two workers join whichever leads."""

    def __init__(self, folder, database):
        server, _ = POSTGRES.rsplit("/", 1)
        self.journal, address = f"{server}/{database}", server.rsplit("@", 1)[1]
        self.proxy = FaultProxy(address)
        model = serving.simulated(folder / "delay", 0.03, max_rows=2)
        self.first = Scheduler("first", folder, self.journal.replace(address, self.proxy.address), model)
        serving.until(lambda: self.first.said("leads"), "the first to lead")
        self.second = Scheduler("second", folder, self.journal, model)
        serving.until(lambda: self.second.said("follows"), "the second to follow")
        self.folder = folder
        self.workers = [self.worker(name) for name in ("w1", "w2")]

    def worker(self, name):
        join = f"{self.first.at['session']},{self.second.at['session']}"
        command = ["worker", "--join", join, "--name", name, "--data-dir", str(self.folder / name)]
        return serving.Process(command, self.folder / f"{name}.log")

    def submitted(self, scheduler, key):
        """Submits once, as the job of this key; None where it was not taken."""
        retry = scheduler.jobs.message("orion.v1.RetryPolicy")(**RETRY)
        spec = scheduler.jobs.spec([0], model="delay", idempotency_key=key, retry=retry)
        try:
            return scheduler.jobs.call("Submit")(spec, timeout=10).id
        except grpc.RpcError as error:
            assert error.code().name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"), error
            return None

    def processes(self):
        return [*self.workers, self.first.process, self.second.process]

    def stop(self):
        for process in self.processes():
            process.stop()


@pytest.fixture
def cluster(tmp_path, database):  # noqa: F811
    one = Cluster(tmp_path, database)
    yield one
    try:
        one.stop()
    finally:
        for process in one.processes():
            process.kill()
        one.proxy.stop()


class Load:
    """Submits to the leader that is to be cut off, and to nobody else, as fast as it answers."""

    def __init__(self, cluster):
        self.cluster, self.acknowledged, self.ends, self.refused = cluster, {}, threading.Event(), 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        number = 0
        while not self.ends.is_set():
            job = self.cluster.submitted(self.cluster.first, f"first {number}")
            if job is None:
                self.refused += 1
            else:
                self.acknowledged[f"first {number}"] = job
                number += 1

    def stop(self):
        self.ends.set()
        self.thread.join()


def epochs(records):
    """The place at which each epoch begins."""
    return {record["epoch"]: record["record"] for record in records if record["event"] == "epoch"}


def under_its_epoch(records, job):
    return max(epoch for epoch, place in epochs(records).items() if place < job)


@pytest.mark.parametrize("fault", ["blackhole", "half-open", "half-open reverse", "stall", "refuse, reset"])
def test_a_leader_without_its_database_makes_room(cluster, fault):
    first, second, proxy = cluster.first, cluster.second, cluster.proxy
    jobs = outcomes.many(first.jobs, [f"before {n}" for n in range(60)], model="delay")
    outcomes.ended(first.jobs, jobs["before 0"])
    load = Load(cluster)
    try:
        serving.until(lambda: len(load.acknowledged) > 5, "submissions")
        proxy.tell(*fault.split(", "))
        cut = len(load.acknowledged)
        serving.until(lambda: second.said("leads"), "the second to lead")
        led = dict(load.acknowledged)
        between = serving.until(lambda: cluster.submitted(second, "between"), "a submission to the one that leads now")
        print(f"{fault}: {cut} acknowledged before, {len(led) - cut} until the second led, {load.refused} refused")
        serving.until(lambda: first.said("leads_no_more"), "the first to know that it does not lead")
        proxy.tell("pass")
        # What was told when nobody could reach it is not said again: it follows, or passes on.
        serving.until(lambda: first.said("follows"), "the first to follow")
        more = len(load.acknowledged) + 3
        serving.until(lambda: len(load.acknowledged) > more, "submissions to the first, which passes them on")
    finally:
        load.stop()
    acknowledged = {**jobs, **load.acknowledged, "between": between}
    found = outcomes.results(first.jobs, acknowledged)
    assert [found[key] for key in jobs] == [[n] for n in range(len(jobs))]
    cluster.stop()
    records = outcomes.records(cluster.journal)
    outcomes.each_ended_once(records, acknowledged)
    begin = epochs(records)
    print(f"epochs begin at {begin}, the journal has {len(records)} records")
    # Where the machine stands still for longer than the lease, the lead is won once more.
    assert {1, 2} <= set(begin)
    # All that the first acknowledged for itself is before the second's epoch, and all else after it.
    assert all(job < begin[2] for job in jobs.values()) and between > begin[2]
    late = [job for key, job in load.acknowledged.items() if key not in led]
    assert late and all(job > begin[2] for job in late[1:])
    ran(records)


def test_jobs_go_on_while_the_old_leader_is_cut_off(cluster):
    first, second, proxy = cluster.first, cluster.second, cluster.proxy
    jobs = outcomes.many(first.jobs, [f"before {n}" for n in range(60)], model="delay")
    proxy.tell("refuse", "reset")
    serving.until(lambda: second.said("leads"), "the second to lead")
    jobs |= outcomes.many(second.jobs, [f"between {n}" for n in range(20)], model="delay")
    # Its link is not mended before they have ended.
    outcomes.results(second.jobs, jobs)
    cluster.stop()
    outcomes.each_ended_once(outcomes.records(cluster.journal), jobs)


def test_one_that_started_earlier_leads_again(cluster):
    first, second, proxy = cluster.first, cluster.second, cluster.proxy
    for worker in cluster.workers:
        worker.kill()
    cluster.workers.clear()
    proxy.tell("refuse", "reset")
    serving.until(lambda: second.said("leads"), "the second to lead")
    proxy.tell("pass")
    serving.until(lambda: first.said("follows"), "the first to follow")
    # This worker knows the second alone at first.
    cluster.workers.append(cluster.worker("w3"))
    jobs = outcomes.many(second.jobs, [f"second {n}" for n in range(20)], model="delay")
    outcomes.results(second.jobs, jobs)
    second.process.stop()
    serving.until(lambda: cluster.submitted(first, "first"), "the first to lead again")
    jobs |= outcomes.many(first.jobs, ["first"], model="delay")
    outcomes.results(first.jobs, jobs)
    cluster.stop()
    outcomes.each_ended_once(outcomes.records(cluster.journal), jobs)


def ran(records):
    """An attempt that ended is the one that began last and was not given up; it may have gone on under another leader."""
    begun = {}
    for record in records:
        if record["event"] == "begun":
            assert begun.get(record["job"], 0) < record["attempt"], record
            begun[record["job"]] = record["attempt"]
        if record["event"] == "released":
            del begun[record["job"]]
        if record["event"] == "ended" and not record["code"]:
            assert begun.get(record["job"]) == record["attempt"], record


def test_a_check_of_attempts_sees_what_is_wrong():
    begun = {"event": "begun", "job": 1, "attempt": 1}
    end = {"event": "ended", "job": 1, "attempt": 1, "code": ""}
    released, epoch = {"event": "released", "job": 1, "attempt": 1}, {"event": "epoch", "epoch": 2}
    ran([begun, epoch, end])
    for wrong in ([begun, epoch, released, end], [begun, {**begun, "attempt": 2}, end], [begun, begun, end], [end]):
        with pytest.raises(AssertionError):
            ran(wrong)


def test_a_link_that_breaks_again_and_again_loses_no_job(cluster):
    chance, acknowledged, broke = random.Random(SEED), {}, []
    print(f"seed {SEED}")
    for n in range(150):
        if chance.random() < 0.1:
            broke.append(chance.choice(["reset", f"cut {chance.randrange(0, 20_000)}"]))
            cluster.proxy.tell(broke[-1])
        key, either = f"either {n}", chance.choice([cluster.first, cluster.second])
        acknowledged[key] = serving.until(lambda either=either, key=key: cluster.submitted(either, key), key)
    outcomes.results(cluster.second.jobs, acknowledged)
    # What was to be cut may be cut still: this too is asked until it is answered.
    again = serving.until(lambda: cluster.submitted(cluster.first, "either 0"), "the first to know its key")
    assert again == acknowledged["either 0"]
    cluster.stop()
    records = outcomes.records(cluster.journal)
    print(f"{len(broke)} faults, {len(epochs(records))} epochs, {cluster.proxy.tell('count')}")
    assert len(broke) > 8
    outcomes.each_ended_once(records, acknowledged)
    ran(records)
