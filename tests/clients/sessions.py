"""A worker's session made by hand from the .proto file, as a stranger's worker would."""

import pathlib
import queue
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

import serving


def messages():
    """The classes of session.proto."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "descriptors"
        source = serving.ROOT / "proto" / "wire"
        status = protoc.main(["protoc", f"-I{source}", "--include_imports", f"--descriptor_set_out={out}", "session.proto"])
        assert status == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClassesForFiles(["session.proto"], pool)


MESSAGES = messages()


def hello(name, major=1, minor=0):
    message = MESSAGES["orion.session.v1.ToScheduler"]()
    message.hello.protocol_major, message.hello.protocol_minor, message.hello.name = major, minor, name
    message.hello.incarnation = 1
    message.hello.capability.devices.add(name="cpu0", kind="cpu")
    return message


def control(address, first):
    """Opens control, sends one message, and gives the scheduler's first."""
    to_worker = MESSAGES["orion.session.v1.ToWorker"]
    outgoing = queue.Queue()
    outgoing.put(first)
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(
            "/orion.session.v1.Session/Control",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=to_worker.FromString,
        )
        # The stream stays open while it waits, as a worker's does.
        answers = call(iter(outgoing.get, None), timeout=30)
        try:
            return next(answers)
        finally:
            outgoing.put(None)
            answers.cancel()
