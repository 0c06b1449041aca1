"""The machine's clock is set an hour back or forward: no job fails, none waits for that hour, no worker is taken for dead."""

import datetime
import json
import os
import pathlib
import sys
import time

import pytest

import outcomes
import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402

HOUR = 3600
KEYS = [f"letter {n}" for n in range(200)]
FAKED = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


class Clock:
    """The wall clock of processes that are started with `before`; what they measure time with is left alone."""

    def __init__(self, file):
        self.file = file
        self.set(0)

    def set(self, seconds):
        """So much after the real one."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self.file)

    @property
    def before(self):
        settings = {
            "LD_PRELOAD": FAKED, "FAKETIME_TIMESTAMP_FILE": self.file, "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
        }
        return ("env", *[f"{name}={value}" for name, value in settings.items()])


class Server(serving.Server):
    """A scheduler and a worker under that clock."""

    def __init__(self, folder, clock):
        self.clock = clock
        super().__init__("two", folder, {"delay": serving.simulated(folder / "delay", 0.02, max_rows=2)})

    def start(self, arguments):
        log = self.folder / f"{len(self.processes)}-{arguments[0]}.log"
        process = serving.Process([*arguments, "--log-format", "json"], log, before=self.clock.before)
        self.processes.append(process)
        return process

    def jobs(self):
        return jobs_wire.Jobs(self.grpc)

    def logged(self):
        """Seconds since 1970 of the scheduler's log lines, by its clock."""
        lines = [json.loads(line) for line in self.scheduler.text().splitlines() if line.startswith("{")]
        return [datetime.datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines]


@pytest.fixture
def server(tmp_path):
    if not FAKED:
        skip = pytest.fail if os.environ.get("ORION_TEST_FAKETIME") else pytest.skip
        skip("libfaketime is missing, get it with: sudo apt-get install -y faketime")
    one = Server(tmp_path, Clock(tmp_path / "clock"))
    yield one
    one.stop()


def tried_again(jobs, key, back_off_ms=500):
    """A job that fails three times, with a pause before the second and the third."""
    retry = jobs.message("orion.v1.RetryPolicy")(attempts=3, back_off_ms=back_off_ms, codes=["NOT_FOUND"])
    return jobs.submit([1], model="nobody-has-this", idempotency_key=key, retry=retry)


def is_paused(jobs, job):
    return serving.until(lambda: (now := jobs.get(job)).failed and now.state in ("queued", "waiting"), "a pause")


def ends_after_three(jobs, job):
    last = outcomes.ended(jobs, job)
    assert (last.state, len(last.failed)) == ("failed", 3), last
    times = [failed.ended_unix_ms for failed in last.failed]
    assert times == sorted(times) and last.ended_unix_ms >= times[-1]


@pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "forward"])
def test_the_clock_jumps_while_jobs_run(server, jump):
    jobs = server.jobs()
    first = outcomes.many(jobs, KEYS, model="delay")
    # Ten minutes by what passes, not by what the clock shows.
    due = outcomes.many(jobs, ["due"], model="delay", deadline_ms=600_000, priority="low")
    again = [tried_again(jobs, "paused over a jump", 1000)]
    is_paused(jobs, again[0])
    server.clock.set(jump)
    second = outcomes.many(jobs, [f"jumped {n}" for n in range(50)], model="delay", deadline_ms=600_000)
    again.append(tried_again(jobs, "paused over the way back"))
    is_paused(jobs, again[1])
    server.clock.set(0)
    third = outcomes.many(jobs, [f"back {n}" for n in range(50)], model="delay")
    acknowledged = {**first, **due, **second, **third}
    assert any(jobs.get(job).state in ("queued", "running") for job in first.values()), "all had ended before"
    assert len(outcomes.results(jobs, acknowledged)) == len(acknowledged)
    for job in again:
        ends_after_three(jobs, job)
    worker = server.nodes()["w1"]
    # A machine that stands still for a moment may cut a session; it takes a lease that has ended to be dead.
    assert worker["state"] == "ready" and "dead" not in str(worker["events"]), worker["events"]
    # It did jump: the log's lines are an hour apart.
    server.clock.set(jump)
    server.stop()
    shown = server.logged()
    assert abs(shown[-1] - shown[0] - jump) < HOUR / 2, shown
    outcomes.each_ended_once(outcomes.records(server.folder / "scheduler" / "jobs.redb"), acknowledged)


@pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "forward"])
def test_the_clock_jumps_while_the_scheduler_is_down(server, jump):
    acknowledged, again, submitted = {}, [], []
    for life, shows in enumerate((0, jump, 0)):
        server.clock.set(shows)
        if life:
            server.scheduler.kill()
            server.start_scheduler()
            server.until_ready()
        jobs = server.jobs()
        for job in again:
            # Its pause does not last until the clock is there again.
            ends_after_three(jobs, job)
        acknowledged |= outcomes.many(jobs, [f"{life}: {key}" for key in KEYS[:100]], model="delay")
        again = [tried_again(jobs, f"paused in life {life}", 1000)]
        is_paused(jobs, again[0])
        submitted.append(jobs.get(again[0]).submitted_unix_ms / 1000)
        serving.until(lambda jobs=jobs: jobs.list(state="succeeded").jobs, "the first job")
        taken, shown = (when - time.time() for when in (submitted[-1], server.logged()[-1]))
        print(f"life {life}: submitted {taken:+.0f} s from now, {shown:+.0f} s in the log")
    ends_after_three(jobs, again[0])
    assert len(outcomes.results(jobs, acknowledged)) == len(acknowledged)
    # It did jump; the journal's time goes on from its last record where the clock was set back.
    assert submitted == sorted(submitted)
    assert (submitted[1] - submitted[0] > HOUR / 2) == (jump > 0)
    server.stop()
    outcomes.each_ended_once(outcomes.records(server.folder / "scheduler" / "jobs.redb"), acknowledged)
