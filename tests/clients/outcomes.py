"""What became of jobs: by their idempotency keys, and by the records of a journal that nobody has open."""

import collections
import json
import subprocess

import grpc

import serving

ENDED = ("succeeded", "failed", "cancelled")


def many(jobs, keys, **fields):
    """Submits one job for each key, whose value is its place; the jobs by their keys."""
    asked = [jobs.spec([place], idempotency_key=key, **fields) for place, key in enumerate(keys)]
    answers = list(jobs.call("SubmitStream", "stream_stream")(iter(asked), timeout=60))
    assert all(answer.id or not answer.code for answer in answers), answers[-1]
    return dict(zip(keys, (answer.id for answer in answers), strict=True))


def ended(jobs, job):
    """The job once it has ended, watched again where its scheduler was lost."""
    def end():
        try:
            last = jobs.watch(job)[-1]
            return last if last.state in ENDED else None
        except grpc.RpcError as error:
            assert error.code().name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"), error
            return None

    return serving.until(end, f"the end of job {job}")


def results(jobs, acknowledged):
    """What each key's job has to show, once all have succeeded."""
    ends = {key: ended(jobs, job) for key, job in acknowledged.items()}
    bad = {key: (job.id, job.state, job.reason) for key, job in ends.items() if job.state != "succeeded"}
    assert not bad, f"{len(bad)} of {len(ends)} have not succeeded: {list(bad.items())[:5]}"
    return {key: jobs.result(job) for key, job in acknowledged.items()}


def records(journal):
    """All records of a journal, after it was verified."""
    def orion(command):
        done = subprocess.run(
            [str(serving.BINARY), "journal", command, str(journal)], capture_output=True, text=True, timeout=60,
            env=serving.environment(), check=False,
        )
        assert done.returncode == 0, f"orion journal {command}: {done.stderr}"
        return done.stdout

    orion("verify")
    return [json.loads(line) for line in orion("dump").splitlines()]


def each_ended_once(records, acknowledged):
    """Fails unless the records are in order, each key is one job, and each job has one outcome, of what was acknowledged success."""
    assert [record["record"] for record in records] == list(range(len(records))), "records are missing"
    times = [record["unix_ms"] for record in records]
    assert times == sorted(times), "a record is older than the one before"
    keys = collections.defaultdict(list)
    for record in records:
        if record["event"] == "submitted" and record["key"]:
            keys[record["key"]].append(record["job"])
    twice = {key: jobs for key, jobs in keys.items() if len(jobs) > 1}
    assert not twice, f"keys with more than one job: {twice}"
    other = {key: job for key, job in acknowledged.items() if keys[key] != [job]}
    assert not other, f"acknowledged, but not the key's job: {other}"
    codes = collections.defaultdict(list)
    for record in records:
        if record["event"] == "ended":
            codes[record["job"]].append(record["code"])
    jobs = [record["job"] for record in records if record["event"] == "submitted"]
    unclear = {job: codes[job] for job in jobs if len(codes[job]) != 1}
    assert not unclear, f"jobs that have not one outcome: {unclear}"
    failed = {job: codes[job] for job in acknowledged.values() if codes[job] != [""]}
    assert not failed, f"jobs that failed: {failed}"
