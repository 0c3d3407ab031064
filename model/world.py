"""A world: the infinite picture given by a checkpoint and a seed. Any window of it can be computed alone.

Every pixel is a pure function of (generator, seed, position). A window computes what its receptive field needs and no
more, so memory is that of the window, wherever in the world it lies.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model import geometry
from model.coordinates import coordinate_field
from model.errors import InputError
from model.fields import LIMIT, check_seed, z_g_vector, z_l_field, z_n_fields
from model.folded import FoldedGenerator
from model.generator import Generator
from model.geometry import Window


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels and where in the world they lie: float32 [3,H,W], about -1 to 1, at inclusive windows of pixels."""

    pixels: Tensor
    rows: Window
    columns: Window

    def crop(self, rows: Window, columns: Window) -> Tensor:
        """The pixels [3,h,w] of a window inside this one."""
        top, left = rows[0] - self.rows[0], columns[0] - self.columns[0]
        return self.pixels[:, top : top + geometry.length(rows), left : left + geometry.length(columns)]


class World:
    """The world of a generator and a seed.

    Args:
        generator: in evaluation mode, on the device that is to compute.
        seed: 0 to 2^64 - 1.

    Raises:
        InputError: the seed is out of range.
    """

    def __init__(self, generator: Generator, seed: int):
        check_seed(seed)
        self.config, self.seed = generator.config, seed
        self.device = str(next(generator.parameters()).device)
        with torch.inference_mode():
            z_g = z_g_vector(seed, self.config.z_g_dim, self.device)
            w = generator.mapping(z_g)
            self.network = FoldedGenerator(generator, z_g, [w] * (2 * self.config.pairs + 1))

    def render(self, rows: Window, columns: Window) -> Tensor:
        """The pixels [3,h,w] of a window."""
        return self.compute(rows, columns).crop(rows, columns)

    @torch.inference_mode()
    def compute(self, rows: Window, columns: Window) -> Picture:
        """The pixels of a window, with the few beyond its edges that its cells give anyway.

        Raises:
            InputError: the window leaves the world's |position| < 2^31 - 2^16.
        """
        check_window(rows)
        check_window(columns)
        structure, texture = self.config.structure, self.config.texture
        cells = [geometry.backward(texture, window) for window in (rows, columns)]
        latents = [geometry.backward(structure, window) for window in cells]
        z_l = z_l_field(self.seed, latents[0], latents[1], self.config.z_l_dim, self.device)
        coordinates = coordinate_field(
            self.config, *(torch.arange(low, high + 1, device=self.device) for low, high in latents)
        )
        z_s = self.network.z_s(z_l.contiguous(memory_format=torch.channels_last), coordinates[None])
        outputs = dict(enumerate(zip(*(geometry.outputs(texture, window) for window in cells), strict=True)))
        z_n = z_n_fields(self.seed, outputs, self.device)
        return Picture(self.network.picture(z_s, z_n)[0], *outputs[len(texture) - 1])


def check_window(window: Window) -> None:
    """Raises InputError for a window that is empty or leaves the world."""
    low, high = window
    if not -LIMIT < low <= high < LIMIT:
        raise InputError(f"pixels {low} to {high} are no window of the world, whose positions are below {LIMIT}")
