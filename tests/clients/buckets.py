"""Real servers of buckets, and folders: each place has a URL, what an origins file says of it, and what was read."""

import base64
import itertools
import json
import logging
import os
import re
import subprocess
import threading
import urllib.parse

import azure.storage.blob
import boto3
import moto.server
import pytest
import werkzeug.serving

import serving
from origins import Request

PLACES = ["file", "s3", "gs", "az"]
AZURITE = serving.TARGET / "azurite" / "node_modules/azurite/dist/src/blob/main.js"
# Of as many bytes as real ones have.
ACCOUNT_KEY = base64.b64encode(bytes(range(64))).decode()
NUMBERS = itertools.count(1)
# For boto3 and Azure's client; serving.environment says so to others.
os.environ |= {"NO_PROXY": "*", "no_proxy": "*"}


class Moto:
    """moto's S3 server. `before` it answers something may happen."""

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.inner = moto.server.DomainDispatcherApplication(moto.server.create_backend_app)
        self.requests, self.before = [], lambda request: None
        self.server = werkzeug.serving.make_server("127.0.0.1", 0, self.record, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        keys = {"aws_access_key_id": "key-of-test", "aws_secret_access_key": "secret-of-test"}
        self.client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)

    def record(self, environ, start):
        headers = {"Range": environ.get("HTTP_RANGE", ""), "Authorization": environ.get("HTTP_AUTHORIZATION", "")}
        # Google's clients write %2F where those of S3 write a slash, and moto knows one of them.
        target = urllib.parse.quote(environ["PATH_INFO"].encode("latin-1"))
        target += "?" + environ["QUERY_STRING"] if environ["QUERY_STRING"] else ""
        environ |= {"RAW_URI": target, "REQUEST_URI": target}
        if not headers["Authorization"].startswith("AWS4"):
            environ["HTTP_AUTHORIZATION"] = "AWS4-HMAC-SHA256 Credential=anybody/20260101/us-east-1/s3/aws4_request"
        self.requests.append(Request(environ["REQUEST_METHOD"], target, headers))
        self.before(self.requests[-1])
        return self.inner(environ, start)


class MotoBucket:
    """A bucket of moto's, spoken to as S3 or as Google's storage, whose XML is the same."""

    def __init__(self, moto, scheme):
        self.moto, self.name = moto, f"bucket-{next(NUMBERS)}"
        moto.client.create_bucket(Bucket=self.name)
        self.url = f"{scheme}://{self.name}"
        self.table = {"url": self.url, "endpoint": moto.url}
        if scheme == "s3":
            keys = {"aws_access_key_id": "key-in-file", "aws_secret_access_key": "secret-in-file"}
            self.table["options"] = keys | {"aws_region": "us-east-1"}
        else:
            account = {"gcs_base_url": moto.url, "disable_oauth": True, "client_email": "", "private_key_id": ""}
            self.table["options"] = {"google_service_account_key": json.dumps(account | {"private_key": ""})}

    def put(self, path, contents):
        self.moto.client.put_object(Bucket=self.name, Key=path, Body=contents)

    def get(self, path):
        return self.moto.client.get_object(Bucket=self.name, Key=path)["Body"].read()

    def paths(self):
        found = self.moto.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(one["Key"] for one in found)

    def reads(self):
        """Paths and ranges of what was read."""
        below = f"/{self.name}/"
        read = (one for one in self.moto.requests if one.method == "GET" and one.path.startswith(below))
        return [(one.path.removeprefix(below), one.range) for one in read if one.path != below]


class Azurite:
    """Azure's storage emulator."""

    def __init__(self, folder):
        self.log = folder / "azurite.log"
        options = ["--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
        with open(self.log, "wb") as out:
            accounts = serving.environment() | {"AZURITE_ACCOUNTS": f"account:{ACCOUNT_KEY}"}
            self.child = subprocess.Popen(["node", AZURITE, *options], stdout=out, stderr=out, env=accounts, cwd=folder)
        self.url = serving.until(self.listening, "Azurite") + "/account"
        said = f"BlobEndpoint={self.url};AccountName=account;AccountKey={ACCOUNT_KEY}"
        self.client = azure.storage.blob.BlobServiceClient.from_connection_string(said)

    def listening(self):
        assert self.child.poll() is None, self.log.read_text()
        found = re.search(r"listens on (\S+)", self.log.read_text())
        return found and found[1]

    def stop(self):
        self.child.kill()
        self.child.wait()


class AzuriteBucket:
    """A container of Azurite's."""

    def __init__(self, azurite):
        self.azurite, self.name = azurite, f"container{next(NUMBERS)}"
        self.client = azurite.client.create_container(self.name)
        self.url = f"az://{self.name}"
        account = {"azure_storage_account_name": "account", "azure_storage_account_key": ACCOUNT_KEY}
        self.table = {"url": self.url, "endpoint": azurite.url, "options": account}

    def put(self, path, contents):
        self.client.upload_blob(path, contents, overwrite=True)

    def get(self, path):
        return self.client.download_blob(path).readall()

    def paths(self):
        return sorted(self.client.list_blob_names())

    def reads(self):
        """Paths and queries of what was read."""
        last = f"last-{next(NUMBERS)}"
        self.client.get_blob_client(last).exists()
        serving.until(lambda: last in self.azurite.log.read_text(), "Azurite's log")
        below = re.escape(f"{urllib.parse.urlsplit(self.azurite.url).path}/{self.name}/")
        found = re.findall(rf'"GET {below}([^ ?]+)\??(\S*) HTTP', self.azurite.log.read_text())
        return [(urllib.parse.unquote(path), query) for path, query in found]


class Folder:
    """A folder of this machine's."""

    def __init__(self, folder):
        self.folder, self.url, self.table = folder, f"file://{folder}", {"url": f"file://{folder}"}
        folder.mkdir()

    def put(self, path, contents):
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)

    def get(self, path):
        return (self.folder / path).read_bytes()

    def reads(self):
        return []

    def paths(self):
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def nobodys(monkeypatch):
    """Without what the developer's environment says of origins."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "HF_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def s3():
    server = Moto()
    yield server
    server.server.shutdown()


@pytest.fixture(scope="session")
def azurite(tmp_path_factory):
    if not AZURITE.is_file():
        missing = "Azurite, which scripts/test installs with npm, is missing"
        (pytest.fail if os.environ.get("ORION_TEST_AZURITE") else pytest.skip)(missing)
    server = Azurite(tmp_path_factory.mktemp("azurite"))
    yield server
    server.stop()


@pytest.fixture
def bucket(request, tmp_path):
    """Makes buckets by the schemes of their URLs."""

    def made(scheme):
        if scheme == "az":
            return AzuriteBucket(request.getfixturevalue("azurite"))
        if scheme == "file":
            return Folder(tmp_path / f"bucket-{len(os.listdir(tmp_path))}")
        return MotoBucket(request.getfixturevalue("s3"), scheme)

    return made
