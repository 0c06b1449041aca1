"""Runs the real binary, in one process (`orion up`) or two (scheduler and worker), on ports the system picks."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = pathlib.Path(os.environ.get("ORION_BIN", TARGET / "debug" / "orion"))
MODELS = pathlib.Path(os.environ.get("ORION_MODELS", ROOT / "models-data"))
SAMPLES = pathlib.Path(os.environ.get("ORION_SAMPLES", ROOT / "samples-data"))
LONG = os.environ.get("ORION_TEST_LONG") == "1"
START_SECONDS = 60
DRAIN_SECONDS = 10
LISTENERS = ("http", "grpc", "metrics", "session")
EXPECTED = json.loads((ROOT / "tests/data/expected/minilm.json").read_text())


def simulated(folder, seconds, max_rows=None, load_seconds=0.0):
    """A model folder whose batches take this long, whatever they hold: at most so many rows."""
    folder.mkdir(parents=True)
    batching = f"[batching]\nmax_rows = {max_rows}\n\n" if max_rows else ""
    (folder / "orion.toml").write_text(
        f'kind = "simulated"\n\n{batching}[simulated]\n'
        f"base_seconds = {seconds}\nper_row_seconds = 0.0\nseed = 7\nmemory_bytes = 1048576\nload_seconds = {load_seconds}\n"
    )
    return folder


def in_precision(model, precision, folder):
    """A copy of a model folder whose orion.toml names a precision."""
    shutil.copytree(model, folder)
    (folder / "orion.toml").write_text(f'precision = "{precision}"\n')
    return folder


def until(condition, what, seconds=START_SECONDS):
    """Polls until the condition gives something true, which is returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def environment():
    """Without the developer's own ORION_* settings, and never through a proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORION_")}
    return {**kept, "NO_PROXY": "*", "no_proxy": "*"}


def walk(value):
    """Every (key, value) pair of nested JSON."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield key, inner
        yield from walk(inner)


class Process:
    """One running `orion` process; what it prints goes to a file."""

    def __init__(self, arguments, log, before=()):
        self.arguments, self.log = arguments, log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(
                [*before, str(BINARY), *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment()
            )

    def text(self):
        return self.log.read_text(errors="replace")

    def addresses(self):
        """The listeners' addresses, once the one `listening` event is there."""
        if self.child.poll() is not None:
            raise AssertionError(f"orion {self.arguments} ended with {self.child.returncode}:\n{self.text()}")
        for line in self.text().splitlines():
            if not line.startswith("{"):
                continue
            try:
                pairs = list(walk(json.loads(line)))
            except ValueError:  # a line that is being written
                continue
            if any(value == "listening" for _, value in pairs):
                return {key: str(value).removeprefix("http://") for key, value in pairs if key in LISTENERS}
        return None

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        """SIGTERM must end it with status 0, within the time that draining may take."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            status = self.child.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {DRAIN_SECONDS} s after SIGTERM:\n{self.text()[-4000:]}") from None
        assert status == 0, f"orion {self.arguments[0]} ended with {status}:\n{self.text()[-4000:]}"


class Server:
    """A scheduler with one worker, `w1`, in one or in two processes."""

    def __init__(self, shape, folder, models, token_file=None, arguments=()):
        self.shape, self.folder, self.models, self.processes = shape, folder, models, []
        self.arguments = arguments
        self.token = token_file.read_text().strip() if token_file else None
        self.token_flags = ["--token-file", str(token_file)] if token_file else []
        self.http = self.grpc = self.metrics = self.session = "127.0.0.1:0"
        self.start_scheduler()
        self.worker = self.start_worker() if shape == "two" else None
        self.until_ready()

    def start_scheduler(self):
        """The scheduler, again at the same addresses after it was killed."""
        command = "up" if self.shape == "up" else "scheduler"
        listeners = [argument for name in LISTENERS for argument in (f"--{name}", getattr(self, name))]
        served = [argument for name, path in self.models.items() for argument in ("--model", f"{name}={path}")]
        self.scheduler = self.start(
            [command, *listeners, *served, *self.arguments, "--data-dir", str(self.folder / command)]
        )
        addresses = until(self.scheduler.addresses, "the listening event")
        assert set(addresses) == set(LISTENERS), f"the listening event names {addresses}"
        self.http, self.grpc, self.metrics, self.session = (addresses[name] for name in LISTENERS)

    def until_ready(self):
        for model in ["identity", *self.models]:
            until(lambda model=model: self.ready(model), f"model {model}")

    def start(self, arguments):
        log = self.folder / f"{len(self.processes)}-{arguments[0]}.log"
        process = Process([*arguments, "--log-format", "json", *self.token_flags], log)
        self.processes.append(process)
        return process

    def add_worker(self, name):
        """One more worker, under this name and with its data of before, if it was here."""
        return self.start(["worker", "--join", self.session, "--name", name, "--data-dir", str(self.folder / name)])

    def start_worker(self):
        """The worker, again after it was killed."""
        self.worker = self.add_worker("w1")
        return self.worker

    def headers(self):
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def get(self, path, address=None, headers=None, method="GET", body=None):
        """A plain HTTP request: (status, headers, body)."""
        connection = http.client.HTTPConnection(address or self.http, timeout=30)
        try:
            connection.request(method, path, body=body, headers=self.headers() if headers is None else headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def ready(self, model):
        for process in self.processes:
            if process.child.poll() not in (None, -signal.SIGKILL):
                raise AssertionError(f"orion {process.arguments[0]} ended:\n{process.text()[-4000:]}")
        return self.get(f"/v2/models/{model}/ready")[0] == 200

    def orion(self, *arguments):
        """A client command's JSON."""
        done = subprocess.run(
            [str(BINARY), *arguments, "--server", self.grpc, "-o", "json", *self.token_flags],
            capture_output=True, text=True, timeout=60, env=environment(), check=False,
        )
        assert done.returncode == 0, f"orion {' '.join(arguments)} ended with {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)

    def nodes(self):
        """Each node that `orion nodes` lists, by name."""
        listed = self.orion("nodes")
        found = [value for _, value in walk([listed]) if isinstance(value, dict) and {"name", "state"} <= set(value)]
        return {value["name"]: value for value in reversed(found)}

    def figure(self, name):
        """A number of `orion status`."""
        return next(int(value) for key, value in walk(self.orion("status")) if key == name)

    def stop(self):
        """The worker first, so that it can say goodbye. Killed processes were waited for and are not asked."""
        failures = []
        for process in reversed(self.processes):
            if process.child.returncode == -signal.SIGKILL:
                continue
            try:
                process.stop()
            except AssertionError as failure:
                failures.append(str(failure))
        assert not failures, "\n".join(failures)
