"""Files of models come from hubs, buckets, folders and web servers."""

import json
import pathlib
import subprocess
import threading

import pytest

import serving
from buckets import PLACES, azurite, bucket, nobodys, s3  # noqa: F401
from origins import Hub, PART, Web, brought, not_brought, written
from stores import END_SECONDS, FAILED, contents, listed, orion, pulled, push

TOKEN = "token-of-the-hub"
pytestmark = pytest.mark.usefixtures("nobodys")


@pytest.fixture
def hub(monkeypatch):
    with Hub(TOKEN) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def weights_file(small):
    return (small / "model.safetensors").read_bytes()


# Hubs.


def test_a_hubs_repository_is_pulled(tmp_path, hub, weights_file, serve):
    taken = {"model.safetensors": weights_file, "config.json": b"{}", "tökens, 100% of them.json": b"[]"}
    left = ["pytorch_model.bin", "onnx/model.onnx", "tf_model.h5", "flax_model.msgpack", "model-q4.gguf"]
    commit = hub.commit("org/Small-1", taken | {path: b"not wanted" for path in left}, "a/branch")
    both = threading.Barrier(2, timeout=END_SECONDS)
    hub.large.before = lambda request: request.start < 2 * PART and both.wait()
    done = brought("hf://org/Small-1@a/branch", tmp_path / "a")
    assert contents(done["folder"]) == taken
    assert (done["name"], done["version"]) == ("Small-1", commit[:12])
    assert done["received_bytes"] == done["bytes"] == sum(map(len, taken.values())) and done["found_bytes"] == 0
    assert sorted(one.range for one in hub.large.reads()) == [
        (start, min(start + PART, len(weights_file))) for start in range(0, len(weights_file), PART)
    ]
    assert not [one.target for one in hub.requests if any(path in one.path for path in left)]
    # Whoever has the files does not get to know the token.
    assert all(one.headers["Authorization"] == f"Bearer {TOKEN}" for one in hub.requests)
    assert not any("Authorization" in one.headers or TOKEN in str(one.headers) for one in hub.large.requests)
    # What is here is not fetched again, whatever its revision is called; it is what would have been pushed.
    asked = len(hub.reads("resolve")), len(hub.large.requests)
    for revision in ("a/branch", commit):
        again = brought(f"hf://org/Small-1@{revision}", tmp_path / "a")
        assert again["root"] == done["root"] and again["received_bytes"] == 0
    assert (len(hub.reads("resolve")), len(hub.large.requests)) == asked
    # Where a node has it, it is asked.
    peer = serve(tmp_path / "a")
    assert brought(f"hf://org/Small-1@{commit}", tmp_path / "c", "--from", peer.address)["root"] == done["root"]
    assert (len(hub.reads("resolve")), len(hub.large.requests)) == asked
    assert push(done["folder"], f"Small-1@{commit[:12]}", tmp_path / "b")["root"] == done["root"]


def test_wrong_contents_are_refused(tmp_path, hub, weights_file):
    commit = hub.commit("org/m", {"model.safetensors": weights_file, "config.json": b"{} "})
    api = hub.listed("org/m", commit)
    hub.change = lambda _: api
    for server, path in ((hub, f"/org/m/{commit}/config.json"), (hub.large, next(iter(hub.large.files)))):
        right = server.files[path].contents
        named = "config.json" if server is hub else "model.safetensors"
        for wrong in (bytes([right[0] ^ 1]) + right[1:], right[:-1], right + b"more"):
            server.put(path, wrong)
            assert named in not_brought("hf://org/m", tmp_path / "a")
        server.put(path, right)
    assert contents(brought("hf://org/m", tmp_path / "a")["folder"])["model.safetensors"] == weights_file


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("token", ["wrong-token", None])
def test_a_hub_that_does_not_let_in_is_named(tmp_path, monkeypatch, hub, token, status):
    hub.status = status
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    error = not_brought("hf://org/private@v1", tmp_path / "a")
    assert "org/private" in error and "HF_TOKEN" in error and "wrong-token" not in error


def test_one_of_several_models_is_chosen(tmp_path, hub):
    files = {"m-Q4_K_M.gguf": b"GGUF of four bits", "m-Q8_0.gguf": b"GGUF of eight bits", "config.json": b"{}"}
    hub.commit("org/m", files)
    error = not_brought("hf://org/m", tmp_path / "a")
    assert "--include" in error and all(path in error for path in files if path.endswith("gguf"))
    assert all(path in not_brought("hf://org/m", tmp_path / "a", "--include", "*Q5*") for path in files)
    done = brought("hf://org/m", tmp_path / "a", "--include", "*Q8_0*", "--include", "*.json", "--as", "eight@1")
    del files["m-Q4_K_M.gguf"]
    assert contents(done["folder"]) == files and listed(tmp_path / "a") == ["eight@1"]


def test_a_hub_need_not_say_how_long_its_answers_are(tmp_path, hub):
    hub.habits = {"no lengths"}
    hub.commit("org/m", {"model.safetensors": b"12345678"})
    assert contents(brought("hf://org/m", tmp_path / "a")["folder"]) == {"model.safetensors": b"12345678"}


def lies(api):
    """What a hub may say of a repository that must not be believed."""
    for name in ("../out", "a/../../out", "/out", "a//b", "a\0b", "a\\..\\b", "x" * 5000, "."):
        yield {"siblings": [{**one, "rfilename": f"{name}.safetensors"} for one in api["siblings"][1:]]}
    for size in (2**62, 2**63, 2**64 - 1, 2**64, -1, 1.5, "7", None):
        yield {"siblings": [{**one, "size": size, "lfs": None} for one in api["siblings"]]}
    for sha in ("", "main", "../../../../outside", "0" * 11, None):
        yield {"sha": sha}
    yield {"siblings": []}
    for large in ({"sha256": "z", "size": 8}, {"sha256": "../" * 9, "size": 8}, {"oid": 7}):
        yield {"siblings": [{**one, "lfs": large} for one in api["siblings"][1:]]}
    yield {"siblings": None}


def test_a_hub_that_lies_harms_nothing(tmp_path, hub):
    commit = hub.commit("org/m", {"config.json": b"{}", "model.safetensors": b"12345678"})
    api = hub.listed("org/m", commit)
    for lie in lies(api):
        hub.change = lambda api: api | lie
        error = not_brought("hf://org/m", tmp_path / "a")
        assert "org/m" in error or "no space left" in error, error
    for said in ([], "text", {"sha": commit}):
        hub.change = lambda _: said
        not_brought("hf://org/m", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and not pathlib.Path("/out.safetensors").exists()


# Files of buckets, folders and web servers.


@pytest.mark.parametrize("scheme", PLACES)
def test_a_folder_is_pulled(small, tmp_path, bucket, scheme):
    place = bucket(scheme)
    for path, one in contents(small).items():
        place.put(f"some models/small/{path}", one)
    place.put("some models/small-too/config.json", b"of another model")
    file, url = written(tmp_path, place.table), f"{place.url}/some models/small/"
    done = pulled(brought(url, tmp_path / "a", "--origins", file), small)
    assert done["name"] == "small" and len(done["version"]) == 12 and int(done["version"], 16)
    assert done["received_bytes"] == done["bytes"]
    reads = place.reads()
    again = brought(url.removesuffix("/"), tmp_path / "a", "--origins", file)
    assert again["root"] == done["root"] and again["received_bytes"] == 0 and place.reads() == reads
    place.put("some models/small/config.json", b"{}")
    other = brought(url, tmp_path / "a", "--origins", file)
    assert other["version"] != done["version"] and contents(other["folder"])["config.json"] == b"{}"
    one = brought(f"{url}model.safetensors", tmp_path / "b", "--origins", file)
    assert contents(one["folder"]) == {"model.safetensors": (small / "model.safetensors").read_bytes()}
    assert one["name"] == "model"
    error = not_brought(f"{place.url}/none/", tmp_path / "c", "--origins", file)
    assert f"{place.url}/none" in error


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize("below, objects", [("", []), ("/m", ["m/"]), ("/m/", ["m/more/"])])
def test_a_bucket_and_objects_for_folders_are_no_files(tmp_path, bucket, scheme, below, objects):
    place = bucket(scheme)
    for path in objects:
        place.put(path, b"")
    for path in ("config.json", "more/x"):
        place.put(f"{below.strip('/')}/{path}".lstrip("/"), path.encode())
    done = brought(f"{place.url}{below}", tmp_path / "a", "--as", "m", "--origins", written(tmp_path, place.table))
    assert contents(done["folder"]) == {"config.json": b"config.json", "more/x": b"more/x"}


def test_a_path_is_pulled(small, tmp_path):
    assert pulled(brought(small, tmp_path / "a"), small)["name"] == "small"
    orion("pull", small, "--as", "it@2", "--store", tmp_path / "a")
    assert "it@2" in listed(tmp_path / "a")


@pytest.mark.parametrize("scheme", ["s3", "az", "file of origins"])
def test_the_environment_says_where_a_bucket_is(tmp_path, bucket, scheme):
    place = bucket("az" if scheme == "az" else "s3")
    place.put("m/config.json", b"{}")
    said = {"ORION_ORIGINS": str(written(tmp_path, place.table))}
    if scheme == "s3":
        keys = {"AWS_ACCESS_KEY_ID": "key-in-env", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "r-1"}
        said = {"AWS_ENDPOINT_URL": place.table["endpoint"], **keys}
    elif scheme == "az":
        account = {name.upper(): value for name, value in place.table["options"].items()}
        said = {"AZURE_STORAGE_ENDPOINT": place.table["endpoint"], **account}
    command = [serving.BINARY, "pull", f"{place.url}/m/", "--store", tmp_path / "a"]
    done = subprocess.run(command, env=serving.environment() | said, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if scheme == "s3":
        assert any("Credential=key-in-env/" in one.headers["Authorization"] for one in place.moto.requests)


@pytest.mark.parametrize(
    "habits", ["", "no ranges", "no tags", "weak tags", "no HEAD", "no tags, no ranges, no conditions"]
)
def test_a_web_servers_file_is_pulled(tmp_path, weights_file, habits):
    with Web({"/of all, 100%25 +ü/m.safetensors": weights_file}, habits.split(", ")) as web:
        url = f"{web.url}/of%20all,%20100%2525%20+%C3%BC/m.safetensors"
        done = brought(f"{url}?key=secret-of-url", tmp_path / "a")
        assert contents(done["folder"]) == {"m.safetensors": weights_file} and done["name"] == "m"
        assert all(one.query == "key=secret-of-url" for one in web.requests)
        sent = web.sent()
        again = brought(f"{url}?key=another-secret", tmp_path / "a")
        # Without HEAD the first byte is asked for.
        assert again["root"] == done["root"] and web.sent() <= sent + 1
        error = not_brought(f"{web.url}/none.gguf?key=secret-of-url", tmp_path / "b")
        assert f"{web.url}/none.gguf" in error and "secret-of-url" not in error


def test_what_cannot_be_a_name_is_given_one(tmp_path):
    with Web({"/a b.gguf": b"GGUF"}) as web:
        assert "--as" in not_brought(f"{web.url}/a%20b.gguf", tmp_path / "a")
        assert brought(f"{web.url}/a%20b.gguf", tmp_path / "a", "--as", "m")["name"] == "m"


def test_another_origin_is_not_taken_for_what_is_here(small, tmp_path):
    brought(small, tmp_path / "a", "--as", "m@1")
    error = orion("pull", small / "more", "--as", "m@1", "--store", tmp_path / "a", status=FAILED).stderr
    assert "m@1" in error


def test_a_full_disk_is_named(hub, disk, weights_file):
    hub.commit("org/m", {"model.safetensors": weights_file + weights_file})
    assert "no space left" in not_brought("hf://org/m", disk / "store")
    assert not hub.large.requests


def test_what_fails_for_a_while_is_asked_for_again(tmp_path, weights_file):
    with Web({"/m.safetensors": weights_file}) as web:
        seen = {}

        def trouble(request):
            number = seen[request.start] = seen.get(request.start, 0) + 1
            request.fails = 503 if number == 1 else None
            request.ends = 3_000_000 if number == 2 else None

        web.before = trouble
        done = brought(f"{web.url}/m.safetensors", tmp_path / "a")
        assert contents(done["folder"]) == {"m.safetensors": weights_file}


def journal(store):
    """Bytes of the numbers of the parts that are on the disk."""
    return sum(path.stat().st_size for path in store.glob("incoming/*/parts"))


@pytest.mark.parametrize("changed", [False, True])
def test_a_pull_that_was_killed_goes_on_where_it_was(tmp_path, weights_file, changed):
    with Web({"/m.safetensors": weights_file}) as web:
        go_on, url = threading.Event(), f"{web.url}/m.safetensors"
        web.before = lambda request: request.start == 2 * PART and go_on.wait(serving.START_SECONDS)
        process = serving.Process(["pull", url, "--store", str(tmp_path / "a")], tmp_path / "log")
        try:
            serving.until(lambda: journal(tmp_path / "a") == 8, "two parts")
        finally:
            process.kill()
            go_on.set()
        asked = len(web.requests)
        if changed:
            weights_file = bytes([weights_file[-1]]) + weights_file[1:]
            web.put("/m.safetensors", weights_file)
        done = brought(url, tmp_path / "a")
        assert contents(done["folder"]) == {"m.safetensors": weights_file}
        assert done["found_bytes"] == (0 if changed else 2 * PART)
        if not changed:
            ranges = [one.range for one in web.requests[asked:] if one.method == "GET"]
            assert ranges == [(2 * PART, len(weights_file))]


@pytest.mark.parametrize("habits", ["", "no conditions", "weak tags", "no tags"])
def test_what_changes_meanwhile_is_no_mixture(tmp_path, weights_file, habits):
    other = bytes(len(weights_file))
    with Web({"/m.safetensors": weights_file}, [habits]) as web:
        first = threading.Event()

        def change(request):
            if request.start:
                first.wait(serving.START_SECONDS)
                web.put("/m.safetensors", other)

        web.before, web.after = change, lambda request: request.start or first.set()
        url = f"{web.url}/m.safetensors"
        done = orion("pull", url, "--store", tmp_path / "a", "-o", "json", status=(0, *FAILED))
        if done.returncode:
            assert "change" in done.stderr and "m.safetensors" in done.stderr and listed(tmp_path / "a") == []
            web.before = lambda request: None
            done = orion("pull", url, "--store", tmp_path / "a", "-o", "json")
        done = json.loads(done.stdout)
        assert contents(done["folder"]) == {"m.safetensors": other}


def test_two_pulls_at_once_fetch_one_copy(tmp_path, weights_file):
    with Web({"/m.safetensors": weights_file}) as web:
        command = [serving.BINARY, "pull", f"{web.url}/m.safetensors", "--store", tmp_path / "a", "-o", "json"]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, env=serving.environment()) for _ in range(2)]
        roots = {json.loads(one.communicate(timeout=END_SECONDS)[0])["root"] for one in both}
        assert len(roots) == 1 and web.sent() == len(weights_file)


# Workers.


class Cluster(serving.Server):
    """Workers that fetch their models."""

    def add_worker(self, name):
        own = ["--name", name, "--data-dir", str(self.folder / name), "--peer", "127.0.0.1:0"]
        return self.start(["worker", "--join", self.session, *own, "--from", f"file://{self.folder}/bucket"])

    def infer(self, model):
        text = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a few words"]}]}
        status, _, body = self.get(f"/v2/models/{model}/infer", method="POST", body=json.dumps(text))
        assert status == 200, body
        return json.loads(body)["outputs"]


def test_workers_load_from_a_hub_and_a_bucket(tmp_path, hub):
    model = serving.ROOT / "tests/data/models/bert-classifier"
    commit = hub.commit("org/classifier", contents(model))
    push(model, "stored@1", tmp_path / "store", "--to", tmp_path / "bucket")
    served = {"plain": model, "hub": f"hf://org/classifier@{commit[:12]}", "stored": "store:stored@1"}
    hub.repositories["org/classifier"][commit[:12]] = commit
    running = Cluster("two", tmp_path, served)
    try:
        expected = running.infer("plain")
        assert running.infer("hub") == running.infer("stored") == expected
        reads = len(hub.reads("resolve")), hub.large.sent()
        assert hub.large.sent() == (model / "model.safetensors").stat().st_size
        second = running.add_worker("w2")
        serving.until(lambda: running.nodes().get("w2", {}).get("state") == "ready", "the second worker")
        running.orion("nodes", "drain", "w1")
        serving.until(lambda: len(listed(tmp_path / "w2/store")) == 2, "the models at the second worker")
        assert running.infer("hub") == running.infer("stored") == expected
        assert (len(hub.reads("resolve")), hub.large.sent()) == reads
        # What a worker has it serves without the hub too.
        hub.status = 503
        second.kill()
        running.add_worker("w2")
        serving.until(lambda: running.nodes().get("w2", {}).get("state") == "ready", "the second worker again")
        running.until_ready()
        assert running.infer("hub") == expected
    finally:
        running.stop()
