"""The peers' protocol made by hand from its .proto files: who fetches, and who serves honestly or not."""

import concurrent.futures
import pathlib
import queue
import tempfile
import threading

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

import hashes
import serving

RAW, ENCODED = 0, 1
PIECE_BYTES = 48 * 1024
TIMEOUT = 60


def messages():
    """The classes of peer.proto and artifact.proto, by their last names."""
    names = ["peer.proto", "artifact.proto"]
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "descriptors"
        source = serving.ROOT / "proto" / "wire"
        assert protoc.main(["protoc", f"-I{source}", "--include_imports", f"--descriptor_set_out={out}", *names]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    found = message_factory.GetMessageClassesForFiles(names, pool)
    return {name.rpartition(".")[2]: kind for name, kind in found.items()}


MESSAGES = messages()
METHODS = {
    "List": ("unary_unary", "ListRequest", "ListResponse"),
    "Find": ("unary_stream", "FindRequest", "Part"),
    "Download": ("stream_stream", "FromReceiver", "FromSender"),
    "Upload": ("stream_stream", "FromSender", "FromReceiver"),
}


def receiver(**fields):
    return MESSAGES["FromReceiver"](**fields)


def sender(**fields):
    return MESSAGES["FromSender"](**fields)


def bits(chunks, count):
    """A bitmap."""
    out = bytearray((count + 7) // 8)
    for chunk in chunks:
        out[chunk // 8] |= 1 << chunk % 8
    return bytes(out)


class Artifact:
    """What Find gives, and its chunks as peers number them."""

    def __init__(self, encoded):
        self.encoded = encoded
        self.message = MESSAGES["Artifact"].FromString(encoded)
        self.manifest = MESSAGES["Manifest"].FromString(self.message.manifest)
        self.root = hashes.digest(self.message.manifest)
        first = {}
        for file in self.manifest.files:
            start = 0
            for chunk in file.chunks:
                first.setdefault(chunk.address, (chunk, file.path, start))
                start += chunk.bytes
        self.chunks = [chunk for chunk, _, _ in first.values()]
        self.places = [place for _, *place in first.values()]

    def in_pack(self, chunk):
        """Where a chunk begins among all as they were encoded."""
        return sum(one.encoded.bytes for one in self.chunks[:chunk] if one.HasField("encoded"))

    def wire(self, chunk, form):
        """How many bytes a chunk takes, and their hash."""
        one = self.chunks[chunk]
        return (one.encoded.bytes, one.encoded.hash) if form == ENCODED else (one.bytes, one.address)


def made(name, version, files, chunk_bytes=1 << 16, **fields):
    """A manifest of (path, contents), each contents one chunk, that nobody published."""
    manifest = MESSAGES["Manifest"](name=name, version=version, chunk_bytes=chunk_bytes, **fields)
    for path, contents in files:
        manifest.files.add(path=path).chunks.add(bytes=len(contents), address=hashes.digest(contents))
    return manifest


def artifact(manifest):
    return Artifact(MESSAGES["Artifact"](manifest=manifest.SerializeToString()).SerializeToString())


class Client:
    """One connection to a node."""

    def __init__(self, address, token=None):
        self.channel = grpc.insecure_channel(address)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def call(self, method, request):
        """An answer, or the stream of them. What is bytes is sent as it is."""
        kind, _, answer = METHODS[method]
        call = getattr(self.channel, kind)(
            f"/orion.peer.v1.Peer/{method}",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=MESSAGES[answer].FromString,
        )
        return call(request, timeout=TIMEOUT, metadata=self.metadata)

    def list(self):
        return self.call("List", MESSAGES["ListRequest"]()).artifacts

    def find(self, name="", version="", root=b""):
        parts = self.call("Find", MESSAGES["FindRequest"](name=name, version=version, root=root))
        return Artifact(b"".join(part.bytes for part in parts))

    def begin(self, artifact, address="", has=()):
        return receiver(begin={"root": artifact.root, "bitmap": bits(has, len(artifact.chunks)), "address": address})

    def download(self, artifact, form=RAW, wanted=None, address="", peers=None):
        """Chunks of an artifact by their numbers, checked; those that are not wanted are said to be here."""
        wanted = set(range(len(artifact.chunks))) if wanted is None else set(wanted)
        out, here, coming = queue.Queue(), {}, {}
        out.put(self.begin(artifact, address, set(range(len(artifact.chunks))) - wanted))
        answers = self.call("Download", iter(out.get, None))
        assert next(answers).begin.root == artifact.root
        for answer in answers:
            kind = answer.WhichOneof("message")
            if kind == "turn":
                rest = wanted - here.keys() - coming.keys()
                chunk = min(rest, default=None)
                if chunk is None:
                    out.put(receiver(**{"pass": {}}))
                    continue
                own = form if artifact.chunks[chunk].HasField("encoded") else RAW
                coming[chunk] = (own, bytearray())
                out.put(receiver(want={"chunk": chunk, "form": own}))
            elif kind == "piece":
                piece = answer.piece
                out.put(receiver(credit={"bytes": len(piece.bytes)}))
                own, data = coming[piece.chunk]
                assert piece.start == len(data)
                data += piece.bytes
                length, hash = artifact.wire(piece.chunk, own)
                assert len(data) <= length
                if len(data) == length:
                    assert hashes.digest(bytes(data)) == hash, f"chunk {piece.chunk}"
                    here[piece.chunk] = bytes(data)
                    out.put(receiver(have={"chunks": [piece.chunk]}))
            elif kind == "peers" and peers is not None:
                peers.extend(answer.peers.addresses)
            if here.keys() == wanted:
                break
        out.put(None)
        answers.cancel()
        return here


class Copy:
    """An artifact with all its chunks, from a node that is believed."""

    def __init__(self, address, name):
        with Client(address) as client:
            self.artifact = client.find(name)
            self.chunks = {form: client.download(self.artifact, form) for form in (RAW, ENCODED)}


class Honest:
    """How a server answers; others do otherwise."""

    def artifact(self, artifact):
        return artifact.encoded

    def pieces(self, chunk, data):
        """The messages of one chunk; ends with StopServing to leave."""
        for start in range(0, len(data), PIECE_BYTES):
            yield sender(piece={"chunk": chunk, "start": start, "bytes": data[start : start + PIECE_BYTES]})


class Leave(Exception):
    """A server ends the connection."""


class Server:
    """Serves one artifact; the chunks are a Copy's. It counts the bytes that it sent and keeps what it was told."""

    def __init__(self, copy, behaviour=None, has=None):
        self.copy, self.behaviour = copy, behaviour or Honest()
        count = len(copy.artifact.chunks)
        self.has = range(count) if has is None else has
        self.sent, self.wants, self.begins, self.ended = 0, 0, [], threading.Event()
        pool = concurrent.futures.ThreadPoolExecutor(32, thread_name_prefix="peer")
        self.server = grpc.server(pool)
        handlers = {}
        for method, (kind, request, _) in METHODS.items():
            if handle := getattr(self, method.lower(), None):
                handlers[method] = getattr(grpc, f"{kind}_rpc_method_handler")(
                    handle,
                    request_deserializer=MESSAGES[request].FromString,
                    response_serializer=lambda message: (
                        message if isinstance(message, bytes) else message.SerializeToString()
                    ),
                )
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("orion.peer.v1.Peer", handlers)])
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.server.stop(0).wait()

    def find(self, request, _):
        encoded = self.behaviour.artifact(self.copy.artifact)
        for at in range(0, len(encoded), PIECE_BYTES):
            yield MESSAGES["Part"](bytes=encoded[at : at + PIECE_BYTES])

    def download(self, requests, context):
        """Turns one after the other: the next when the last was answered, and after a pass when something changed."""
        first = next(requests).begin
        self.begins.append(first)
        count = len(self.copy.artifact.chunks)
        yield sender(begin={"root": self.copy.artifact.root, "bitmap": bits(self.has, count)})
        yield sender(turn={})
        granted = True
        for request in requests:
            kind = request.WhichOneof("message")
            if kind == "want":
                self.wants += 1
                data = (
                    self.copy.chunks[request.want.form].get(request.want.chunk)
                    or self.copy.chunks[RAW][request.want.chunk]
                )
                try:
                    for piece in self.behaviour.pieces(request.want.chunk, data):
                        self.sent += len(piece.piece.bytes) if not isinstance(piece, bytes) else len(piece)
                        yield piece
                except Leave:
                    return
                yield sender(turn={})
            elif kind == "pass":
                granted = False
            elif kind in ("interested", "have") and not granted:
                granted = True
                yield sender(turn={})


class Liar(Honest):
    """One bit of each chunk is another."""

    def pieces(self, chunk, data):
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 4
        return super().pieces(chunk, bytes(flipped))


class After(Honest):
    """Honest for so many chunks and half of the next; then it does what `then` says."""

    def __init__(self, chunks, then):
        self.left, self.then, self.lock = chunks, then, threading.Lock()

    def pieces(self, chunk, data):
        with self.lock:
            self.left -= 1
            honest = self.left >= 0
        if honest:
            yield from super().pieces(chunk, data)
        else:
            yield sender(piece={"chunk": chunk, "start": 0, "bytes": data[: min(len(data) // 2, PIECE_BYTES)]})
            yield from self.then(chunk, data)


def stall(event):
    """Says no more until the event."""

    def then(chunk, data):
        event.wait(TIMEOUT)
        raise Leave
        yield

    return then


def leave(chunk, data):
    raise Leave
    yield


def out_of_turn(chunk, data):
    """A piece from further back than comes next."""
    yield sender(piece={"chunk": chunk, "start": len(data) - 1, "bytes": data[-1:]})


def too_long(chunk, data):
    yield sender(
        piece={"chunk": chunk, "start": min(len(data) // 2, PIECE_BYTES), "bytes": data + bytes(PIECE_BYTES)[:40000]}
    )


def unknown_chunk(chunk, data):
    """Chunks that there are none of; then nothing of what was wanted."""
    yield sender(piece={"chunk": 2**32 - 1, "start": 0, "bytes": data[:9]})
    yield sender(have={"chunks": [2**32 - 1, 7]})
    yield sender(gone={"chunk": 2**32 - 1})
    yield sender(coming={"chunk": 2**32 - 1})
    raise Leave


def begin_again(chunk, data):
    yield sender(begin={"root": b"x"})


def garbage(chunk, data):
    """No message at all."""
    yield b"\xff" * 64
