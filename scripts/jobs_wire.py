"""A client of orion.v1.Jobs, made of what the server reflects. Needs grpcio, grpcio-reflection and numpy."""

import grpc
import numpy as np
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Jobs:
    """The jobs of the scheduler at a gRPC address."""

    NAME = "orion.v1.Jobs"

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", 128 << 20)])
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.service = self.pool.FindServiceByName(self.NAME)

    def message(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))

    def call(self, name, kind="unary_unary"):
        method = self.service.methods_by_name[name]
        answer = message_factory.GetMessageClass(method.output_type)
        return getattr(self.channel, kind)(
            f"/{self.NAME}/{name}", request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString
        )

    def spec(self, values, model="identity", **fields):
        """A submission of one row for INPUT0."""
        spec = self.message("orion.v1.JobSpec")(**fields)
        array = np.asarray([values], np.float32)
        spec.inference.model_name = model
        given = spec.inference.inputs.add(name="INPUT0", datatype="FP32")
        given.shape.extend(array.shape)
        spec.inference.raw_input_contents.append(array.tobytes())
        return self.message("orion.v1.SubmitJobRequest")(spec=spec)

    def submit(self, values, **fields):
        return self.call("Submit")(self.spec(values, **fields), timeout=30).id

    def asked(self, job, **fields):
        return self.message("orion.v1.GetJobRequest")(id=job, **fields)

    def get(self, job, **fields):
        return self.call("Get")(self.asked(job, **fields), timeout=30)

    def watch(self, job):
        return list(self.call("Watch", "unary_stream")(self.asked(job), timeout=60))

    def result(self, job):
        return self.values(self.call("Result")(self.asked(job), timeout=30))

    def values(self, result):
        """The row that a job's result holds."""
        return np.frombuffer(result.inference.raw_output_contents[0], np.float32).tolist()

    def list(self, **fields):
        return self.call("List")(self.message("orion.v1.ListJobsRequest")(**fields), timeout=30)


class Files(Jobs):
    """The files of the scheduler at a gRPC address."""

    NAME = "orion.v1.Files"

    def put(self, messages):
        asked = [self.message("orion.v1.PutFileRequest")(**fields) for fields in messages]
        return self.call("Put", "stream_unary")(iter(asked), timeout=30)

    def read(self, file):
        asked = self.message("orion.v1.ReadFileRequest")(id=file)
        return b"".join(piece.piece for piece in self.call("Read", "unary_stream")(asked, timeout=30))
