"""Where photographs lie in the panoramas around and between them (paper, Section 4.C, Appendices H and I)."""

import itertools
from collections.abc import Sequence

from model.config import GeneratorConfig
from model.definition import FUSION_PX, Box, Style
from model.errors import InputError
from model.footprint import footprint
from model.overlay import Overlay
from transforms.requests import RenderRequest

PASTE_PX = 16
"""Over so many pixels a photograph's own pixels are blended in."""


def outpainted(
    name: str,
    overlay: Overlay,
    url: str,
    margins_px: tuple[int, int, int, int],
    seeds: Sequence[int],
    checkpoint: str | None,
    paste_px: int | None,
    formats: Sequence[str],
) -> list[RenderRequest]:
    """A panorama around a photograph for each seed.

    Args:
        name: the panoramas are called this and their number.
        overlay: of the photograph.
        url: of the overlay.
        margins_px: how far they go beyond it: left, right, up, down.
        seeds: of the worlds around it.
        checkpoint: URL of the generator.
        paste_px: as of a request.
        formats: as of a request.

    Raises:
        InputError: the overlay is of a circle of another width.
    """
    left, right, up, down = margins_px
    x_px, y_px, width_px, height_px = overlay.box_px
    width_px, height_px = width_px + left + right, height_px + up + down
    if overlay.cyclic_px not in (None, width_px):
        raise InputError(f"{url} is of a circle of {overlay.cyclic_px} px, and the panorama has {width_px} px")
    return [
        RenderRequest(
            id=f"{name}-{number}",
            seed=seed,
            width_px=width_px,
            height_px=height_px,
            origin_x_px=x_px - left,
            origin_y_px=y_px - up,
            cyclic=overlay.cyclic_px is not None,
            styles=(style_of(overlay, url),),
            overlays=(url,),
            paste_px=paste_px,
            checkpoint=checkpoint,
            formats=tuple(formats),
        )
        for number, seed in enumerate(seeds, start=1)
    ]


def style_of(overlay: Overlay, url: str) -> Style:
    """The style of a photograph, around its middle."""
    x_px, y_px, width_px, height_px = overlay.box_px
    return Style(overlay=url, x_px=x_px + width_px // 2, y_px=y_px + height_px // 2)


def spread(widths_px: Sequence[int], width_px: int, cyclic: bool, config: GeneratorConfig) -> list[int]:
    """The left edges of photographs along a panorama, in equal gaps.

    The outermost ones lie at the panorama's ends; in a circle there is a gap there too, half on each side. A gap is so
    wide that all that makes a photograph is of its own style, and of no other's fields.

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
            f"--width {width_px} is too narrow for photographs {', '.join(map(str, widths_px))} px wide, with the "
            f"{own_px} px around each that it depends on: give {least_px} or more"
        )
    lefts, taken = [], 0
    for place, width in enumerate(widths_px):
        gaps = place + 0.5 if cyclic else place
        lefts.append(taken + int(free_px * gaps / max(len(pairs), 1)))
        taken += width
    return lefts


def margin_px(config: GeneratorConfig) -> int:
    """How far around a window of pixels the cells lie that it is made from, wherever it begins."""
    cell_px = config.cell_px
    windows = [(x, footprint(config, (x, x), (x, x)).latents[0]) for x in range(cell_px)]
    return max(max(x - low * cell_px, high * cell_px + cell_px - x) for x, (low, high) in windows)


def between(
    name: str,
    overlays: Sequence[tuple[str, Overlay]],
    box_px: Box,
    cyclic: bool,
    seed: int,
    checkpoint: str | None,
    paste_px: int | None,
    formats: Sequence[str],
) -> RenderRequest:
    """A panorama with photographs along it, whose styles are fused between them.

    Args:
        name: its id.
        overlays: of the photographs, by URL.
        box_px: the panorama's.
        cyclic: whether its ends meet.
        seed: of the world between.
        checkpoint: URL of the generator.
        paste_px: as of a request.
        formats: as of a request.
    """
    x_px, y_px, width_px, height_px = box_px
    return RenderRequest(
        id=name,
        seed=seed,
        width_px=width_px,
        height_px=height_px,
        origin_x_px=x_px,
        origin_y_px=y_px,
        cyclic=cyclic,
        styles=tuple(style_of(overlay, url) for url, overlay in overlays),
        overlays=tuple(url for url, _ in overlays),
        paste_px=paste_px,
        checkpoint=checkpoint,
        formats=tuple(formats),
    )
