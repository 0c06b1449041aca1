"""Artifacts in buckets, and networks that deliver what is in them."""

import pytest

import peers
import serving
from buckets import ACCOUNT_KEY, PLACES, azurite, bucket, nobodys, s3  # noqa: F401
from origins import Cdn, SCHEMES, Web, brought, not_brought, written
from stores import contents, flip, folder_of, keys, pull, pulled, push, refused, said, weights

pytestmark = pytest.mark.usefixtures("nobodys")


@pytest.fixture
def second(tmp_path):
    values = weights(7)
    values[::7] += 1e-6
    return folder_of(tmp_path / "second", values)


@pytest.mark.parametrize("scheme", PLACES)
def test_an_artifact_is_fetched_from_a_bucket(small, tmp_path, bucket, second, scheme):
    place = bucket(scheme)
    to, more = f"{place.url}/of orion", ["--origins", written(tmp_path, place.table)]
    first = push(small, "small@1", tmp_path / "a", "--to", to, *more)
    objects = {"of orion/artifacts/small/1", "of orion/latest/small", f"of orion/packs/{first['root']}"}
    assert set(place.paths()) == objects
    done = pulled(pull("small", tmp_path / "b", to, more=more), small)
    assert done["root"] == first["root"] and 0 < done["received_bytes"] <= first["encoded_bytes"]
    packs = [range for path, range in place.reads() if "/packs/" in path]
    assert len(packs) > 1 or scheme == "file"
    assert scheme in ("file", "az") or sum(end - start for start, end in packs) == done["received_bytes"]
    last = push(second, "small@2", tmp_path / "a", "--base", "small@1", "--to", to, *more)
    new = {"of orion/artifacts/small/2", f"of orion/packs/{last['root']}", f"of orion/differences/{last['root']}"}
    assert set(place.paths()) == objects | new
    done = pulled(pull("small", tmp_path / "b", to, more=more), second)
    assert done["version"] == "2" and done["received_bytes"] < last["encoded_bytes"] / 2
    pulled(pull("small@1", tmp_path / "c", to, more=more), small)
    error = refused("none@1", tmp_path / "d", to, more=more)
    assert "none" in error and place.url in error


def test_a_bucket_and_a_node_give_at_once(small, tmp_path, copy, other, bucket, monkeypatch):
    place = bucket("s3")
    more = ["--origins", written(tmp_path, place.table)]
    push(small, "small@1", tmp_path / "a", "--to", place.url, *more)
    node = other(copy, has=range(len(copy.artifact.chunks) // 2))

    def wait(request):
        if "/packs/" in request.path:
            serving.until(lambda: node.wants, "a chunk that the node is asked for")

    monkeypatch.setattr(place.moto, "before", wait)
    pulled(pull("small", tmp_path / "b", place.url, node.address, more=more), small)
    read = sum(range[1] - range[0] for _, range in place.reads() if range)
    # What comes last may come from both.
    assert read > 0 and node.sent + read <= 1.5 * sum(map(len, copy.chunks[peers.ENCODED].values()))


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_damage_in_a_bucket_is_refused(small, tmp_path, seed, copy, bucket, harm):
    place = bucket("file")
    root = push(small, "small@1", tmp_path / "a", "--to", place.url)["root"]
    pack = place.folder / "packs" / root
    chunk = next(n for n, one in enumerate(copy.artifact.chunks) if one.bytes > 100_000 and one.HasField("encoded"))
    if harm == "flipped":
        flip(pack, copy.artifact.in_pack(chunk) + 1000)
    else:
        pack.write_bytes(pack.read_bytes()[:1_000_000]) if harm == "cut" else pack.unlink()
    refused("small", tmp_path / "b", place.url)
    pulled(pull("small", tmp_path / "b", place.url, seed.address), small)
    assert not said("cache", "verify", "--store", tmp_path / "b")[0]["damaged"]


def test_an_artifact_is_believed_by_its_signature_and_name(small, tmp_path, bucket):
    place, good, bad = bucket("file"), keys(tmp_path, "good"), keys(tmp_path, "bad")
    for name, by in (("good@1", ["--sign", good[0]]), ("bad@1", ["--sign", bad[0]]), ("unsigned@1", [])):
        push(small / "more", name, tmp_path / "a", "--to", place.url, *by)
    trust = ["--trust", good[1]]
    assert "not trusted" in refused("bad", tmp_path / "b", place.url, more=trust)
    assert "not signed" in refused("unsigned", tmp_path / "b", place.url, more=trust)
    assert "signed" in not_brought(small / "more", tmp_path / "b", *trust)
    place.put("artifacts/good/2", place.get("artifacts/good/1"))
    place.put("artifacts/bad/1", place.get("artifacts/good/1"))
    for name in ("good@2", "bad@1"):
        refused(name, tmp_path / "b", place.url, more=trust)
    place.put("artifacts/unsigned/1", place.get("artifacts/unsigned/1")[:-3])
    refused("unsigned@1", tmp_path / "b", place.url)
    assert pulled(pull("good", tmp_path / "b", place.url, more=trust), small / "more")["signed"]


# Networks that deliver contents.


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.__name__)
def test_contents_come_by_signed_urls(small, tmp_path, bucket, scheme):
    place = bucket("s3")
    push(small, "small@1", tmp_path / "a", "--to", f"{place.url}/orion", "--origins", written(tmp_path, place.table))
    with Cdn(scheme) as cdn:
        for path, one in contents(small).items():
            place.put(f"models/small/{path}", one)
        for path in place.paths():
            cdn.put(f"/edge/{path}", place.get(path))
        reads = place.reads()
        more = ["--origins", written(tmp_path, place.table | cdn.table)]
        done = pulled(brought(f"{place.url}/models/small", tmp_path / "b", *more), small)
        assert sum(one.sent for one in cdn.reads()) == done["received_bytes"]
        pulled(pull("small", tmp_path / "c", f"{place.url}/orion", more=more), small)
        assert place.reads() == reads and all(one.query for one in cdn.requests)
        cdn.is_open = False
        error = not_brought(f"{place.url}/models/small", tmp_path / "d", *more)
        error += refused("small", tmp_path / "d", f"{place.url}/orion", more=more)
        assert cdn.table["key"] not in error and not any(one.query in error for one in cdn.requests), error


def test_a_network_may_need_no_signature(small, tmp_path, bucket):
    place = bucket("s3")
    place.put("m/config.json", b"{}")
    with Web({"/edge/m/config.json": b"{}"}) as cdn:
        file = written(tmp_path, place.table | {"cdn": f"{cdn.url}/edge/"})
        done = brought(f"{place.url}/m/", tmp_path / "a", "--origins", file)
    assert contents(done["folder"]) == {"config.json": b"{}"} and place.reads() == []


def test_contents_come_by_a_shared_access_signature(small, tmp_path, bucket, azurite):
    place = bucket("az")
    push(small, "small@1", tmp_path / "a", "--to", place.url, "--origins", written(tmp_path, place.table))
    pushed = len(place.reads())
    cdn = {"cdn": f"{azurite.url}/{place.name}", "sign": "azure", "key": ACCOUNT_KEY, "key_id": "account"}
    pulled(pull("small", tmp_path / "b", place.url, more=["--origins", written(tmp_path, place.table | cdn)]), small)
    reads = place.reads()[pushed:]
    assert len(reads) > 2 and all("sig=" in query for _, query in reads)
    wrong = written(tmp_path, place.table | cdn | {"key": ACCOUNT_KEY[::-1].lstrip("=")})
    refused("small", tmp_path / "c", place.url, more=["--origins", wrong])


@pytest.mark.parametrize(
    "named, said", [("endpont", {"endpont": "x"}), ("aws_regoin", {"options": {"aws_regoin": "x"}})]
)
def test_what_is_wrong_in_an_origins_file_is_named(tmp_path, named, said):
    file = written(tmp_path, {"url": "s3://models", **said})
    assert named in not_brought("s3://models/m/", tmp_path / "a", "--origins", file)
