"""A world: the infinite picture of a checkpoint and a definition. Any window of it can be computed on its own.

Every pixel is a pure function of (generator, definition, position). A window computes only what its receptive field
needs, so its memory does not depend on where in the world it lies.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model import geometry
from model.errors import InputError
from model.geometry import LIMIT, Window
from model.networks.generator import Generator
from model.world.definition import Definition, check_definition
from model.world.engine import Engine
from model.world.footprint import beyond, footprint
from model.world.fusion import Fusion
from model.world.latents import Latents
from model.world.overlay import Overlay, check_overlay
from model.world.paste import Paste
from model.world.styles import styles_of


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels and their place in the world: float32 [3,H,W], about -1 to 1, at inclusive windows of pixels."""

    pixels: Tensor
    rows: Window
    columns: Window

    def crop(self, rows: Window, columns: Window) -> Tensor:
        """Returns the pixels [3,h,w] of a window inside this one."""
        return self.pixels[:, geometry.part(rows, self.rows), geometry.part(columns, self.columns)]


class World:
    """The world of a generator and a definition.

    Args:
        generator: The generator in evaluation mode, on the device to compute on.
        definition: The definition of the world; a seed stands for the plain world of that seed.
        precision: The precision of the texture synthesizer, one of `engine.PRECISIONS`.
        overlays: The overlays that the definition names.

    Attributes:
        beyond: The number of pixels that are computed before and after a window of whole cells.

    Raises:
        InputError: The definition or an overlay does not fit the network, or the seed is out of range.
    """

    def __init__(
        self,
        generator: Generator,
        definition: Definition | int,
        precision: str = "float32",
        overlays: Mapping[str, Overlay] | None = None,
    ):
        self.definition = Definition(definition) if isinstance(definition, int) else definition
        self.config = generator.config
        check_definition(self.definition, self.config)
        self.beyond = beyond(self.config)
        device = str(next(generator.parameters()).device)
        with torch.inference_mode():
            given = {name: (overlays or {})[name].to(device) for name in self.definition.overlay_names}
            for name, overlay in given.items():
                check_overlay(overlay, name, self.config, self.definition.cyclic_px)
            laid = [given[name] for name in self.definition.overlays]
            self.latents = Latents(self.definition, self.config, device, laid)
            self.paste = Paste(self.definition, laid)
            self.fusion = Fusion(self.definition, device)
            self.engine = Engine(generator, styles_of(self.definition, generator, device, given), precision)

    def render(self, rows: Window, columns: Window) -> Tensor:
        """Renders the pixels [3,h,w] of a window."""
        return self.compute(rows, columns).crop(rows, columns)

    @torch.inference_mode()
    def compute(self, rows: Window, columns: Window) -> Picture:
        """Renders the pixels of a window, and the few beyond its edges that its cells give anyway.

        Raises:
            InputError: The window leaves the world's |position| < 2^31 - 2^16.
        """
        check_window(rows)
        check_window(columns)
        cell_px, place = self.config.cell_px, footprint(self.config, rows, columns)
        z_l, coordinates = self.latents.z_l(*place.latents), self.latents.coordinates(*place.latents)
        z_s = self.engine.z_s(z_l, coordinates, self.fusion.map(*place.latents, cell_px))
        z_n = self.latents.z_n([(layer, *windows) for layer, windows in enumerate(place.noise)])
        rows_px, columns_px = ((low * cell_px, high * cell_px) for low, high in place.cells)
        picture = self.engine.picture(z_s, z_n, *place.cells, self.fusion.map(rows_px, columns_px, 1))
        return Picture(self.paste(picture, *place.pixels)[0], *place.pixels)


def check_window(window: Window) -> None:
    """Raises InputError for a window that is empty or leaves the world."""
    low, high = window
    if not -LIMIT < low <= high < LIMIT:
        raise InputError(f"pixels {low} to {high} are not a window of the world, whose positions are below {LIMIT}")
