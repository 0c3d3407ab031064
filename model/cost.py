"""How many multiply-adds the generator's convolutions cost, counted from the geometry.

A plain convolution costs inputs × outputs × kernel² at each output position, a transposed one as many at each input
position. Noise, bias, activation, skips and modulation are not counted, nor is the blur in `network`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from model import geometry
from model.config import GeneratorConfig
from model.geometry import Window
from model.networks.coordinates import CHANNELS

RGB, BLUR_TAPS = 3, 9


@dataclass(frozen=True, slots=True)
class MultiplyAdds:
    """Of the convolutions of G_S, of those of G_T with its to-RGB, and of G_T's blur."""

    structure: float
    texture: float
    blur: float

    @property
    def network(self) -> float:
        """Those with weights to learn."""
        return self.structure + self.texture


def needed(config: GeneratorConfig, height_px: int, width_px: int) -> MultiplyAdds:
    """What the layers need for the pixels of a panorama themselves: as if every layer were dense, without margins."""
    pixels = height_px * width_px
    grids = [pixels / config.cell_px**2]
    for layer in config.texture:
        grids.append(grids[-1] * layer.stride**2)
    return counted(config, grids[:1] * config.structure_layers, grids)


def spent(config: GeneratorConfig, rows: Window, columns: Window) -> MultiplyAdds:
    """What computing a window of pixels takes, margins and all, as `World.compute` does it."""
    cells = [geometry.backward(config.texture, window) for window in (rows, columns)]
    latents = [geometry.backward(config.structure, window) for window in cells]
    structure = areas([geometry.outputs(config.structure, window) for window in latents])
    texture = areas([[window, *geometry.outputs(config.texture, window)] for window in cells])
    return counted(config, structure, texture)


def margin_share(config: GeneratorConfig, tile_px: int) -> float:
    """The share of a tile's arithmetic that its own pixels do not need."""
    tile = (0, tile_px - 1)
    return 1 - needed(config, tile_px, tile_px).network / spent(config, tile, tile).network


def areas(windows: Sequence[Sequence[Window]]) -> list[float]:
    """Positions of each layer, from the windows of its rows and of its columns."""
    return [geometry.length(rows) * geometry.length(columns) for rows, columns in zip(*windows, strict=True)]


def counted(config: GeneratorConfig, structure: Sequence[float], texture: Sequence[float]) -> MultiplyAdds:
    """Multiply-adds for so many positions.

    Args:
        config: the network.
        structure: positions of the output of each layer of G_S.
        texture: positions of z_S and of the output of each layer of G_T.
    """
    inputs = [config.z_l_dim] + [config.structure_channels] * (config.structure_layers - 1)
    taps = config.structure_kernel**2 * config.structure_channels
    in_structure = sum(area * (channels + CHANNELS) * taps for area, channels in zip(structure, inputs, strict=True))
    in_texture, in_blur, width = 0.0, 0.0, config.structure_channels
    for index, (layer, before, after) in enumerate(zip(config.texture, texture, texture[1:], strict=False)):
        outputs = config.texture_channels[index // 2]
        in_texture += (before if layer.up else after) * layer.kernel**2 * width * outputs
        if layer.up:
            in_blur += after * outputs * BLUR_TAPS
        else:
            in_texture += after * outputs * RGB
        width = outputs
    return MultiplyAdds(in_structure, in_texture, in_blur)
