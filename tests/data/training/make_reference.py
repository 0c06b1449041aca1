"""Writes reference.safetensors beside it: what PyTorch makes of one batch in a small network, after one step and after three.

    pip install torch safetensors && python make_reference.py

The network is convolution (3x3, padding 1), ReLU, max-pool 2 twice, then a hidden layer with ReLU, then the head. Weights are
named before.*, their gradients gradient.*, and the weights after N steps of an optimizer OPTIMIZER.N.*.
"""

import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

HERE = pathlib.Path(__file__).parent
CHANNELS, HIDDEN, CLASSES, SIDE, BATCH = (3, 4), 6, 5, 8, 4
SEED = 169


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        counts = (1, *CHANNELS)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(counts, counts[1:]))
        self.hidden = nn.ModuleList([nn.Linear(CHANNELS[-1] * (SIDE // 4) ** 2, HIDDEN)])
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, images):
        values = images.float() / 255
        for convolution in self.convolutions:
            values = nn.functional.max_pool2d(convolution(values).relu(), 2)
        values = values.flatten(1)
        for layer in self.hidden:
            values = layer(values).relu()
        return self.head(values)


def copied(prefix, tensors):
    return {f"{prefix}.{name}": tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def backward(network, images, labels):
    network.zero_grad()
    loss = nn.functional.cross_entropy(network(images), labels.long())
    loss.backward()
    return loss.detach()


def trained(before, images, labels, make_optimizer, steps, clip=None):
    """The weights after so many steps on the batch, and the norm of the last gradient before it was clipped."""
    network = Network()
    network.load_state_dict(before)
    optimizer = make_optimizer(network.parameters())
    norm = None
    for _ in range(steps):
        backward(network, images, labels)
        if clip is not None:
            norm = nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
    return network.state_dict(), norm


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


def sgd_plain(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


torch.manual_seed(SEED)
network = Network()
# A bias that is left out must be seen, and most units must be alive.
with torch.no_grad():
    for parameter in network.parameters():
        fan_in = parameter[0].numel()
        parameter.normal_(std=fan_in**-0.5) if parameter.dim() > 1 else parameter.normal_(0.2, 0.1)
before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
images = torch.randint(0, 256, (BATCH, 1, SIDE, SIDE), dtype=torch.uint8)
labels = torch.tensor([3, 0, 4, 1], dtype=torch.uint8)
loss = backward(network, images, labels)
gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
# Adam's first step is a gradient's sign: one that is no more than rounding would tell nothing.
assert all(gradient.abs().min() > 1e-4 for gradient in gradients.values())

tensors = copied("before", before) | {"images": images, "labels": labels, "loss": loss.reshape(1)}
tensors |= copied("gradient", gradients)
for optimizer, steps in ((sgd, 1), (sgd, 3), (sgd_plain, 1), (adamw, 1), (adamw, 3)):
    after, _ = trained(before, images, labels, optimizer, steps)
    tensors |= copied(f"{optimizer.__name__}.{steps}", after)
# That step of Adam's is all but the same for a gradient of any length, one of SGD's is not.
for optimizer, name in ((adamw, "clipped"), (sgd_plain, "clipped_sgd_plain")):
    after, norm = trained(before, images, labels, optimizer, 1, clip=0.1)
    tensors |= copied(f"{name}.1", after) | {"clipped.norm": norm.reshape(1)}
save_file(tensors, HERE / "reference.safetensors")
(HERE / "reference.safetensors").chmod(0o644)
