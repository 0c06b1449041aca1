"""Writes the files beside it: what torch.save wrote, and the same tensors as safetensors by its own library.

    pip install torch safetensors && python make.py
"""

import collections
import pathlib

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent

torch.manual_seed(0)
whole = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
tensors = collections.OrderedDict(
    whole=whole,
    same=whole,
    turned=whole.permute(2, 0, 1),
    part=whole[1:, ::2, 1:4],
    empty=torch.empty(0, 3),
    scalar=torch.tensor(3.5),
    parameter=torch.nn.Parameter(torch.randn(4)),
    f64=torch.randn(7).double(),
    f16=torch.randn(7).half(),
    bf16=torch.randn(7).bfloat16(),
    i64=torch.arange(7),
    i32=torch.arange(7, dtype=torch.int32),
    i16=-torch.arange(7, dtype=torch.int16),
    i8=-torch.arange(7, dtype=torch.int8),
    u8=torch.arange(7, dtype=torch.uint8),
    bool=torch.tensor([True, False, True]),
)
torch.save(tensors, HERE / "tensors.pt")
torch.save(tensors, HERE / "tensors-protocol-5.pt", pickle_protocol=5)
torch.save(tensors, HERE / "tensors-legacy.pth", _use_new_zipfile_serialization=False)
save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, HERE / "tensors.safetensors")

model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8, 5))
optimizer = torch.optim.Adam(model.parameters())
model(torch.randn(2, 3, 3, 3)).sum().backward()
optimizer.step()
training = {"epoch": 3, "loss": 0.5, "optimizer": optimizer.state_dict(), "model": model.state_dict()}
torch.save(training, HERE / "training.pt")
torch.save(training, HERE / "training-legacy.pth", _use_new_zipfile_serialization=False)
save_file(model.state_dict(), HERE / "training.safetensors")

# A model itself, not its tensors: its class would have to be imported to read it.
torch.save(torch.nn.Linear(2, 2), HERE / "module.pt")
