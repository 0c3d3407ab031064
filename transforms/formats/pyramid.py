"""A panorama at full size, half, a quarter and so on, strip by strip, for TIFF's overviews and for DZI.

Level 0 is the panorama; a pixel of each further level is the mean of 2×2 pixels of the previous one.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from transforms.formats.layout import STRIP_PX, Canvas, Strip

Size = tuple[int, int]


def level_sizes(width_px: int, height_px: int, largest_px: int) -> list[Size]:
    """Returns the width and height of each level, down to the first whose sides are at most `largest_px`."""
    sizes = [(width_px, height_px)]
    while max(sizes[-1]) > largest_px:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def level_strips(strips: Iterable[Strip], sizes: Sequence[Size]) -> Iterator[tuple[int, Strip]]:
    """Yields the strips of all levels, each as soon as its pixels are complete, with the number of its level.

    Args:
        strips: the strips of the panorama.
        sizes: the sizes of the levels.
    """
    with ExitStack() as stack:
        canvases = [Canvas(STRIP_PX, width_px) for width_px, _ in sizes[1:]]
        for canvas in canvases:
            stack.enter_context(canvas)
        for strip in strips:
            level, given = 0, strip
            yield level, given
            while level + 1 < len(sizes):
                bottom = put_half(given, canvases[level])
                level += 1
                if bottom % STRIP_PX and bottom < sizes[level][1]:
                    break
                top = (bottom - 1) // STRIP_PX * STRIP_PX
                given = Strip(canvases[level - 1], top, bottom - top)
                yield level, given


def put_half(strip: Strip, canvas: Canvas) -> int:
    """Writes a strip at half size to the next level's canvas; returns the row below it."""
    top, left = strip.top // 2, 0
    for square in strip.squares(STRIP_PX):
        half = halved(square)
        canvas.write(top, left, half)
        left += half.shape[1]
    return top + half.shape[0]


def halved(pixels: np.ndarray) -> np.ndarray:
    """Halves uint8 [h,w,3], rounding up: means of 2×2 pixels, where the last row or column is repeated if odd."""
    height, width, _ = pixels.shape
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.uint16)
    rows = even[0::2] + even[1::2]
    return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
