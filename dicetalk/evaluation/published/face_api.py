"""Two small face networks that install from a package registry: expressions and identities of face-api.

Expressions: a densely connected network of separable convolutions, seven classes. Identities: dlib's ResNet
of 29 layers, 128 numbers. Tensor names follow the published TensorFlow.js manifest, with `/` as `.`; weights
are stored as 8-bit numbers with a scale and a minimum per tensor.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.errors import DicetalkError

EXPRESSION_PX, IDENTITY_PX = 112, 150
CLASSES = ("neutral", "happy", "sad", "angry", "fear", "disgusted", "surprised")
MEAN_RGB = (122.782, 117.001, 104.298)  # subtracted before division by 255


class FirstConvolution(nn.Module):
    """An ordinary 3x3 convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.zeros(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(images, in_channels, height, width)` to half the height and width."""
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.filters, self.bias, stride=2)


class SeparableConvolution(nn.Module):
    """A 3x3 convolution of each channel, then a mixture of channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise_filter = nn.Parameter(torch.zeros(in_channels, 1, 3, 3))
        self.pointwise_filter = nn.Parameter(torch.zeros(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map `(images, in_channels, height, width)` to `(images, out_channels, height / stride, ...)`."""
        # "SAME" of TensorFlow: at stride 2 an even image lacks one row at its end only.
        x = F.pad(x, (0, 1, 0, 1) if self.stride == 2 else (1, 1, 1, 1))
        x = F.conv2d(x, self.depthwise_filter, stride=self.stride, groups=x.shape[1])
        return F.conv2d(x, self.pointwise_filter, self.bias)


class DenseBlock(nn.Module):
    """Four convolutions, each of the later ones fed with the sum of what is before it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        first = in_channels == 3
        self.conv0: nn.Module = (
            FirstConvolution(3, out_channels)
            if first
            else SeparableConvolution(in_channels, out_channels, stride=2)
        )
        self.conv1, self.conv2, self.conv3 = (
            SeparableConvolution(out_channels, out_channels) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(images, in_channels, height, width)` to `(images, out_channels, height / 2, width / 2)`."""
        total = F.relu(self.conv0(x))
        total = total + self.conv1(total)
        total = total + self.conv2(F.relu(total))
        return F.relu(total + self.conv3(F.relu(total)))


class FaceApiExpression(nn.Module):
    """Faces to seven expressions, in the order of `CLASSES`; contempt is not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.dense0, self.dense1 = DenseBlock(3, 32), DenseBlock(32, 64)
        self.dense2, self.dense3 = DenseBlock(64, 128), DenseBlock(128, 256)
        self.fc = nn.ParameterDict({"weights": torch.zeros(256, 7), "bias": torch.zeros(7)})

    def features(self, faces: Tensor) -> Tensor:
        """Map `(faces, 3, 112, 112)`, RGB minus `MEAN_RGB` over 255, to `(faces, 256)`."""
        return self.dense3(self.dense2(self.dense1(self.dense0(faces)))).mean(dim=(2, 3))

    def forward(self, faces: Tensor) -> Tensor:
        """Map faces, as in `features`, to logits `(faces, 7)`."""
        return self.features(faces) @ self.fc["weights"] + self.fc["bias"]


class ScaledConvolution(nn.Module):
    """A convolution whose output is scaled and shifted per channel (a batch normalisation at rest)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.ParameterDict(
            {
                "filters": torch.zeros(out_channels, in_channels, kernel, kernel),
                "bias": torch.zeros(out_channels),
            }
        )
        self.scale = nn.ParameterDict(
            {"weights": torch.zeros(out_channels), "biases": torch.zeros(out_channels)}
        )
        self.stride, self.padding = stride, 0 if stride == 2 else kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map `(images, in_channels, height, width)` to `(images, out_channels, ...)`."""
        x = F.conv2d(x, self.conv["filters"], self.conv["bias"], self.stride, self.padding)
        return x * self.scale["weights"][:, None, None] + self.scale["biases"][:, None, None]


class Residual(nn.Module):
    """Two convolutions and a shortcut, which is pooled and padded with empty channels when sizes differ."""

    def __init__(self, in_channels: int, out_channels: int, down: bool) -> None:
        super().__init__()
        self.conv1 = ScaledConvolution(in_channels, out_channels, 3, stride=2 if down else 1)
        self.conv2 = ScaledConvolution(out_channels, out_channels, 3)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        """Map `(images, in_channels, height, width)` to `(images, out_channels, ...)`."""
        y = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        return F.relu(x + y)


class FaceApiIdentity(nn.Module):
    """Faces to 128 numbers; the same person's lie close together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = ScaledConvolution(3, 32, 7, stride=2)
        for name, in_channels, out_channels, count in (
            ("conv32", 32, 32, 3),
            ("conv64", 32, 64, 3),
            ("conv128", 64, 128, 2),
            ("conv256", 128, 256, 2),
        ):
            if in_channels != out_channels:
                self.add_module(f"{name}_down", Residual(in_channels, out_channels, down=True))
            for number in range(1, count + 1):
                self.add_module(f"{name}_{number}", Residual(out_channels, out_channels, down=False))
        self.conv256_down_out = Residual(256, 256, down=True)
        self.fc = nn.Parameter(torch.zeros(256, 128))

    def forward(self, faces: Tensor) -> Tensor:
        """Map `(faces, 3, 150, 150)`, RGB minus `MEAN_RGB` over 255, to `(faces, 128)`."""
        x = F.max_pool2d(F.relu(self.conv32_down(faces)), 3, stride=2)
        for name, module in self.named_children():
            if name != "conv32_down":
                x = module(x)
        return x.mean(dim=(2, 3)) @ self.fc


def read_manifest(folder: Path, name: str) -> dict[str, Tensor]:
    """Read `<name>-weights_manifest.json` and its binary file into a state dict.

    Filters are turned from TensorFlow's order (height, width, in, out) to PyTorch's.

    Raises:
        DicetalkError: when the binary file does not have the size the manifest says.
    """
    groups = json.loads((folder / f"{name}-weights_manifest.json").read_text(encoding="utf-8"))
    data = np.fromfile(folder / f"{name}.bin", np.uint8)
    state, position = {}, 0
    for entry in (entry for group in groups for entry in group["weights"]):
        count, quantised = int(np.prod(entry["shape"])), entry.get("quantization")
        width = 1 if quantised else 4
        raw, position = data[position : position + count * width], position + count * width
        if len(raw) < count * width:
            break
        values = raw * quantised["scale"] + quantised["min"] if quantised else raw.view(np.float32)
        tensor = torch.from_numpy(np.array(values, np.float32).reshape(entry["shape"]))
        if tensor.ndim == 4:
            tensor = (
                tensor.permute(2, 3, 0, 1) if "depthwise" in entry["name"] else tensor.permute(3, 2, 0, 1)
            )
        state[entry["name"].replace("/", ".")] = tensor.contiguous()
    if position != len(data):
        raise DicetalkError(f"{folder / name}.bin has {len(data)} bytes, its manifest describes {position}.")
    return state
