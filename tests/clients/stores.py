"""What the tests of moving models have in common: commands, nodes that serve, small models, peers of their own."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import threading

import numpy as np
import pytest

import peers
import serving


END_SECONDS = 20
# Exit statuses of a command that failed: 2 where trying again may help.
FAILED = (1, 2)


def orion(*arguments, status=(0,)):
    """A command that must end with one of these statuses."""
    command = [str(serving.BINARY), *map(str, arguments)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=END_SECONDS, env=serving.environment(), check=False
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"orion {' '.join(command[1:])} did not end") from None
    assert done.returncode in status, f"orion {' '.join(command[1:])} ended with {done.returncode}: {done.stderr}"
    return done


def said(*arguments, **status):
    return json.loads(orion(*arguments, "-o", "json", **status).stdout)


def push(path, name, store, *more):
    return said("push", path, "--as", name, "--store", store, *more)


def pull(name, store, *addresses, more=()):
    return said("pull", name, "--from", ",".join(addresses), "--store", store, *more)


def refused(name, store, *addresses, more=()):
    """What a pull that must fail says; nothing of it may be in the store."""
    error = orion("pull", name, "--from", ",".join(addresses), "--store", store, *more, status=FAILED).stderr
    assert listed(store) == [] and "panicked" not in error, error
    return error


def listed(store):
    return [f"{one['name']}@{one['version']}" for one in said("cache", "ls", "--store", store)["artifacts"]]


def contents(folder):
    folder = pathlib.Path(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pulled(done, source):
    """The pull brought what is in the source, and nothing else."""
    assert contents(done["folder"]) == contents(source)
    return done


def flip(path, at):
    """One bit of a file on the disk."""
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 16]))


def weights(seed, rows=5_000_000):
    return np.random.default_rng(seed).standard_normal(rows, np.float32)


def folder_of(folder, values):
    """A model folder: weights, a text, a file in a folder, and one that is empty."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, values.nbytes]}}).encode()
    (folder / "more").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())
    (folder / "config.json").write_text('{"words": "' + "and so on " * 300 + '"}')
    (folder / "more/empty").write_bytes(b"")
    (folder / "more/ünlike name").write_text("text")
    return folder


def keys(folder, name):
    """A publisher's private and public key."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    for command in (
        ["genpkey", "-algorithm", "ed25519", "-out", private],
        ["pkey", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return private, public


class CacheServer:
    """`orion cache serve` on a store."""

    def __init__(self, store, log, *more, address="127.0.0.1:0"):
        self.store = store
        self.process = serving.Process(["cache", "serve", address, "--store", str(store), *map(str, more)], log)
        self.address = serving.until(self.listening, "the cache server")

    def listening(self):
        assert self.process.child.poll() is None, self.process.text()
        lines = [line for line in self.process.text().splitlines() if line.startswith("serving on ")]
        return lines and lines[0].removeprefix("serving on ")

    def kill(self):
        assert self.process.child.poll() is None, f"the cache server ended: {self.process.text()}"
        self.process.kill()


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("small") / "small", weights(7))


@pytest.fixture(scope="session")
def seed(tmp_path_factory, small):
    """A node that has it, which no test may harm."""
    folder = tmp_path_factory.mktemp("seed")
    push(small, "small@1", folder / "store")
    server = CacheServer(folder / "store", folder / "log")
    yield server
    server.kill()


@pytest.fixture(scope="session")
def copy(seed):
    """All its chunks in both forms, checked by an implementation of this test's own."""
    return peers.Copy(seed.address, "small")


@pytest.fixture
def serve(tmp_path):
    with contextlib.ExitStack() as stack:

        def start(store, *more, **settings):
            server = CacheServer(store, tmp_path / f"{len(os.listdir(tmp_path))}.log", *more, **settings)
            stack.callback(server.process.kill)
            return server

        yield start


@pytest.fixture
def other(copy):
    """Servers of this test's own implementation."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(peers.Server(*(arguments or [copy]), **settings))


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request, tmp_path):
    """A small disk of the test's own."""
    mounted, image = tmp_path / "disk", tmp_path / "image"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", mounted]
    if request.param == "ext4":
        image.touch()
        os.truncate(image, 30 << 20)
        made = (
            shutil.which("mkfs.ext4") and not subprocess.run(["mkfs.ext4", "-q", image], capture_output=True).returncode
        )
        mount = ["mount", "-o", "loop", image, mounted] if made else ["false"]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip(f"a small disk of {request.param} needs mount, which needs root")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


class Absurd(peers.Honest):
    """Gives another artifact than it has."""

    def __init__(self, encoded):
        self.encoded = encoded

    def artifact(self, artifact):
        return self.encoded


@contextlib.contextmanager
def half_pulled(store, copy, other, chunks, *more):
    """A pull of which so many chunks came, and that waits for the next."""
    ended = threading.Event()
    server = other(copy, peers.After(chunks, peers.stall(ended)))
    log = store.with_name("pull.log")
    command = ["pull", "small", "--from", server.address, "--store", str(store), *more]
    process = serving.Process(command, log)

    def here():
        found = list(store.glob("incoming/*/bitmap"))
        return found and sum(byte.bit_count() for byte in found[0].read_bytes()) == chunks

    try:
        serving.until(here, f"{chunks} chunks")
        yield server, process
    finally:
        process.kill()
        ended.set()


class Made:
    """A copy of what nobody published."""

    def __init__(self, made, chunks):
        self.artifact, self.chunks = made, {peers.RAW: dict(enumerate(chunks)), peers.ENCODED: {}}
