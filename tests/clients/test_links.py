"""What links are seen to carry while they are used."""

import os
import sys

import numpy as np
import pytest
import tritonclient.grpc as triton

import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))
import worker_networks  # noqa: E402


@pytest.fixture
def network():
    """A worker's network, reached over one link."""
    try:
        [link] = worker_networks.links(1)
    except OSError as error:
        (pytest.fail if os.environ.get("ORION_TEST_NAMESPACES") else pytest.skip)(str(error))
    yield link
    link.remove()


class FarWorker(serving.Server):
    """A scheduler and its worker behind a link."""

    def __init__(self, folder, link):
        self.link = link
        super().__init__("two", folder, {}, arguments=["--insecure"])

    def start_scheduler(self):
        self.session = "0.0.0.0:0"
        super().start_scheduler()

    def start(self, arguments):
        if arguments[0] == "scheduler":
            return super().start(arguments)
        log = self.folder / "worker.log"
        join = self.session.replace("0.0.0.0", self.link.host)
        command = [join if argument == self.session else argument for argument in arguments]
        process = serving.Process([*command, "--log-format", "json"], log, before=self.link.before)
        self.processes.append(process)
        return process

    def rate(self):
        return self.nodes()["w1"]["link"]["bytes_per_second"] or 0


def test_the_rate_of_a_link_is_what_it_carried(network, tmp_path):
    running = FarWorker(tmp_path, network)
    client = triton.InferenceServerClient(running.grpc)
    tensor = triton.InferInput("INPUT0", [2 << 20], "FP32")
    tensor.set_data_from_numpy(np.zeros(2 << 20, np.float32))
    try:
        for megabits in (160, 40, 400):
            verb = "add" if megabits == 160 else "change"
            shape = ["root", "tbf", "rate", f"{megabits}mbit", "burst", "64kb", "limit", "256kb"]
            worker_networks.run("tc", "qdisc", verb, "dev", network.near, *shape)
            carried = megabits * 1e6 / 8

            def is_seen():
                client.infer("identity", [tensor])
                return 0.75 * carried < running.rate() < 1.1 * carried

            serving.until(is_seen, f"{carried:.0f} bytes a second, {running.rate()} are told")
    finally:
        client.close()
        running.stop()
