"""Messages of the Open Inference Protocol over gRPC as bytes: encoded once, sent many times, with nothing beside grpcio."""

import struct

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
# Neither tries a call again by itself: what is sent twice was sent by Orion.
CHANNEL_OPTIONS = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, payload):
    """A field that has a length: text, bytes or a message."""
    payload = payload.encode() if isinstance(payload, str) else payload
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def parameter(name, value):
    """An entry of a request's `parameters`: a boolean or a whole number."""
    kind = 1 if isinstance(value, bool) else 2
    return field(4, field(1, name) + field(2, varint(kind << 3) + varint(int(value))))


def head(model, inputs, parameters):
    """All of a request but its id and its tensors' bytes. Inputs are (name, datatype, shape)."""
    shaped = [field(1, name) + field(2, kind) + field(3, b"".join(map(varint, shape))) for name, kind, shape in inputs]
    told = b"".join(parameter(name, value) for name, value in parameters.items())
    return field(1, model) + told + b"".join(field(5, one) for one in shaped)


def request(of_head, identifier, *tensors):
    return of_head + field(3, identifier) + b"".join(field(7, tensor) for tensor in tensors)


def text_tensor(text):
    """A BYTES tensor of one element."""
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def fields(message):
    """(number, value) of each field: bytes where it has a length, else a whole number."""
    at, end = 0, len(message)

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < end:
        tag = number()
        if tag & 7 == 2:
            length = number()
            yield tag >> 3, message[at : at + length]
            at += length
        elif tag & 7 == 0:
            yield tag >> 3, number()
        else:
            width = {1: 8, 5: 4}[tag & 7]
            yield tag >> 3, message[at : at + width]
            at += width


def answer(message):
    """(id, bytes of the first output) of a ModelInferResponse."""
    identifier, tensor = "", b""
    for number, value in fields(message):
        if number == 3:
            identifier = value.decode()
        elif number == 6 and not tensor:
            tensor = value
    return identifier, tensor


def streamed_answer(message):
    """(error message or "", id, bytes of the first output) of a ModelStreamInferResponse."""
    error, inner = "", b""
    for number, value in fields(message):
        if number == 1:
            error = value.decode()
        elif number == 2:
            inner = value
    return error, *answer(inner)
