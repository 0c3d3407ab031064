"""The projected discriminator, for small data and small machines (Sauer et al. 2021, "Projected GANs Converge Faster").

Its heads are small and see frozen features, mixed by frozen random projections. One more head sees the pixels, since
features distinguish neither fine grain from none nor a hatching from texture. Every head knows the picture's vertical
position, so a generator must match photographs at each height, not only on average (Miyato and Koyama 2018, "cGANs
with Projection Discriminator").
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from model.networks.efficientnet import TAP_CHANNELS, EfficientNetLite0
from model.networks.layers import LEAK

PROJECTED_CHANNELS = 64
HEAD_CHANNELS = 256
PIXEL_CHANNELS = (32, 128)
"""The number of channels of the first layer of the head that sees pixels, and its largest number of channels."""
MAP_SIDE = 4
ENLARGED_PX = 128


class ProjectedDiscriminator(nn.Module):
    """Four heads on four scales of projected features, the vertical head on the coarsest, and a head on the pixels.

    Args:
        patch_px: The side of a patch.
        by_position: Whether verdicts depend on the vertical position; a network without coordinates has none.
    """

    def __init__(self, patch_px: int, by_position: bool = True):
        super().__init__()
        self.patch_px = patch_px
        self.features = EfficientNetLite0()
        self.projection = RandomProjection()
        sides = [-(-patch_px // stride) for stride in (4, 8, 16, 32)]
        self.heads = nn.ModuleList(
            Head(side, PROJECTED_CHANNELS, 2 * PROJECTED_CHANNELS, HEAD_CHANNELS, by_position) for side in sides
        )
        self.pixel_head = Head(patch_px, 3, *PIXEL_CHANNELS, by_position)
        self.vertical = VerticalHead(sides[-1])

    def train(self, mode: bool = True) -> "ProjectedDiscriminator":
        """Sets the training mode of the heads only."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, pictures: Tensor, position: Tensor) -> tuple[list[Tensor], Tensor]:
        """Judges pictures [N,3,h,w] at positions [N], given as labels of the vertical task.

        Returns:
            Maps [N,1,h_i,w_i], and the predicted vertical positions [N], which do not depend on the given ones.
        """
        return self.judge(pictures, self.features(pictures), position)

    def judge(self, pictures: Tensor, features: list[Tensor], position: Tensor) -> tuple[list[Tensor], Tensor]:
        """Does the same for pictures whose features are known."""
        maps = self.projection(features)
        verdicts = [head(x, position) for head, x in zip(self.heads, maps, strict=True)]
        return [*verdicts, self.pixel_head(pictures, position)], self.vertical(maps[-1])


class RandomProjection(nn.Module):
    """Frozen random mixing: across channels by 1×1 convolutions, then across scales, top-down, by 3×3 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.across_channels = nn.ModuleList(random_convolution(n, PROJECTED_CHANNELS, 1) for n in TAP_CHANNELS)
        self.across_scales = nn.ModuleList(
            random_convolution(PROJECTED_CHANNELS, PROJECTED_CHANNELS, 3) for _ in TAP_CHANNELS
        )
        self.requires_grad_(False)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps the features of four scales, fine to coarse, to [N,64,h_i,w_i] at the same scales."""
        mixed: list[Tensor] = []
        for x, channels, scales in reversed(list(zip(features, self.across_channels, self.across_scales, strict=True))):
            x = channels(x)
            if mixed:
                x = x + F.interpolate(mixed[0], size=x.shape[2:], mode="bilinear", align_corners=False)
            mixed.insert(0, scales(x))
        return mixed


def random_convolution(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Returns a convolution that keeps the size, with PyTorch's default random weights (Kaiming) and no bias."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


class Head(nn.Module):
    """Halves a map to about 4×4 while doubling its channels, then gives a verdict at each position.

    Args:
        side: The map's height and width.
        channels: The number of input channels.
        width: The number of channels after the first halving.
        widest: The largest number of channels.
        by_position: Whether verdicts depend on the vertical position c, as v₀ + c·v₁ + c²·v₂.
    """

    def __init__(self, side: int, channels: int, width: int, widest: int, by_position: bool):
        super().__init__()
        layers: list[nn.Module] = []
        while side > MAP_SIDE + 2:
            layers += [spectral_norm(nn.Conv2d(channels, width, 4, stride=2, padding=1)), nn.LeakyReLU(LEAK)]
            channels, width, side = width, min(2 * width, widest), side // 2
        layers += [spectral_norm(nn.Conv2d(channels, channels, 3, padding=1)), nn.LeakyReLU(LEAK)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, 1, 1)))
        self.by_position = spectral_norm(nn.Conv2d(channels, 2, 1)) if by_position else None

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Maps [N,channels,h,w] and [N] to [N,1,h',w']."""
        x = self.layers[:-1](x)
        verdict = self.layers[-1](x)
        if self.by_position is None:
            return verdict
        powers = torch.stack([position, position.square()], dim=1)[:, :, None, None]
        return verdict + (powers * self.by_position(x)).sum(dim=1, keepdim=True)


class VerticalHead(nn.Module):
    """Predicts the label of a picture's vertical position from its coarsest features."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side
        self.convolution = spectral_norm(nn.Conv2d(PROJECTED_CHANNELS, PROJECTED_CHANNELS, 3, padding=1))
        self.linear = nn.Linear(PROJECTED_CHANNELS * side * side, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N,64,h,w] to [N]; features of enlarged patches are first reduced to the usual side."""
        x = F.leaky_relu(self.convolution(x), LEAK)
        if x.shape[2] != self.side:
            x = F.adaptive_avg_pool2d(x, self.side)
        return self.linear(x.flatten(1))[:, 0]


def enlarge_at_random(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Enlarges the pictures to 128 px in half of the calls.

    The features describe enlarged patches better, but show the finest grain only in patches of the original size.
    """
    if torch.rand((), generator=random) < 0.5:
        return pictures
    return F.interpolate(pictures, size=(ENLARGED_PX, ENLARGED_PX), mode="bilinear", align_corners=False)
