"""Scales: a world at four or sixteen times the resolution of its generator, which the detail stage draws.

At the scale s, pixel q lies at (q + 1/2)/s - 1/2 in the base, the world at scale 1: each pixel of the base is a square
of s × s pixels. What a request gives in pixels of its own scale is converted here.
"""

import dataclasses
from dataclasses import dataclass

from model import geometry
from model.checks import is_integer
from model.config import DetailConfig, GeneratorConfig
from model.errors import InputError
from model.geometry import Window
from model.networks.detail import FACTOR, base_window, output_window
from model.world.definition import Box, Definition, Edit, Journey, Style

SCALES = (1, FACTOR, FACTOR**2)


def check_scale(value: object) -> None:
    """Raises InputError for a value that is not a scale."""
    if not is_integer(value) or value not in SCALES:
        raise InputError(f"scale is {value!r}; choose {', '.join(map(str, SCALES))}")


@dataclass(frozen=True, slots=True)
class ScaledConfig:
    """The networks that draw a world at a scale.

    Attributes:
        base: The generator.
        stages: The detail stages, each of which draws the result of the one before; none at scale 1.
    """

    base: GeneratorConfig
    stages: tuple[DetailConfig, ...] = ()

    def computed(self, window: Window) -> Window:
        """Returns the rows (or columns) of all pixels that are computed for a window."""
        if self.stages:
            return output_window(self.stages[-1], base_window(self.stages[-1], window))
        return geometry.forward(self.base.texture, geometry.backward(self.base.texture, window))

    def reach(self, window: Window) -> Window:
        """Returns the rows (or columns) of all pixels that can change if these pixels of the base change."""
        for stage in self.stages:
            window = geometry.reach(stage.layers, window)
        return window


def stage_count(scale: int) -> int:
    """Returns how often the detail stage is applied at a scale."""
    return SCALES.index(scale)


def base_definition(definition: Definition, fusion_px: int, scale: int) -> Definition:
    """Returns a world in pixels of the base.

    Args:
        definition: The world in pixels of the scale, with its cyclic_px a multiple of it; its fusion_px is not used.
        fusion_px: The side of the box over which styles blend, in pixels of the scale.
        scale: The scale.
    """
    return dataclasses.replace(
        definition,
        cyclic_px=definition.cyclic_px and definition.cyclic_px // scale,
        styles=tuple(base_style(style, scale) for style in definition.styles),
        fusion_px=base_fusion_px(fusion_px, scale),
        edits=tuple(base_edit(edit, scale) for edit in definition.edits),
        paste_px=definition.paste_px and definition.paste_px // scale,
        journey=definition.journey and base_journey(definition.journey, scale),
    )


def base_box(box: Box, scale: int) -> Box:
    """Returns the box of all pixels of the base that a box touches."""
    x, y, width, height = box
    left, top = x // scale, y // scale
    return left, top, (x + width - 1) // scale - left + 1, (y + height - 1) // scale - top + 1


def base_style(style: Style, scale: int) -> Style:
    """Returns a style with its centre at the pixel of the base that it lies in."""
    return dataclasses.replace(style, x_px=style.x_px // scale, y_px=style.y_px // scale)


def base_edit(edit: Edit, scale: int) -> Edit:
    """Returns an edit with its boxes in pixels of the base."""
    like = edit.like_box_px and base_box(edit.like_box_px, scale)
    return dataclasses.replace(edit, box_px=base_box(edit.box_px, scale), like_box_px=like)


def base_journey(journey: Journey, scale: int) -> Journey:
    """Returns a journey with the distance of its styles in whole pixels of the base."""
    return dataclasses.replace(journey, every_px=journey.every_px // scale)


def base_fusion_px(fusion_px: int, scale: int) -> int:
    """Returns the side, in pixels of the base, of the largest box to blend over that is no larger than this."""
    return fusion_px if scale == 1 or fusion_px < 1 else max(1, (fusion_px // scale - 1) // 2 * 2 + 1)
