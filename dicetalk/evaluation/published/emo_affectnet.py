"""EMO-AffectNet (Ryumina et al. 2022), which the paper cites for Emo-Score: its static ResNet-50.

Tensor names are those of `FER_static_ResNet50_AffectNet.pt`, itself converted from Keras: "same" padding in
the first convolution, none in the pooling, stride in the first convolution of a block, batch normalisation
with epsilon 0.001.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

INPUT_PX = 224
CLASSES = ("neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry")
MEAN_BGR = (91.4953, 103.8827, 131.0912)
EPSILON = 0.001


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; four times as many channels out as `width`."""

    def __init__(self, in_channels: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride, bias=False)
        self.batch_norm1 = nn.BatchNorm2d(width, eps=EPSILON)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.batch_norm2 = nn.BatchNorm2d(width, eps=EPSILON)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.batch_norm3 = nn.BatchNorm2d(out_channels, eps=EPSILON)
        self.i_downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels, eps=EPSILON),
            )
            if project
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(images, in_channels, height, width)` to `(images, 4 * width, height / stride, ...)`."""
        y = F.relu(self.batch_norm1(self.conv1(x)))
        y = F.relu(self.batch_norm2(self.conv2(y)))
        return F.relu(self.batch_norm3(self.conv3(y)) + self.i_downsample(x))


class EmoAffectNet(nn.Module):
    """Faces to seven emotions, in the order of `CLASSES`; contempt is not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layer_s2_same = nn.Conv2d(3, 64, 7, stride=2, bias=False)
        self.batch_norm1 = nn.BatchNorm2d(64, eps=EPSILON)
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, stride=2)
        self.fc1 = nn.Linear(2048, 512)
        self.fc2 = nn.Linear(512, len(CLASSES))

    def features(self, faces: Tensor) -> Tensor:
        """Map `(faces, 3, 224, 224)` BGR in [0, 255] minus `MEAN_BGR` to features `(faces, 512)`."""
        x = F.pad(faces, (2, 3, 2, 3))  # TensorFlow's "SAME" for 224 px, kernel 7, stride 2
        x = F.max_pool2d(F.relu(self.batch_norm1(self.conv_layer_s2_same(x))), 3, stride=2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.relu(self.fc1(x.mean(dim=(2, 3))))

    def forward(self, faces: Tensor) -> Tensor:
        """Map faces, as in `features`, to logits `(faces, 7)`."""
        return self.fc2(self.features(faces))


def _stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, width, stride, project=True)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1, project=False) for _ in range(blocks - 1)))
