"""Tensors of an ONNX file by name, read without the onnx package."""

import json
import struct

# Fields of ONNX's messages that lead to tensors.
GRAPH, INITIALIZER, NODE, ATTRIBUTE, BODY, VALUE, OUTPUT = 7, 5, 1, 5, 6, 5, 2
DIMS, ELEMENT, NAME, RAW = 1, 2, 8, 9
FLOAT32 = 1

# Of silero_vad.onnx: its network for 16 kHz is one branch of the graph.
BRANCH = "If_0_then_branch__Inline_0__"
SILERO = {
    "stft_conv.weight": "stft.forward_basis_buffer",
    **{f"conv{at + 1}.{part}": f"encoder.{at}.reparam_conv.{part}" for at in range(4) for part in ("weight", "bias")},
    **{f"lstm_cell.{part}_{of}": f"decoder.rnn.{part}_{of}" for part in ("weight", "bias") for of in ("ih", "hh")},
    "final_conv.weight": "decoder.decoder.2.weight",
    "final_conv.bias": "decoder.decoder.2.bias",
}


def write_silero_weights(sources, folder):
    """Silero VAD's network for 16 kHz, as safetensors: the package's own file of that format holds another training's."""
    found = tensors((sources / "silero_vad.onnx").read_bytes())
    header, values = {}, b""
    for name, source in SILERO.items():
        shape, data = found[BRANCH + source]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(values), len(values) + len(data)]}
        values += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + values)


def tensors(model):
    """Shape and bytes of each tensor of float32, those of nested graphs too, by the name of the value that it gives."""
    found = {}
    for field, graph in fields(model):
        if field == GRAPH:
            walk(graph, found)
    return found


def walk(graph, found):
    for field, inside in fields(graph):
        if field == INITIALIZER:
            keep(inside, None, found)
        elif field == NODE:
            parts = list(fields(inside))
            output = next((value.decode() for part, value in parts if part == OUTPUT), None)
            for part, attribute in parts:
                if part == ATTRIBUTE:
                    for kind, value in fields(attribute):
                        if kind == BODY:
                            walk(value, found)
                        elif kind == VALUE:
                            keep(value, output, found)


def keep(tensor, name, found):
    dims, element, raw = [], None, b""
    for field, value in fields(tensor):
        if field == DIMS:
            dims.extend([value] if isinstance(value, int) else varints(value))
        elif field == ELEMENT:
            element = value
        elif field == NAME:
            name = name or value.decode()
        elif field == RAW:
            raw = value
    if element == FLOAT32:
        found[name] = (dims, raw)


def fields(message):
    """The fields of a protobuf message: numbers as they are, everything else as bytes."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        wire = key & 7
        if wire == 0:
            value, at = varint(message, at)
        elif wire == 2:
            size, at = varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            size = {1: 8, 5: 4}[wire]
            value, at = message[at : at + size], at + size
        yield key >> 3, value


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def varints(data):
    at = 0
    while at < len(data):
        value, at = varint(data, at)
        yield value
