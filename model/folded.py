"""The generator for one style: its modulation and demodulation folded into plain convolutions, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.generator import Generator
from model.layers import activate, blur, convolve, convolve_up, upsample_skip
from model.structure import crop_to


@dataclass(frozen=True, slots=True)
class FoldedLayer:
    """A plain convolution [O,I,k,k] with a bias [O,1,1]; in G_T also the noise's strength."""

    weight: Tensor
    bias: Tensor
    noise_strength: Tensor | float = 0.0
    up: bool = False


class FoldedGenerator:
    """G_S and G_T for one style.

    Args:
        generator: the network.
        z_g: global latent [1,z_g_dim], which styles G_S.
        w: [1,w_dim] of each layer of G_T, and one more for the last to-RGB.
    """

    def __init__(self, generator: Generator, z_g: Tensor, w: Sequence[Tensor]):
        texture = generator.texture
        self.structure = [fold(block, z_g) for block in generator.structure.blocks]
        self.texture = [fold(layer, style) for layer, style in zip(texture.layers, w[:-1], strict=True)]
        self.to_rgb = [fold(to_rgb, style) for to_rgb, style in zip(texture.to_rgb, w[2::2], strict=True)]

    def z_s(self, z_l: Tensor, coordinates: Tensor) -> Tensor:
        """z_l [N,C,H,W] and coordinates [N,3,H,W] to z_S [N,C',H-24,W-24]."""
        x = z_l
        for block in self.structure:
            x = activate(convolve(torch.cat([x, crop_to(coordinates, x)], dim=1), block.weight) + block.bias)
        return x

    def picture(self, z_s: Tensor, z_n: Sequence[Tensor]) -> Tensor:
        """z_S and the noise [N,1,h_l,w_l] of each layer to the picture [N,3,h,w], about -1 to 1."""
        x, rgb = z_s, None
        for index, (layer, noise) in enumerate(zip(self.texture, z_n, strict=True)):
            x = blur(convolve_up(x, layer.weight)) if layer.up else convolve(x, layer.weight)
            x = activate(x + layer.bias + layer.noise_strength * noise)
            if not layer.up:
                to_rgb = self.to_rgb[index // 2]
                new = convolve(x, to_rgb.weight) + to_rgb.bias
                rgb = new if rgb is None else upsample_skip(rgb) + new
        assert rgb is not None
        return rgb


def fold(module: Any, style: Tensor) -> FoldedLayer:
    """A block, texture layer or to-RGB for one style."""
    weight = module.convolution.folded(style).contiguous(memory_format=torch.channels_last)
    strength = getattr(module, "noise_strength", 0.0)
    return FoldedLayer(weight, module.bias[:, None, None], strength, module.convolution.up)
