"""The generator as used in training: batches of windows, each with its own style (paper, Section 3.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model import geometry
from model.config import GeneratorConfig
from model.networks.structure import StructureSynthesizer
from model.networks.texture import MappingNetwork, TextureSynthesizer


class Generator(nn.Module):
    """G_S, the mapping network and G_T."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        self.structure = StructureSynthesizer(config)
        self.mapping = MappingNetwork(config)
        self.texture = TextureSynthesizer(config)

    def forward(self, z_l: Tensor, coordinates: Tensor, z_g: Tensor, z_n: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Generates pictures of a batch of windows.

        Args:
            z_l: The local latents [N,z_l_dim,H,W].
            coordinates: The coordinates [N,3,H,W] at the same cells.
            z_g: The global latents [N,z_g_dim].
            z_n: The noise [N,1,h,w] of each layer of G_T; `noise_sizes` returns h and w.

        Returns:
            The pictures [N,3,h,w], about -1 to 1, and z_S.
        """
        z_s = self.structure(z_l, coordinates, z_g)
        w = self.mapping(z_g)
        return self.texture(z_s, [w] * (2 * self.config.pairs + 1), z_n), z_s


def noise_sizes(config: GeneratorConfig, cells: int) -> list[int]:
    """Returns the side of each layer's noise for a window of z_S."""
    return [geometry.length(window) for window in geometry.outputs(config.texture, (0, cells - 1))]


def draw_noise(config: GeneratorConfig, batch: int, random: torch.Generator, cells: int | None = None) -> list[Tensor]:
    """Draws noise for a batch of square windows of z_S with `cells` cells per side; by default for training patches."""
    sizes = noise_sizes(config, cells or config.visible_cells)
    return [torch.randn(batch, 1, n, n, generator=random) for n in sizes]
