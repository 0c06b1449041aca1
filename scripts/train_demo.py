"""Two workers train on MNIST, one is killed and comes back, and what is served is asked. Used by scripts/train-demo."""

import json
import pathlib
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

PATIENCE = 900
LEAST = 0.985
# What is served reads 512 images, the test accuracy is of 10,000.
APART = 0.02


class Demo:
    def __init__(self, orion, datasets, plan, folder):
        self.orion, self.datasets, self.plan, self.folder = orion, datasets, plan, folder
        self.processes = {}

    def start(self, name, *arguments):
        with open(self.folder / f"{name}.log", "a") as log:
            command = [self.orion, *arguments, "--data-dir", str(self.folder / name)]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def end(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def addresses(self):
        """Where the scheduler listens."""
        return self.until(self.heard, "the scheduler to listen")

    def heard(self):
        text = re.sub(r"\x1b\[[0-9;]*m", "", (self.folder / "scheduler.log").read_text())
        line = next((line for line in text.splitlines() if "listening http=" in line), "")
        return dict(re.findall(r"(\w+)=(\S+:\d+)", line))

    def worker(self, name):
        join = ["worker", "--join", self.at["session"], "--name", name, "--peer", "127.0.0.1:0"]
        self.start(name, *join, "--datasets", self.datasets)

    def until(self, condition, what):
        ends = time.monotonic() + PATIENCE
        while not (found := condition()):
            for name, process in self.processes.items():
                if process.poll() is not None:
                    sys.exit(f"{name} ended with {process.returncode}: {(self.folder / f'{name}.log').read_text()[-2000:]}")
            if time.monotonic() > ends:
                sys.exit(f"gave up waiting for {what}")
            time.sleep(0.1)
        return found

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.at['http']}{path}", data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError:
            return None

    def run(self):
        listeners = [part for name in ("http", "grpc", "metrics", "session") for part in (f"--{name}", "127.0.0.1:0")]
        self.start("scheduler", "scheduler", *listeners)
        self.at = self.addresses()
        self.worker("first")
        self.worker("second")
        train = [self.orion, "train", self.plan, "--server", self.at["grpc"], "--set", "workers.least=1"]
        job = json.loads(subprocess.check_output([*train, "--detach", "-o", "json"]))["id"]

        def course(workers=0, step=0):
            """How it goes, where so many train and are so far; also once it has ended."""
            found = self.call(f"/v1/jobs/{job}") or {}
            now = found.get("training") or {"workers": [], "step": 0, "steps": 0}
            there = workers in (0, len(now["workers"])) and now["step"] > step
            return now if there or found.get("ended_unix_ms") else None

        now = self.until(lambda: course(2, 100), "both to train")
        print(f"step {now['step']} of {now['steps']}: the second worker is killed")
        self.end("second")
        self.until(lambda: course(1, now["step"]), "the first to go on alone")
        self.worker("second")
        now = self.until(lambda: course(2), "the second to come back")
        print(f"step {now['step']}: {' and '.join(now['workers'])} train")
        ended = self.until(lambda: self.ended(job), "the end")
        if ended["state"] != "succeeded":
            sys.exit(f"job {job} {ended['state']}: {ended['reason']}")
        result = self.call(f"/v1/jobs/{job}/result")
        print(f"{result['path']}, {result['training']['cohorts']} cohorts")
        accuracy, asked = result["training"]["test_accuracy"], self.ask(result["model"])
        print(f"of 512 test images that were asked, {asked * 100:.2f} % were read right")
        print(f"test accuracy {accuracy * 100:.2f} %")
        return 0 if accuracy >= LEAST and abs(asked - accuracy) <= APART else 1

    def ended(self, job):
        found = self.call(f"/v1/jobs/{job}")
        return found if found and found["ended_unix_ms"] else None

    def ask(self, model):
        """The share of 512 test images that the served model reads right."""
        folder = pathlib.Path(self.datasets) / "mnist"
        images, labels = (folder / f"t10k-{part}-ubyte" for part in ("images-idx3", "labels-idx1"))
        _, _, height, width = struct.unpack(">4I", images.read_bytes()[:16])
        pixels, wanted = images.read_bytes()[16 : 16 + 512 * height * width], labels.read_bytes()[8 : 8 + 512]
        tensor = {"name": "image", "shape": [512, 1, height, width], "datatype": "FP32", "data": list(pixels)}
        body = {"inputs": [tensor], "outputs": [{"name": "class"}]}
        answer = self.until(lambda: self.call(f"/v2/models/{model}/infer", body), "the model to be served")
        return sum(found == of for found, of in zip(answer["outputs"][0]["data"], wanted)) / len(wanted)


def main():
    # What it started is ended then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    orion, datasets, plan = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="orion-train-") as folder:
        demo = Demo(orion, datasets, plan, pathlib.Path(folder))
        try:
            return demo.run()
        finally:
            for name in list(demo.processes):
                demo.end(name)


if __name__ == "__main__":
    sys.exit(main())
