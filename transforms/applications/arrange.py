"""Places photographs in the panoramas around and between them (paper, Section 4.C, Appendices H and I)."""

import itertools
from collections.abc import Sequence

from model.config import GeneratorConfig
from model.errors import InputError
from model.world.definition import FUSION_PX, Box, Style
from model.world.footprint import footprint
from model.world.overlay import Overlay
from transforms.panoramas.requests import RenderRequest

PASTE_PX = 16
"""The width, at scale 1, over which a photograph's own pixels are blended in."""


def panorama(
    name: str,
    overlays: Sequence[tuple[str, Overlay]],
    box_px: Box,
    seed: int,
    paste: bool,
    checkpoint: str | None,
    formats: Sequence[str],
    scale: int = 1,
) -> RenderRequest:
    """Returns a panorama with photographs in it, each with its own style, fused between them.

    Args:
        name: the panorama's id.
        overlays: the overlays of the photographs, by URL; all for the endless world, or for this panorama's circle.
        box_px: the panorama's box, in pixels of its scale.
        seed: the seed of the world around the photographs.
        paste: whether the photographs' own pixels are shown.
        checkpoint: the URL of the generator.
        formats: the panorama's formats, as in a request.
        scale: the panorama's scale.
    """
    x_px, y_px, width_px, height_px = box_px
    return RenderRequest(
        id=name,
        seed=seed,
        width_px=width_px,
        height_px=height_px,
        origin_x_px=x_px,
        origin_y_px=y_px,
        cyclic=any(overlay.cyclic_px is not None for _, overlay in overlays),
        styles=tuple(style_of(overlay, url, scale) for url, overlay in overlays),
        overlays=tuple(url for url, _ in overlays),
        paste_px=PASTE_PX * scale if paste else None,
        checkpoint=checkpoint,
        formats=tuple(formats),
        scale=scale,
    )


def grown(box: Box, left_px: int, right_px: int, up_px: int, down_px: int) -> Box:
    """Extends a box by a distance on each side.

    Raises:
        InputError: a distance is negative, or all are 0.
    """
    if min(left_px, right_px, up_px, down_px) < 0 or not any((left_px, right_px, up_px, down_px)):
        raise InputError(
            f"--left {left_px} --right {right_px} --up {up_px} --down {down_px}: give pixels for at least one side"
        )
    x, y, width, height = box
    return x - left_px, y - up_px, width + left_px + right_px, height + up_px + down_px


def style_of(overlay: Overlay, url: str, scale: int) -> Style:
    """Returns the style of a photograph, around its middle, in pixels of a scale."""
    x_px, y_px, width_px, height_px = overlay.box_px
    return Style(overlay=url, x_px=(x_px + width_px // 2) * scale, y_px=(y_px + height_px // 2) * scale)


def spread(widths_px: Sequence[int], width_px: int, cyclic: bool, config: GeneratorConfig, scale: int = 1) -> list[int]:
    """Returns the left edges of photographs along a panorama, with equal gaps.

    The outermost ones lie at the panorama's ends; in a circle there is a gap there too, half on each side. Gaps must be
    wide enough that each photograph depends only on its own style and fields.

    Args:
        widths_px: the widths of the photographs, at scale 1.
        width_px: the width of the panorama, at scale 1.
        cyclic: whether its ends meet.
        config: the configuration of the generator.
        scale: the scale of the widths in the error.

    Raises:
        InputError: the panorama is too narrow.
    """
    pairs = list(itertools.pairwise((*widths_px, widths_px[0]) if cyclic else widths_px))
    own_px = margin_px(config) + FUSION_PX // 2 + 1
    least_gap_px = max((2 * own_px + abs(one - other) for one, other in pairs), default=0)
    free_px = width_px - sum(widths_px)
    if free_px < least_gap_px * len(pairs):
        least_px = sum(widths_px) + least_gap_px * len(pairs)
        raise InputError(
            f"--width {width_px * scale} is too narrow for photographs "
            f"{', '.join(str(width * scale) for width in widths_px)} px wide, with the {own_px * scale} px around each "
            f"that it depends on: give {least_px * scale} or more"
        )
    lefts, taken = [], 0
    for place, width in enumerate(widths_px):
        gaps = place + 0.5 if cyclic else place
        lefts.append(taken + int(free_px * gaps / max(len(pairs), 1)))
        taken += width
    return lefts


def margin_px(config: GeneratorConfig) -> int:
    """Returns the largest distance from a window of pixels to the cells that it is computed from."""
    cell_px = config.cell_px
    windows = [(x, footprint(config, (x, x), (x, x)).latents[0]) for x in range(cell_px)]
    return max(max(x - low * cell_px, high * cell_px + cell_px - x) for x, (low, high) in windows)
