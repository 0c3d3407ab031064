"""Renders pictures of any generator in one shot, including those that cannot be tiled."""

import torch
from torch import Tensor

from model import geometry
from model.geometry import Window
from model.networks.generator import Generator
from model.world.fields import z_g_vector, z_l_field, z_n_fields
from model.world.footprint import Windows


@torch.inference_mode()
def render_once(generator: Generator, seed: int, rows: Window, columns: Window) -> Tensor:
    """Renders the picture [3,h,w] of a window of cells of z_l in one shot; about -1 to 1.

    Latents and noise are a function of (seed, position), as in a world: a larger window contains the smaller one.
    """
    config, device = generator.config, str(next(generator.parameters()).device)
    z_g = z_g_vector(seed, config.z_g_dim, device)
    z_l = z_l_field(seed, rows, columns, config.z_l_dim, device)
    outputs = zip(*(geometry.outputs(config.texture, window) for window in (rows, columns)), strict=True)
    z_n = z_n_fields(seed, [(layer, *windows) for layer, windows in enumerate(outputs)], device)
    pictures, _ = generator(z_l, z_l.new_zeros(()), z_g, z_n)
    return pictures[0]


def render_part(generator: Generator, seed: int, extent: Windows | None, rows: Window, columns: Window) -> Tensor:
    """Renders the pixels [3,h,w] of a window of the picture that `render_once` gives, equal up to rounding.

    Memory is that of the window: a layer pads only where the picture ends.

    Args:
        generator: A generator of any kind.
        seed: The seed of the world.
        extent: The rows and columns of cells of a padded network's picture; None for a network without padding, whose
            picture has no end.
        rows: The rows of pixels.
        columns: The columns of pixels.
    """
    texture = generator.config.texture
    cells = [geometry.backward(texture, window) for window in (rows, columns)]
    if extent is not None:
        cells = [(max(x[0], end[0]), min(x[1], end[1])) for x, end in zip(cells, extent, strict=True)]
    given = [geometry.forward(texture, window) for window in cells]
    return render_once(generator, seed, *cells)[:, geometry.part(rows, given[0]), geometry.part(columns, given[1])]
