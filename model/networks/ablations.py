"""The paper's ablations: StyleGAN2 with a non-constant input (NCI), padded, or fully convolutional (NCI+FCG).

See Section 4.1. These networks have no G_S and no coordinates: z_l replaces StyleGAN2's constant. Zero padding tells
a layer where its picture ends, so adjacent windows of a padded network do not agree; it renders in one shot only.
"""

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from model.config import GeneratorConfig
from model.networks.generator import Generator
from model.networks.layers import activate, smooth_up
from model.networks.texture import MappingNetwork, TextureLayer, TextureSynthesizer, ToRGB


def build_generator(config: GeneratorConfig) -> Generator:
    """Builds a network of any kind with random weights."""
    return Generator(config) if config.tileable else NonConstantInputGenerator(config)


class NonConstantInputGenerator(Generator):
    """The mapping network and G_T, with z_l as input."""

    def __init__(self, config: GeneratorConfig):
        nn.Module.__init__(self)
        self.config = config
        self.structure = LatentsThemselves()  # type: ignore[assignment]
        self.mapping = MappingNetwork(config)
        self.texture = (PaddedTextureSynthesizer if config.kind == "nci" else TextureSynthesizer)(config)


class LatentsThemselves(nn.Module):
    """Takes the place of G_S."""

    def forward(self, z_l: Tensor, coordinates: Tensor, z_g: Tensor) -> Tensor:
        """Returns z_l [N,z_l_dim,H,W] unchanged."""
        return z_l


class PaddedTextureSynthesizer(TextureSynthesizer):
    """StyleGAN2's synthesis network: z_l of n cells gives a picture of 2^L·n pixels."""

    def __init__(self, config: GeneratorConfig):
        nn.Module.__init__(self)
        inputs = [config.structure_channels, *config.texture_channels]
        self.layers = nn.ModuleList()
        self.to_rgb = nn.ModuleList()
        for before, after in itertools.pairwise(inputs):
            self.layers.append(PaddedLayer(before, after, config.w_dim, up=True))
            self.layers.append(PaddedLayer(after, after, config.w_dim, up=False))
            self.to_rgb.append(ToRGB(after, config.w_dim))

    def forward(self, z_s: Tensor, ws: Sequence[Tensor], z_n: Sequence[Tensor]) -> Tensor:
        """Like `TextureSynthesizer`, with n -> 2^L·n."""
        x, rgb = z_s, z_s.new_zeros(())
        for pair, to_rgb in enumerate(self.to_rgb):
            for layer in (2 * pair, 2 * pair + 1):
                x = self.layers[layer](x, ws[layer], z_n[layer])
            if pair:
                rgb = F.interpolate(rgb, scale_factor=2, mode="bilinear", align_corners=False)
            rgb = rgb + to_rgb(x, ws[2 * pair + 2])
        return rgb


class PaddedLayer(TextureLayer):
    """A texture layer that keeps its window's extent."""

    def forward(self, x: Tensor, w: Tensor, z_n: Tensor) -> Tensor:
        """Maps [N,I,n,m], [N,w_dim], noise [N,1,n',m'] to [N,O,n',m'] with n' = 2n (up) or n (plain)."""
        # With a border of zeros our up convolution gives StyleGAN2's full transposed one, plus a zero on each side.
        x = self.convolution(F.pad(x, (1,) * 4), w)
        if self.convolution.up:
            x = smooth_up(x)
        return activate(x + self.noise_strength * z_n + self.bias[:, None, None])
