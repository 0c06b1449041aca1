"""Namespaces that share a switch, each with a link of a given rate in both directions."""

import os
import subprocess

from worker_networks import run

# What a queue holds before it drops: a quarter of a second.
QUEUE = "250ms"


class Space:
    """One namespace and its link to the switch."""

    def __init__(self, hub, number):
        self.name, self.address = f"{hub.name}-{number}", f"{hub.network}.{number}"
        self.near, self.far = f"os{hub.unique}n{number}", f"os{hub.unique}f{number}"
        run("ip", "netns", "add", self.name)
        hub.spaces.append(self)
        run("ip", "link", "add", self.near, "netns", hub.name, "type", "veth", "peer", "name", self.far, "netns", self.name)
        hub.inside("ip", "link", "set", self.near, "master", "switch")
        hub.inside("ip", "link", "set", self.near, "up")
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("ip", "address", "add", f"{self.address}/24", "dev", self.far)
        self.inside("ip", "link", "set", self.far, "up")

    @property
    def before(self):
        """What runs a command inside."""
        return ("ip", "netns", "exec", self.name)

    def inside(self, *command):
        run(*self.before, *command)

    def sent_bytes(self):
        """Bytes that left it since it was made, headers included."""
        path = f"/sys/class/net/{self.far}/statistics/tx_bytes"
        return int(subprocess.run([*self.before, "cat", path], capture_output=True, text=True, check=True).stdout)


class Hub:
    """A switch in a namespace of its own; gone, with all that hangs on it, after `remove`."""

    def __init__(self, count, rate=None, burst="32kb"):
        self.unique, self.spaces = os.getpid(), []
        self.name, self.network = f"orion-hub-{self.unique}", f"10.{64 + self.unique % 128}.77"
        run("ip", "netns", "add", self.name)
        try:
            self.inside("ip", "link", "add", "switch", "type", "bridge")
            self.inside("ip", "link", "set", "switch", "up")
            for number in range(1, count + 1):
                space = Space(self, number)
                if rate:
                    shape = ("root", "tbf", "rate", rate, "burst", burst, "latency", QUEUE)
                    self.inside("tc", "qdisc", "add", "dev", space.near, *shape)
                    space.inside("tc", "qdisc", "add", "dev", space.far, *shape)
        except OSError:
            self.remove()
            raise

    def inside(self, *command):
        run("ip", "netns", "exec", self.name, *command)

    def remove(self):
        for name in [space.name for space in self.spaces] + [self.name]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
