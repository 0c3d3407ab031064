"""Counts the multiply-adds of the convolutions of the generator and the detail stage from the geometry.

A plain convolution costs inputs × outputs × kernel² per output position, a transposed one the same per input
position. Noise, bias, activation, skips and modulation are not counted; the blur is not counted in `network`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from model import geometry
from model.config import DetailConfig, GeneratorConfig
from model.geometry import Window
from model.networks.coordinates import CHANNELS

RGB, BLUR_TAPS = 3, 9


@dataclass(frozen=True, slots=True)
class MultiplyAdds:
    """Multiply-adds of the convolutions of G_S, of those of G_T with to-RGB, of G_T's blur, and of detail stages."""

    structure: float
    texture: float
    blur: float
    detail: float = 0.0

    @property
    def network(self) -> float:
        """Multiply-adds of the convolutions with learned weights."""
        return self.structure + self.texture + self.detail


def needed(config: GeneratorConfig, height_px: int, width_px: int) -> MultiplyAdds:
    """Counts what the pixels of a panorama themselves need: as if every layer were dense and had no margins."""
    pixels = height_px * width_px
    grids = [pixels / config.cell_px**2]
    for layer in config.texture:
        grids.append(grids[-1] * layer.stride**2)
    return counted(config, grids[:1] * config.structure_layers, grids)


def spent(config: GeneratorConfig, rows: Window, columns: Window, stages: Sequence[DetailConfig] = ()) -> MultiplyAdds:
    """Counts what computing a window of pixels costs, including margins, as in `World.compute`.

    Args:
        config: The generator's configuration.
        rows: The rows of pixels, at the scale of the last stage.
        columns: The columns of pixels.
        stages: The detail stages, in order.
    """
    if stages:
        *before, stage = stages
        bases = [geometry.backward(stage.layers, window) for window in (rows, columns)]
        base = spent(config, bases[0], bases[1], before)
        return dataclasses.replace(base, detail=base.detail + detailed(stage, bases[0], bases[1]))
    cells = [geometry.backward(config.texture, window) for window in (rows, columns)]
    latents = [geometry.backward(config.structure, window) for window in cells]
    structure = areas([geometry.outputs(config.structure, window) for window in latents])
    texture = areas([[window, *geometry.outputs(config.texture, window)] for window in cells])
    return counted(config, structure, texture)


def margin_share(config: GeneratorConfig, tile_px: int) -> float:
    """Returns the share of a tile's arithmetic that is spent on margins."""
    tile = (0, tile_px - 1)
    return 1 - needed(config, tile_px, tile_px).network / spent(config, tile, tile).network


def detailed(config: DetailConfig, rows: Window, columns: Window) -> float:
    """Counts the multiply-adds of a detail stage for a window of its base."""
    grids = areas([[window, *geometry.outputs(config.layers, window)] for window in (rows, columns)])
    widths = [RGB, *[config.channels] * (1 + 2 * config.blocks)]
    widths += [channels for channels in config.up_channels for _ in ("up", "plain")] + [RGB]
    sizes = zip(config.layers, grids, grids[1:], widths, widths[1:], strict=False)
    return sum((before if layer.up else after) * layer.kernel**2 * n * m for layer, before, after, n, m in sizes)


def areas(windows: Sequence[Sequence[Window]]) -> list[float]:
    """Returns the number of positions of each layer, from the windows of its rows and columns."""
    return [geometry.length(rows) * geometry.length(columns) for rows, columns in zip(*windows, strict=True)]


def counted(config: GeneratorConfig, structure: Sequence[float], texture: Sequence[float]) -> MultiplyAdds:
    """Counts the multiply-adds for the given numbers of positions.

    Args:
        config: The network's configuration.
        structure: The number of output positions of each layer of G_S.
        texture: The number of positions of z_S, followed by the number of output positions of each layer of G_T.
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
