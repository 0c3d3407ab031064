"""The footprint of a window of pixels: the windows of each field that their receptive field covers."""

from dataclasses import dataclass

from model import geometry
from model.config import GeneratorConfig
from model.geometry import Window

Windows = tuple[Window, Window]
"""Rows and columns."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The windows of each field that a window of pixels depends on.

    Attributes:
        cells: The window of z_S.
        latents: The window of z_l and of the coordinates, in cells.
        noise: The window of each layer's z_n, on the layer's own grid.
    """

    cells: Windows
    latents: Windows
    noise: tuple[Windows, ...]

    @property
    def pixels(self) -> Windows:
        """All pixels that the cells determine: those requested, and a few beyond them."""
        return self.noise[-1]


def beyond(config: GeneratorConfig) -> tuple[int, int]:
    """Returns how many pixels before and after a window of whole cells its footprint determines too."""
    low, high = geometry.forward(config.texture, geometry.backward(config.texture, (0, config.cell_px - 1)))
    return -low, high - config.cell_px + 1


def footprint(config: GeneratorConfig, rows: Window, columns: Window) -> Footprint:
    """Returns the footprint of a window of pixels."""
    cells = geometry.backward(config.texture, rows), geometry.backward(config.texture, columns)
    latents = geometry.backward(config.structure, cells[0]), geometry.backward(config.structure, cells[1])
    row_windows, column_windows = (geometry.outputs(config.texture, window) for window in cells)
    return Footprint(cells, latents, tuple(zip(row_windows, column_windows, strict=True)))
