"""Filters for pictures that are useless as landscapes: too small, too long, black, flat, framed, or pages of text.

All but size and shape are judged from the stored image, in grey. The bounds are wide, so night, fog, snow and
silhouettes stay. What the filters pass and refuse is tested on real photographs.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from transforms.photographs.codec import DecodedPicture
from transforms.training_set.records import Rejection

DARK_LEVEL: Final = 16
"""The bound for "nearly black": 99% of the pixels are no lighter than this level, of 255."""

FLAT_RANGE: Final = 12
"""The bound for "flat": 98% of the pixels lie within this many levels."""

BORDER_SHARE: Final = 0.15
"""The share of a side above which lines of one level, along one edge or two opposite ones, count as a border."""

BORDER_RANGE: Final = 6
"""The range of levels, within a line and between lines, that counts as one level."""

EDGE_LENGTH: Final = 0.5
"""The share of a line that must have another level where a border ends."""

PAGE_SHARE: Final = 0.4
"""The share of both halves' pixels within `PAGE_RANGE` levels of the commonest above which a picture may be text."""

PAGE_RANGE: Final = 5
EDGE_SHARE: Final = 0.06
"""The share of neighbouring pixels differing by more than `EDGE_STEP` levels above which it is text."""

EDGE_STEP: Final = 32


def check_shape(picture: DecodedPicture, shortest_px: int, longest_aspect: float) -> None:
    """Raises Rejection if the original is too small or too long.

    Args:
        picture: the decoded photograph.
        shortest_px: the least length of its short side.
        longest_aspect: the largest ratio of its long side to its short one.
    """
    short_px, long_px = sorted((picture.width_px, picture.height_px))
    size = f"{picture.width_px}×{picture.height_px} px"
    if short_px < shortest_px:
        raise Rejection("too_small", f"{size}: the short side must have at least {shortest_px} px")
    if long_px > longest_aspect * short_px:
        raise Rejection("aspect", f"{size}: the long side is more than {longest_aspect:g} times the short one")


def check_content(image: Image.Image) -> None:
    """Raises Rejection if a stored image is nearly black, flat, mostly text or mostly border."""
    picture = image.convert("L")
    counts = np.array(picture.histogram())
    low, high = np.searchsorted(np.cumsum(counts), (0.01 * counts.sum(), 0.99 * counts.sum()))
    if high <= DARK_LEVEL:
        raise Rejection("dark", f"99% of the pixels are no lighter than {high} of 255")
    if high - low <= FLAT_RANGE:
        raise Rejection("flat", f"98% of the pixels lie between {low} and {high} of 255")
    grey = np.asarray(picture)
    if _is_page(grey, counts):
        raise Rejection("text", "an even ground with sharp marks all over it, such as a page or a screenshot")
    for name, lines in (("rows", grey), ("columns", grey.T)):
        share = _border_share(lines)
        if share > BORDER_SHARE:
            raise Rejection("border", f"{share:.0%} of the {name} are a border of one colour")


def _is_page(grey: npt.NDArray[np.uint8], counts: npt.NDArray[np.int64]) -> bool:
    """Returns whether one level is the ground of both the upper and the lower half, with sharp-edged marks on it."""
    ground = int(counts.argmax())
    if counts[max(0, ground - PAGE_RANGE) : ground + PAGE_RANGE + 1].sum() <= PAGE_SHARE * grey.size:
        return False
    levels = grey.astype(np.int16)
    near = np.abs(levels - ground) <= PAGE_RANGE
    if min(half.mean() for half in np.array_split(near, 2)) <= PAGE_SHARE:
        return False
    return float((np.abs(np.diff(levels, axis=1)) > EDGE_STEP).mean()) > EDGE_SHARE


def _border_share(lines: npt.NDArray[np.uint8]) -> float:
    """Returns the share of lines, from both ends inwards, that have one level and a straight inner edge."""
    count = sum(_border_lines(order) for order in (lines, lines[::-1]))
    return min(1.0, count / len(lines))


def _border_lines(lines: npt.NDArray[np.uint8]) -> int:
    """Returns the number of lines, from the first on, that belong to a border."""
    low, high = lines.min(axis=1).astype(int), lines.max(axis=1).astype(int)
    level = int(low[0])
    inside = (high > level + BORDER_RANGE) | (low < level - BORDER_RANGE)
    count = int(inside.argmax()) if inside.any() else len(lines)
    behind = lines[min(count + 1, len(lines) - 1)].astype(int)  # the line at the edge itself may be a blend
    is_edge = (np.abs(behind - level) > BORDER_RANGE).mean() > EDGE_LENGTH
    return count if is_edge else 0
