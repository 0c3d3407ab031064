"""A world at four times the resolution of another: its windows, drawn by the detail stage.

Every pixel is a pure function of (networks, definition, position), as in the world that it is drawn from: the stage is
given the other world's pixels before they are rounded, and noise that is drawn by position on each layer's own grid.
"""

import torch
from torch import Tensor

from model import geometry
from model.config import GeneratorConfig
from model.geometry import Window
from model.networks.detail import FACTOR, DetailStage, base_window, noise_windows, output_window
from model.world.definition import Definition
from model.world.latents import noise_around
from model.world.paste import Paste
from model.world.scale import stage_count
from model.world.world import Picture, World, check_window


class DetailedWorld:
    """The world of a detail stage and the world that it enlarges.

    Args:
        base: The world to enlarge.
        stage: The detail stage in evaluation mode, on the base's device.
        level: How often a stage has been applied, this one included.

    Attributes:
        beyond: The number of pixels that are computed before and after a window whose ends are multiples of four.
    """

    def __init__(self, base: "World | DetailedWorld", stage: DetailStage, level: int):
        self.base, self.stage = base, stage
        self.definition: Definition = base.definition
        layers, noisy = stage.config.layers, stage.config.noise_layers
        self.config: GeneratorConfig = base.config
        self.paste: Paste = base.paste.at(FACTOR**level)
        self.first_layer = 2 * self.config.pairs + (level - 1) * len(noisy)
        low, high = geometry.forward(layers, geometry.backward(layers, (0, FACTOR - 1)))
        self.beyond = -low, high - FACTOR + 1
        turn_px = self.definition.cyclic_px
        self.turns = [
            turn_px and turn_px * FACTOR ** (level - 1) * geometry.stride(layers[: layer + 1]) for layer in noisy
        ]
        self.device = str(next(stage.parameters()).device)

    def render(self, rows: Window, columns: Window) -> Tensor:
        """Renders the pixels [3,h,w] of a window."""
        return self.compute(rows, columns).crop(rows, columns)

    @torch.inference_mode()
    def compute(self, rows: Window, columns: Window) -> Picture:
        """Renders the pixels of a window, and the few beyond its edges that the pixels of the base give anyway.

        Raises:
            InputError: The window leaves the world.
        """
        check_window(rows)
        check_window(columns)
        config = self.stage.config
        base_rows, base_columns = base_window(config, rows), base_window(config, columns)
        base = self.base.render(base_rows, base_columns)[None]
        picture = self.stage(base, self.noise(base_rows, base_columns))
        windows = output_window(config, base_rows), output_window(config, base_columns)
        return Picture(self.paste(picture, *windows)[0], *windows)

    def noise(self, base_rows: Window, base_columns: Window) -> list[Tensor]:
        """Returns the noise of each layer for a window of the base."""
        maps = zip(*(noise_windows(self.stage.config, window) for window in (base_rows, base_columns)), strict=True)
        windows = [(self.first_layer + layer, *window) for layer, window in enumerate(maps)]
        return noise_around(self.definition.seed, windows, self.turns, self.device)


def at_scale(world: World, stage: DetailStage | None, scale: int) -> World | DetailedWorld:
    """Returns a world at a scale; scale 1 needs no detail stage."""
    scaled: World | DetailedWorld = world
    for level in range(1, stage_count(scale) + 1):
        assert stage is not None
        scaled = DetailedWorld(scaled, stage, level)
    return scaled
