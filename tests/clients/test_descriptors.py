"""Our wire is Triton's wire: the descriptors that the server reflects agree with those that tritonclient carries."""

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import model_config_pb2, service_pb2


def messages(container):
    """Every message of a file, the nested ones too."""
    own = "message_types_by_name" if hasattr(container, "message_types_by_name") else "nested_types_by_name"
    for message in getattr(container, own).values():
        yield message
        yield from messages(message)


def face(field):
    """What of a field the wire shows."""
    kind = field.message_type or field.enum_type
    return field.number, field.type, field.is_repeated, kind.name if kind else None


def counterpart(ours, theirs):
    """Our message of that name. Where it is nested is not on the wire, so ours may stand at the top."""
    return ours.get(theirs.full_name) or ours.get(f"{theirs.file.package}.{theirs.name}")


def reflected(server, channel):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    return pool, pool.FindServiceByName("inference.GRPCInferenceService")


def test_fields_have_tritons_numbers(server):
    compared, wrong = 0, []
    with grpc.insecure_channel(server.grpc) as channel:
        _, service = reflected(server, channel)
        files = [service.file, *service.file.dependencies]
        known = {message.full_name: message for file in files for message in messages(file)}
        for theirs in (m for file in (service_pb2, model_config_pb2) for m in messages(file.DESCRIPTOR)):
            ours = counterpart(known, theirs)
            if ours is None:
                continue
            for name, field in theirs.fields_by_name.items():
                if name not in ours.fields_by_name:
                    continue
                compared += 1
                got, wanted = face(ours.fields_by_name[name]), face(field)
                if got != wanted:
                    wrong.append(f"{theirs.full_name}.{name}: {got}, Triton has {wanted}")
            taken = {field.number: name for name, field in theirs.fields_by_name.items()}
            for name, field in ours.fields_by_name.items():
                if taken.get(field.number, name) != name:
                    wrong.append(f"{ours.full_name}.{name} has the number of Triton's {taken[field.number]}")
    assert not wrong, "\n".join(wrong)
    assert compared > 100


def test_methods_have_tritons_shape(server):
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    with grpc.insecure_channel(server.grpc) as channel:
        ours = reflected(server, channel)[1]
        served = {method.name: (method.client_streaming, method.server_streaming) for method in ours.methods}
    for name in (
        "ServerLive ServerReady ModelReady ServerMetadata ModelMetadata ModelInfer ModelStreamInfer ModelConfig "
        "ModelStatistics RepositoryIndex RepositoryModelLoad RepositoryModelUnload"
    ).split():
        wanted = theirs.methods_by_name[name]
        assert served[name] == (wanted.client_streaming, wanted.server_streaming), name


def test_datatypes_have_tritons_numbers(server):
    with grpc.insecure_channel(server.grpc) as channel:
        ours = reflected(server, channel)[0].FindEnumTypeByName("inference.DataType").values_by_name
        theirs = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
        assert {name: value.number for name, value in ours.items()} == {name: v.number for name, v in theirs.items()}
