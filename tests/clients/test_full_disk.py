"""A disk that is full: what is submitted is refused and says why, and what was acknowledged ends once there is room."""

import os
import subprocess
import sys

import grpc
import pytest

import outcomes
import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402

DISK_BYTES = 16 << 20
# What the journal may grow by before the disk is full.
ROOM_BYTES = 1_500_000
# Of four kilobytes, so that this many do not fit.
VALUES, MOST = 1000, 2000


class Disk:
    """The data folder of a scheduler, on a disk of its own."""

    def __init__(self, folder):
        self.folder, self.filler = folder, folder / "filler"
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")

    def free(self):
        told = os.statvfs(self.folder)
        return told.f_bavail * told.f_frsize

    def fill(self, but):
        with open(self.filler, "ab") as out:
            out.write(bytes(max(self.free() - but, 0)))

    def make_room(self):
        self.filler.unlink()

    def remove(self):
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def small(tmp_path):
    """A server whose scheduler has a small disk, and that."""
    folder = tmp_path / "scheduler"
    folder.mkdir()
    try:
        disk = Disk(folder)
    except OSError as error:
        (pytest.fail if os.environ.get("ORION_TEST_NAMESPACES") else pytest.skip)(str(error))
    try:
        server = serving.Server("two", tmp_path, {"delay": serving.simulated(tmp_path / "delay", 0.02, max_rows=4)})
        yield server, disk
        server.stop()
    finally:
        disk.remove()


def submitted(jobs, n):
    return jobs.submit([n] * VALUES, model="delay", idempotency_key=f"letter {n}")


def anew(server):
    server.scheduler.kill()
    server.start_scheduler()
    return jobs_wire.Jobs(server.grpc)


def refused(ask):
    """What it says of a disk that is full."""
    with pytest.raises(grpc.RpcError) as error:
        ask()
    assert error.value.code().name == "UNAVAILABLE", error.value
    for words in ("No space left on device", "started anew"):
        assert words in error.value.details()


@pytest.mark.parametrize("again", ["with room", "while it is full, then with room"])
def test_what_was_acknowledged_ends_once_there_is_room(small, again):
    server, disk = small
    jobs, acknowledged = jobs_wire.Jobs(server.grpc), {}
    disk.fill(but=ROOM_BYTES)
    watched = jobs.call("Watch", "unary_stream")(jobs.asked(submitted(jobs, MOST)), timeout=60)
    lower = [jobs.submit([0], model="delay", priority="low") for _ in range(20)]

    def until_full():
        for n in range(len(acknowledged), MOST):
            acknowledged[f"letter {n}"] = submitted(jobs, n)

    refused(until_full)
    print(f"{len(acknowledged)} acknowledged, {disk.free()} bytes are free")
    assert len(acknowledged) > 20
    # Nothing is taken any more, also where there is room again: what is on disk is not known.
    refused(lambda: submitted(jobs, len(acknowledged)))
    refused(lambda: jobs.call("Cancel")(jobs.asked(lower[0]), timeout=30))
    list(watched)
    # Requests that are not jobs are answered.
    assert server.ready("delay")
    if again != "with room":
        disk.fill(but=0)
        jobs = anew(server)
        # Pages of the file that are free take some.
        refused(until_full)
        print(f"{len(acknowledged)} acknowledged after a start")
    disk.make_room()
    refused(lambda: submitted(jobs, len(acknowledged)))
    jobs = anew(server)
    server.until_ready()
    found = {n: submitted(jobs, n) for n in range(len(acknowledged) + 5)}
    assert list(found.values())[: len(acknowledged)] == list(acknowledged.values())
    told = outcomes.results(jobs, {f"letter {n}": job for n, job in found.items()})
    assert list(told.values()) == [[n] * VALUES for n in found]
    assert {outcomes.ended(jobs, job).state for job in lower} == {"succeeded"}
    server.stop()
    outcomes.each_ended_once(outcomes.records(disk.folder / "jobs.redb"), {f"letter {n}": job for n, job in found.items()})
