"""Weight files with the names and shapes of the published ones, filled at random.

The names are written down here once more, from the publishers' code, not taken from the modules under test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def emo_affectnet() -> Shapes:
    """`FER_static_ResNet50_AffectNet.pt`."""
    shapes: Shapes = {"conv_layer_s2_same.weight": (64, 3, 7, 7)} | norm("batch_norm1", 64)
    inputs = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            kernels = [(width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            for number, kernel in enumerate(kernels, 1):
                shapes |= {f"{name}.conv{number}.weight": kernel}
                shapes |= norm(f"{name}.batch_norm{number}", kernel[0])
            if block == 0:
                shapes |= {f"{name}.i_downsample.0.weight": (4 * width, inputs, 1, 1)}
                shapes |= norm(f"{name}.i_downsample.1", 4 * width)
            inputs = 4 * width
    return shapes | linear("fc1", 2048, 512) | linear("fc2", 512, 7)


def emotion_fan() -> Shapes:
    """The `state_dict` of `self_relation-attention_61_84.3655`."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, inputs, 3, 3)} | norm(f"{name}.bn1", width)
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3)} | norm(f"{name}.bn2", width)
            if block == 0 and stage > 1:
                shapes |= {f"{name}.downsample.0.weight": (width, inputs, 1, 1)}
                shapes |= norm(f"{name}.downsample.1", width)
            inputs = width
    shapes |= linear("alpha.0", 512, 1) | linear("beta.0", 1024, 1)
    return shapes | linear("pred_fc1", 512, 8) | linear("pred_fc2", 1024, 8)


def arcface_r50() -> Shapes:
    """`backbone.pth` of InsightFace's r50."""
    shapes: Shapes = {"conv1.weight": (64, 3, 3, 3), "prelu.weight": (64,)} | norm("bn1", 64)
    inputs = 64
    for stage, (width, units) in enumerate([(64, 3), (128, 4), (256, 14), (512, 3)], 1):
        for unit in range(units):
            name = f"layer{stage}.{unit}"
            shapes |= norm(f"{name}.bn1", inputs) | {f"{name}.conv1.weight": (width, inputs, 3, 3)}
            shapes |= norm(f"{name}.bn2", width) | {f"{name}.prelu.weight": (width,)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3)} | norm(f"{name}.bn3", width)
            if unit == 0:
                shapes |= {f"{name}.downsample.0.weight": (width, inputs, 1, 1)}
                shapes |= norm(f"{name}.downsample.1", width)
            inputs = width
    return shapes | norm("bn2", 512) | linear("fc", 512 * 7 * 7, 512) | norm("features", 512)


def fill(shapes: Shapes | Iterable[tuple[str, tuple[int, ...]]], seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors under which activations keep their size."""
    return dict(_filled(dict(shapes), torch.Generator().manual_seed(seed)))


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill a module in the same way and return it in evaluation mode."""
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict(fill(shapes, seed))
    return module.eval()


def _filled(shapes: Shapes, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            yield name, torch.tensor(1)
        elif name.endswith(("running_var", "weight")) and len(shape) == 1:
            yield name, torch.rand(shape, generator=generator) + 0.5
        elif len(shape) == 1:
            yield name, torch.randn(shape, generator=generator) * 0.1
        else:
            yield name, torch.randn(shape, generator=generator) / np.sqrt(np.prod(shape[1:]))
