"""Origins of models of these tests' own: web servers, hubs and networks that deliver contents."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.server
import itertools
import json
import os
import re
import threading
import time
import urllib.parse

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from stores import FAILED, listed, orion, said

PART = 8 << 20
WEIGHTS = (".safetensors", ".gguf", ".onnx", ".bin", ".h5", ".msgpack")


def written(folder, table):
    """An origins file of one table."""
    path = folder / f"origins-{len(os.listdir(folder))}.toml"
    own = {key: value for key, value in table.items() if key != "options"}
    options = {f"options.{key}": value for key, value in table.get("options", {}).items()}
    lines = [f"{key} = {json.dumps(value)}" for key, value in (own | options).items()]
    path.write_text("\n".join(["[[origin]]", *lines]))
    return path


def brought(url, store, *more):
    return said("pull", url, "--store", store, *more)


def not_brought(url, store, *more):
    """What a pull that must fail says; nothing of it may be in the store."""
    error = orion("pull", url, "--store", store, *more, status=FAILED).stderr
    assert listed(store) == [] and "panicked" not in error, error
    return error


class Request:
    """What a server was asked, and what it answered."""

    def __init__(self, method, target, headers):
        self.method, self.target, self.headers = method, target, headers
        path, _, self.query = target.partition("?")
        self.path = urllib.parse.unquote(path)
        ranged = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
        self.range = ranged and (int(ranged[1]), int(ranged[2]) + 1)
        self.start = self.range[0] if self.range else 0
        self.status = self.sent = 0
        # What `before` may set: a status to answer with, or after how many bytes the connection ends.
        self.fails = self.ends = None


class File:
    """A file's contents, with what tells that they are others."""

    numbers = itertools.count(1)

    def __init__(self, contents):
        self.contents, self.tag = contents, f'"{hashlib.md5(contents).hexdigest()}"'
        self.modified = email.utils.formatdate(1.7e9 + 60 * next(self.numbers), usegmt=True)


class Web:
    """A server of files that keeps what it was asked. Its habits are what it does not do as others: `no ranges`,
    `no tags`, `weak tags` (that no If-Match fits), `no conditions` (nobody looks at If-Match), `no HEAD`. Something may
    happen `before` and `after` an answer with contents."""

    def __init__(self, files=(), habits=()):
        self.files, self.habits, self.requests = {}, set(habits), []
        self.before = self.after = lambda request: None
        for path, contents in dict(files).items():
            self.put(path, contents)
        handler = type("Handler", (Handler,), {"owner": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.address}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def put(self, path, contents):
        self.files[path] = File(contents)

    def reads(self, path=""):
        """Requests for contents that were answered."""
        return [one for one in self.requests if one.method == "GET" and one.status in (200, 206) and path in one.path]

    def sent(self):
        return sum(one.sent for one in self.requests)

    def answer(self, request):
        """Status, headers and body."""
        file = self.files.get(request.path)
        if file is None:
            return 404, {}, b"no such file"
        if request.method == "HEAD" and "no HEAD" in self.habits:
            return 403, {}, b""
        if request.method == "GET":
            self.before(request)
            if request.fails:
                return request.fails, {}, b"not now"
            file = self.files[request.path]
        length = len(file.contents)
        headers = {"Last-Modified": file.modified, "Content-Type": "application/octet-stream"}
        if "no tags" not in self.habits:
            headers["ETag"] = ("W/" if "weak tags" in self.habits else "") + file.tag
        if request.headers.get("If-Match", file.tag) != file.tag and not {"no conditions", "no tags"} & self.habits:
            return 412, headers, b"it is another now"
        if "no ranges" in self.habits:
            return 200, headers, file.contents
        headers["Accept-Ranges"] = "bytes"
        if request.range is None:
            return 200, headers, file.contents
        start, end = request.start, min(request.range[1], length)
        if start >= end:
            return 416, {"Content-Range": f"bytes */{length}"}, b""
        return 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{length}"}, file.contents[start:end]


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        request = Request(self.command, self.path, self.headers)
        self.owner.requests.append(request)
        request.status, headers, body = self.owner.answer(request)
        with contextlib.suppress(ConnectionError):
            self.send_response(request.status)
            if "Transfer-Encoding" in headers:
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            else:
                self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            body = body[: request.ends] if self.command == "GET" else b""
            self.close_connection |= request.ends is not None
            for start in range(0, len(body), 1 << 16):
                piece = body[start : start + (1 << 16)]
                # Before who reads it has it.
                request.sent += len(piece)
                self.wfile.write(piece)
        if request.method == "GET":
            self.owner.after(request)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def git_blob(contents):
    return hashlib.sha1(b"blob %d\0" % len(contents) + contents).hexdigest()


class Hub(Web):
    """A hub as Hugging Face's: an API, small files, and a server of another address for those that are large. With the
    habit `no lengths` its API does not say how long its answers are."""

    def __init__(self, token=None, status=None):
        super().__init__()
        self.token, self.status, self.repositories, self.large = token, status, {}, Web()
        self.change = lambda api: api

    def __enter__(self):
        self.large.__enter__()
        return super().__enter__()

    def __exit__(self, *_):
        self.large.__exit__()
        super().__exit__()

    def commit(self, repository, files, revision="main"):
        """The commit under which these files are there."""
        commit = hashlib.sha1(repr(sorted((path, git_blob(one)) for path, one in files.items())).encode()).hexdigest()
        self.repositories.setdefault(repository, {}).update({revision: commit, commit: commit})
        for path, contents in files.items():
            self.put(f"/{repository}/{commit}/{path}", contents)
            self.large.put(f"/lfs/{hashlib.sha256(contents).hexdigest()}", contents)
        return commit

    def listed(self, repository, commit):
        """What the API says of a commit."""
        below, siblings = f"/{repository}/{commit}/", []
        for path, file in sorted(self.files.items()):
            if path.startswith(below):
                size, own = len(file.contents), hashlib.sha256(file.contents).hexdigest()
                pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{own}\nsize {size}\n".encode()
                one = {"rfilename": path.removeprefix(below), "size": size, "blobId": git_blob(file.contents)}
                if path.endswith(WEIGHTS):
                    large = {"sha256": own, "size": size, "pointerSize": len(pointer)}
                    one |= {"blobId": git_blob(pointer), "lfs": large}
                siblings.append(one)
        return {"id": repository, "modelId": repository, "private": False, "sha": commit, "siblings": siblings}

    def answer(self, request):
        if self.status or self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self.status or 401, {}, b'{"error":"Invalid username or password."}'
        if asked := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^?]+)", request.path):
            commit = self.repositories.get(asked[1], {}).get(asked[2])
            if commit is None:
                return 404, {}, b'{"error":"Repository not found"}'
            headers = {"Transfer-Encoding": "chunked"} if "no lengths" in self.habits else {}
            return 200, headers, json.dumps(self.change(self.listed(asked[1], commit))).encode()
        if asked := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.path):
            commit = self.repositories.get(asked[1], {}).get(asked[2])
            file = self.files.get(f"/{asked[1]}/{commit}/{asked[3]}")
            if file is None:
                return 404, {}, b"Entry not found"
            own = hashlib.sha256(file.contents).hexdigest()
            linked = {"X-Repo-Commit": commit, "X-Linked-Size": len(file.contents), "Content-Type": "text/plain"}
            if asked[3].endswith(WEIGHTS):
                to = {"Location": f"{self.large.url}/lfs/{own}?signed=lfs-secret", "X-Linked-ETag": f'"{own}"'}
                return 302, linked | to, b"Found. Redirecting"
            to = f"/api/resolve-cache/models/{asked[1]}/{commit}/{urllib.parse.quote(asked[3], safe='')}"
            return 307, linked | {"Location": to, "ETag": f'"{git_blob(file.contents)}"'}, b"Temporary Redirect"
        if asked := re.fullmatch(r"/api/resolve-cache/models(/[^/]+/[^/]+/([^/]+)/.+)", request.path):
            request.path = asked[1]
            status, headers, body = super().answer(request)
            return status, headers | {"X-Repo-Commit": asked[2]}, body
        return 404, {}, b"not found"


# Networks that deliver contents: the query with which each lets in at a time.

SECRET = b"\xfb\xefof a test\xff"
RSA = rsa.generate_private_key(65537, 2048)
PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())


def mac(hash, key, text):
    return hmac.new(key, text.encode(), hash)


def cloudflare(url, path, time):
    code = base64.b64encode(mac("sha256", b"a secret/of+the test", path + time).digest())
    return f"verify={time}-{urllib.parse.quote(code, safe='')}"


def fastly(url, path, time):
    return f"token={time}_{mac('sha1', SECRET, path + time).hexdigest()}"


def google(url, path, time):
    code = mac("sha1", SECRET, f"{url}{path}?Expires={time}&KeyName=of-test").digest()
    return f"Expires={time}&KeyName=of-test&Signature={base64.urlsafe_b64encode(code).decode()}"


def cloudfront(url, path, time):
    resource = {"Resource": url + path, "Condition": {"DateLessThan": {"AWS:EpochTime": int(time)}}}
    policy = json.dumps({"Statement": [resource]}, separators=(",", ":")).encode()
    code = base64.b64encode(RSA.sign(policy, padding.PKCS1v15(), hashes.SHA1())).decode()
    return f"Expires={time}&Signature={code.translate(str.maketrans('+=/', '-_~'))}&Key-Pair-Id=of-test"


def custom(url, path, time):
    return f"expires={time}&signature={mac('sha256', b'another secret', path + time).hexdigest()}"


SCHEMES = {
    cloudflare: "a secret/of+the test",
    fastly: base64.b64encode(SECRET).decode(),
    google: base64.urlsafe_b64encode(SECRET).decode(),
    cloudfront: RSA.private_bytes(*PEM).decode(),
    custom: "another secret",
}


class Cdn(Web):
    """A network that gives out what is asked for with a signed URL."""

    def __init__(self, scheme, seconds=600):
        super().__init__()
        self.scheme, self.seconds, self.is_open = scheme, seconds, True
        own = {"sign": scheme.__name__, "key": SCHEMES[scheme], "key_id": "of-test", "seconds": seconds}
        self.table = {"cdn": f"{self.url}/edge", **own}

    def answer(self, request):
        path, _, query = request.target.partition("?")
        if self.is_open and (said := re.search(r"\b\d{10,11}\b", query.replace("_", "-"))):
            left = int(said[0]) - time.time() + (self.seconds if self.scheme is cloudflare else 0)
            if query == self.scheme(self.url, path, said[0]) and 0 < left <= self.seconds:
                return super().answer(request)
        return 403, {}, b"not signed"
