"""A scheduler and workers as processes of this machine, on ports that the system picks, with their logs as JSON lines."""

import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
START_SECONDS = 60
DRAIN_SECONDS = 15
LISTENERS = ("http", "grpc", "metrics", "session")


def orion_binary(path):
    """The binary, or SystemExit saying how to make it."""
    binary = pathlib.Path(path or ROOT / "target/release/orion").resolve()
    if not os.access(binary, os.X_OK):
        raise SystemExit(f"there is no program at {binary}: build it with cargo build --release, or name it with --orion PATH")
    return binary


def environment():
    """Without the developer's own ORION_* settings, and never through a proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORION_")}
    return {**kept, "NO_PROXY": "*", "no_proxy": "*"}


def until(condition, what, seconds=START_SECONDS):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise SystemExit(f"waited {seconds} s in vain for {what}")


class Program:
    """One `orion` process, which may be started again; its log goes on in the same file."""

    def __init__(self, command, log):
        self.command, self.log = [str(part) for part in command], log
        self.start()

    def start(self):
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment()
            )

    def signal(self, number):
        self.child.send_signal(number)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def events(self):
        """Its log's events, each with `at`, seconds since 1970."""
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    event = json.loads(line)
                except ValueError:  # a line that is being written
                    continue
                at = datetime.datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))
                yield {**event, "at": at.timestamp()}

    def complaints(self):
        """Lines that a healthy process never writes: errors and panics."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if '"level":"ERROR"' in line or "panicked" in line]


class Cluster:
    """One scheduler; `add_worker` gives it workers. Leaving the `with` block stops them all."""

    def __init__(self, orion, folder, scheduler_arguments, session="127.0.0.1:0"):
        self.orion, self.folder, self.workers = orion, folder, {}
        listeners = [part for name in LISTENERS for part in (f"--{name}", session if name == "session" else "127.0.0.1:0")]
        command = [orion, "scheduler", *listeners, "--data-dir", folder / "scheduler", "--log-format", "json"]
        self.scheduler = Program([*command, *scheduler_arguments], folder / "scheduler.log")
        # SIGTERM must end what was started here, as Ctrl-C does.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            self.addresses = until(self.listening, "the scheduler's `listening` event")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in [*self.workers.values(), self.scheduler]:
            if program.child.poll() is None:
                program.kill()

    def listening(self):
        if self.scheduler.child.poll() is not None:
            raise SystemExit(f"the scheduler ended:\n{self.scheduler.log.read_text(errors='replace')[-2000:]}")
        found = [event for event in self.scheduler.events() if event["message"] == "listening"]
        return found and {name: found[0][name].removeprefix("http://") for name in LISTENERS}

    def add_worker(self, name, *arguments, host="127.0.0.1", before=(), others=()):
        """A worker that joins through `host`, or one of the others; `before` is what its command line is run by."""
        port = self.addresses["session"].rsplit(":", 1)[1]
        join = ",".join([f"{host}:{port}", *others])
        command = [*before, self.orion, "worker", "--join", join, "--name", name]
        command += ["--data-dir", self.folder / name, "--log-format", "json", *arguments]
        self.workers[name] = Program(command, self.folder / f"{name}.log")

    def ask(self, *arguments):
        """The JSON of a client command, or None when it failed."""
        command = [self.orion, *arguments, "--server", self.addresses["grpc"], "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def state(self, worker):
        return {node["name"]: node["state"] for node in self.ask("nodes") or []}.get(worker)

    def complaints(self):
        programs = {"scheduler": self.scheduler, **self.workers}
        return [f"{name}: {line}" for name, program in programs.items() for line in program.complaints()]

    def stop(self):
        """SIGTERM to all, workers first; gives what did not end with status 0."""
        wrong = []
        for name, program in [*self.workers.items(), ("scheduler", self.scheduler)]:
            program.signal(signal.SIGTERM)
            try:
                if status := program.child.wait(DRAIN_SECONDS):
                    wrong.append(f"{name} ended with status {status} after SIGTERM")
            except subprocess.TimeoutExpired:
                program.kill()
                wrong.append(f"{name} was still running {DRAIN_SECONDS} s after SIGTERM")
        return wrong
