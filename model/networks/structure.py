"""The structure synthesizer G_S: an implicit function of z_g, z_l and coordinates (paper, Section 3.2)."""

import torch
from torch import Tensor, nn

from model.config import GeneratorConfig
from model.networks.coordinates import CHANNELS
from model.networks.layers import ModulatedConvolution, activate


class StructureBlock(nn.Module):
    """A modulated convolution without padding over features and coordinates: feature unfolding in its CoordConv form.

    The style is z_g itself, and no noise is added.
    """

    def __init__(self, inputs: int, config: GeneratorConfig):
        super().__init__()
        self.convolution = ModulatedConvolution(
            inputs + CHANNELS, config.structure_channels, config.structure_kernel, config.z_g_dim
        )
        self.bias = nn.Parameter(torch.zeros(config.structure_channels))

    def forward(self, x: Tensor, coordinates: Tensor, z_g: Tensor) -> Tensor:
        """Maps [N,I,H,W], [N,3,H,W], [N,z_g_dim] to [N,structure_channels,H-6,W-6]."""
        x = self.convolution(torch.cat([x, coordinates.to(x.dtype)], dim=1), z_g)
        return activate(x + self.bias[:, None, None].to(x.dtype))


class StructureSynthesizer(nn.Module):
    """G_S: z_l and coordinates of n cells give z_S of n - 24 cells."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        inputs = [config.z_l_dim] + [config.structure_channels] * (config.structure_layers - 1)
        self.blocks = nn.ModuleList(StructureBlock(channels, config) for channels in inputs)

    def forward(self, z_l: Tensor, coordinates: Tensor, z_g: Tensor) -> Tensor:
        """Maps [N,z_l_dim,H,W], [N,3,H,W], [N,z_g_dim] to z_S [N,structure_channels,H-24,W-24]."""
        x = z_l
        for block in self.blocks:
            x = block(x, crop_to(coordinates, x), z_g)
        return x


def crop_to(coordinates: Tensor, x: Tensor) -> Tensor:
    """Crops the coordinates to the size of x, as a block without padding trims all sides equally."""
    top, left = (coordinates.shape[2] - x.shape[2]) // 2, (coordinates.shape[3] - x.shape[3]) // 2
    return coordinates[:, :, top : top + x.shape[2], left : left + x.shape[3]]
