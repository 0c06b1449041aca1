"""A network of its own for each worker, whose link to the scheduler can be cut: nothing arrives, and nobody is told."""

import itertools
import os
import subprocess

# A name is not used again: what is removed goes a little later.
NUMBERS = itertools.count()


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


class Link:
    """A namespace and a pair of interfaces, the near one here; gone after `remove`."""

    def __init__(self, number):
        unique = os.getpid()
        self.space, self.near, self.far = f"orion-{unique}-{number}", f"oc{unique}n{number}", f"oc{unique}f{number}"
        network = f"10.{64 + unique % 128}.{number}"
        self.host = f"{network}.1"
        run("ip", "netns", "add", self.space)
        try:
            run("ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.space)
            run("ip", "address", "add", f"{network}.1/30", "dev", self.near)
            run("ip", "link", "set", self.near, "up")
            self.inside("ip", "link", "set", "lo", "up")
            self.inside("ip", "address", "add", f"{network}.2/30", "dev", self.far)
            self.inside("ip", "link", "set", self.far, "up")
        except OSError:
            self.remove()
            raise

    @property
    def before(self):
        """What runs a command inside."""
        return ("ip", "netns", "exec", self.space)

    def inside(self, *command):
        run(*self.before, *command)

    def cut(self):
        """Both ends drop what they are given to send: a queue that holds nothing."""
        run("tc", "qdisc", "add", "dev", self.near, "root", "pfifo", "limit", "0")
        self.inside("tc", "qdisc", "add", "dev", self.far, "root", "pfifo", "limit", "0")

    def mend(self):
        run("tc", "qdisc", "delete", "dev", self.near, "root")
        self.inside("tc", "qdisc", "delete", "dev", self.far, "root")

    def remove(self):
        subprocess.run(["ip", "netns", "delete", self.space], capture_output=True, check=False)


def links(count):
    """So many links, or OSError where namespaces are not allowed; nothing is left behind then."""
    made = []
    try:
        for _ in range(count):
            made.append(Link(next(NUMBERS)))
    except OSError:
        for link in made:
            link.remove()
        raise
    return made
