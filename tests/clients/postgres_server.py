"""A PostgreSQL server of a test's own, which is killed, stopped and paused, and started again where it was."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile

import serving


def programs():
    """The folder of the server's programs, the newest of several, if one is here; Debian keeps it out of the PATH."""
    found = pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.parts[-3])])
    found = found or [pathlib.Path(path) for path in [shutil.which("initdb")] if path]
    return found[-1].parent if found else None


PROGRAMS = programs()
# It refuses to run as root.
AS = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.geteuid() == 0 else []


def parent_and_state(process):
    """Of a process that is there; else None, and Z as of one that is dead but for its parent."""
    try:
        # Its name, in brackets, may have anything in it.
        state, parent = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[:2]
        return int(parent), state
    except OSError:
        return None, "Z"


def is_alive(process):
    return parent_and_state(process)[1] not in "ZX"


def send(processes, what):
    for process in processes:
        # It may have ended by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, what)


class PostgresServer:
    """One server, in a folder that goes with it. It keeps its folder and its port over its lives."""

    def __init__(self, *settings):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="orion-postgres-"))
        self.data, self.log, self.main, self.paused = self.folder / "data", self.folder / "log", None, []
        if AS:
            shutil.chown(self.folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgres://orion@127.0.0.1:{self.port}/postgres"
        self.settings = [f"--{name}" for name in ("fsync=on", "synchronous_commit=on", "max_connections=100", *settings)]
        flags = ["-U", "orion", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions", "--no-sync"]
        self.run("initdb", "-D", self.data, *flags)

    def run(self, program, *arguments):
        command = [*AS, PROGRAMS / program, *arguments]
        # It must not inherit a folder that its user may not see.
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", check=False)
        assert done.returncode == 0, f"{program}: {done.stderr}{self.said()[-2000:]}"
        return done.stdout.strip()

    def sql(self, statement):
        return self.run("psql", "-v", "ON_ERROR_STOP=1", self.url, "-Atc", statement)

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def begin(self):
        # Nobody of its last life is there: the number that this file has may be another's by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        command = [*AS, PROGRAMS / "postgres", "-D", self.data, "-p", str(self.port), "-h", "127.0.0.1", "-k", self.folder]
        with open(self.log, "ab") as out:
            return subprocess.Popen([*command, *self.settings], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/")

    def start(self):
        """Starts it, again where it was, and waits until it answers."""
        def answers():
            if self.main is None or self.main.poll() is not None:
                # One that ended by itself may have found its port taken for a moment.
                self.main = self.begin()
            with contextlib.suppress(AssertionError):
                return self.sql("SELECT 1")

        serving.until(answers, f"PostgreSQL in {self.folder}")

    def children(self):
        processes = [int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*")]
        return [one for one in processes if parent_and_state(one)[0] == self.main.pid and is_alive(one)]

    def everyone(self):
        """All of its processes. The first one stands still from then on: it begins no more of them, and notices no death."""
        self.main.send_signal(signal.SIGSTOP)
        serving.until(lambda: parent_and_state(self.main.pid)[1] in "TZ", "PostgreSQL's first process to stand still")
        return [*self.children(), self.main.pid]

    def kill(self):
        """SIGKILL to all of its processes at once, so that none does anything after another's death."""
        everyone = self.everyone()
        send(everyone, signal.SIGKILL)
        self.main.wait()
        serving.until(lambda: not any(map(is_alive, everyone)), "PostgreSQL's processes to be gone")

    def stop_at_once(self):
        """The server's own way of being killed."""
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        self.main.wait()

    def kill_one(self, chance):
        """SIGKILL to one process that serves a scheduler: the first one throws all others away, and begins anew."""
        begun = self.said().count("reinitializing")
        serving_one = "SELECT pid FROM pg_stat_activity WHERE application_name = 'orion'"

        def killed():
            known = [one for one in map(int, self.sql(serving_one).split()) if one in self.children()]
            if known:
                os.kill(chance.choice(known), signal.SIGKILL)
            return known

        serving.until(killed, "a process that serves a scheduler")
        serving.until(lambda: self.said().count("reinitializing") > begun, "PostgreSQL to begin anew")

    def pause(self):
        """Connections stay, and nothing is answered."""
        self.paused = self.everyone()
        send(self.paused, signal.SIGSTOP)

    def resume(self):
        send(self.paused, signal.SIGCONT)

    def close(self):
        if self.main and self.main.poll() is None:
            self.kill()
        shutil.rmtree(self.folder)
