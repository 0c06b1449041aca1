"""The proxy of net/examples/fault-proxy.rs, which breaks the connections that it carries."""

import os
import pathlib
import subprocess

import serving

PROGRAM = pathlib.Path(os.environ.get("ORION_FAULT_PROXY", serving.TARGET / "debug" / "examples" / "fault-proxy"))


class FaultProxy:
    """One that carries what connects to `address` to a target, as it is told; its commands are in the program's docs."""

    def __init__(self, target):
        if not PROGRAM.is_file():
            raise AssertionError(f"{PROGRAM} is missing, build it with: cargo build -p orion-net --example fault-proxy")
        self.child = subprocess.Popen(
            [str(PROGRAM), target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.address = self.child.stdout.readline().removeprefix("listening ").strip()

    def tell(self, *commands):
        """Each is done when this returns; what the last answered after `ok`."""
        for command in commands:
            self.child.stdin.write(f"{command}\n")
            told = self.child.stdout.readline().strip()
            assert told.startswith("ok"), f"fault-proxy answers '{told}' to '{command}'"
        return told.removeprefix("ok").strip()

    def count(self):
        """Connections that were taken, and the bytes that were passed on each way."""
        words = self.tell("count").split()
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))

    def stop(self):
        self.child.stdin.close()
        assert self.child.wait(10) == 0
        self.child.stdout.close()
