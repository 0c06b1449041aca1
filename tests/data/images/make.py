"""Writes the words beside it, the small models in ../models, and what other implementations make of them, in ../expected.

    pip install torch torchvision transformers pillow efficientnet-lite-pytorch nano-ocr && python make.py MODELS

MODELS is where scripts/fetch-models has put efficientnet-lite0.
"""

import json
import pathlib
import sys

import efficientnet_lite_pytorch
import nano_ocr
import numpy
import torch
import torchvision
import transformers
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

HERE = pathlib.Path(__file__).parent
PHOTOS = ("flower.jpg", "china.jpg", "chelsea.png")
# Text, size of the font, size of the image, format, mode.
WORDS = (
    ("hello", 24, (96, 40), "png", "RGB"),
    ("Orion", 40, (160, 64), "png", "L"),
    ("2026", 20, (60, 30), "png", "RGBA"),
    ("Total", 30, (128, 32), "jpg", "RGB"),
    ("invoice", 52, (300, 90), "jpg", "L"),
    ("No. 17-b", 22, (110, 36), "png", "L"),
    ("Bookkeeper", 18, (128, 32), "webp", "RGB"),
)
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"


def write(name: str, value) -> None:
    (HERE.parent / "expected" / name).write_text(json.dumps(value) + "\n")


def rounded(tensor: torch.Tensor) -> list:
    return [round(value, 5) for value in tensor.flatten().tolist()]


def square(image: Image.Image, side: int) -> torch.Tensor:
    """The square in the middle of an image, as EfficientNet-Lite takes it."""
    shorter = min(image.size)
    left, top = ((size - shorter) // 2 for size in image.size)
    part = image.crop((left, top, left + shorter, top + shorter)).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy((numpy.asarray(part, dtype="f") - 127) / 128).permute(2, 0, 1)


@torch.inference_mode()
def efficientnet(models: pathlib.Path) -> None:
    network = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(load_file(models / "efficientnet-lite0" / "model.safetensors"))
    labels = (models / "efficientnet-lite0" / "labels.txt").read_text().splitlines()
    expected = {}
    for photo in PHOTOS:
        logits = network(square(Image.open(HERE / photo).convert("RGB"), 224)[None])[0]
        best = int(logits.argmax())
        probability = round(float(logits.softmax(0)[best]), 5)
        expected[photo] = {"class": best, "label": labels[best], "probability": probability, "logits": rounded(logits)}
    write("efficientnet-lite0.json", expected)


@torch.inference_mode()
def resnet() -> None:
    torch.manual_seed(1)
    deep = {"hidden_sizes": [16, 32], "embedding_size": 8, "depths": [2, 1]}
    shapes = {
        "basic": {"layer_type": "basic", **deep},
        "bottleneck": {"layer_type": "bottleneck", **deep},
        "downsampling": {"layer_type": "bottleneck", "downsample_in_first_stage": True, "downsample_in_bottleneck": True, **deep},
    }
    expected = {}
    for name, shape in shapes.items():
        config = transformers.ResNetConfig(**shape, id2label={i: f"kind {i}" for i in range(5)})
        network = transformers.ResNetForImageClassification(config).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
        processor = ConvNextImageProcessorPil(size={"shortest_edge": 56}, resample=3, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
        folder = HERE.parent / "models" / f"resnet-{name}"
        network.save_pretrained(folder)
        processor.save_pretrained(folder)
        logits = [network(**processor(Image.open(HERE / photo).convert("RGB"), return_tensors="pt")).logits for photo in PHOTOS]
        expected[name] = {photo: rounded(one) for photo, one in zip(PHOTOS, logits)}
    write("resnet.json", expected)
    variants = {name: getattr(torchvision.models, name)().state_dict() for name in ("resnet18", "resnet34", "resnet50")}
    wanted = lambda key: not key.endswith("num_batches_tracked")
    shaped = {name: {key: list(tensor.shape) for key, tensor in state.items() if wanted(key)} for name, state in variants.items()}
    write("torchvision-resnet.json", shaped)


def words() -> None:
    reader = nano_ocr.NanoOCR(device="cpu")
    expected = {}
    for text, size, (width, height), suffix, mode in WORDS:
        image = Image.new("RGBA", (width, height), (250, 245, 235, 255))
        draw = ImageDraw.Draw(image)
        draw.text((width / 2, height / 2), text, (20, 30, 60, 255), ImageFont.truetype(FONT, size), "mm")
        path = HERE / f"word-{text.lower().replace(' ', '')}.{suffix}"
        image.convert(mode).save(path, **({"lossless": True} if suffix == "webp" else {}))
        expected[path.name] = reader.read(str(path))
    write("nano-ocr.json", expected)


def resize() -> None:
    """Pillow's filters on pixels that are drawn by a formula."""
    width, height = 37, 23
    pixel = lambda x, y, c: (x * x * 5 + y * 13 + x * y * (c + 1) + 61 * c) % 256
    array = numpy.array([[[pixel(x, y, c) for c in range(3)] for x in range(width)] for y in range(height)], dtype="uint8")
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    cases = [
        {"filter": name, "to": list(to), "pixels": numpy.asarray(Image.fromarray(array).resize(to, way)).flatten().tolist()}
        for name, way in filters.items()
        for to in ((11, 7), (37, 23), (50, 9), (5, 40), (1, 1), (36, 22))
    ]
    write("resize.json", {"width": width, "height": height, "cases": cases})


efficientnet(pathlib.Path(sys.argv[1]))
resnet()
words()
resize()
