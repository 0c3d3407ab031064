"""A thumbnail of a panorama, computed while its files are written."""

from collections.abc import Iterable, Iterator

import numpy as np

from transforms.formats.jpeg import encode_jpeg
from transforms.formats.layout import STRIP_PX, Strip

HEIGHT_PX = 96
WIDEST = 8
"""The largest ratio of width to height; only the left end of a wider panorama is shown."""


class Thumbnail:
    """Means of squares of pixels, about `HEIGHT_PX` rows of them.

    Args:
        width_px: the width of the panorama.
        height_px: the height of the panorama.
    """

    def __init__(self, width_px: int, height_px: int):
        self.width_px = min(width_px, WIDEST * height_px)
        self.side_px = max(1, -(-height_px // HEIGHT_PX))
        shape = -(-height_px // self.side_px), -(-self.width_px // self.side_px), 3
        self.sums = np.zeros(shape, np.uint64)
        rows, columns = (np.arange(size) // self.side_px for size in (height_px, self.width_px))
        self.counts = np.bincount(rows)[:, None, None] * np.bincount(columns)[None, :, None]

    def add(self, strip: Strip) -> None:
        """Adds a strip."""
        left = 0
        for square in strip.squares(STRIP_PX):
            if left >= self.width_px:
                return
            part = square[:, : self.width_px - left]
            rows, y = self._sums(part.astype(np.uint64), strip.top, axis=0)
            columns, x = self._sums(rows, left, axis=1)
            self.sums[y : y + columns.shape[0], x : x + columns.shape[1]] += columns
            left += square.shape[1]

    def _sums(self, pixels: np.ndarray, first: int, axis: int) -> tuple[np.ndarray, int]:
        """Sums pixels along an axis for each thumbnail pixel; returns the sums and the first thumbnail pixel."""
        places = np.arange(first, first + pixels.shape[axis]) // self.side_px
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        return np.add.reduceat(pixels, starts, axis=axis), int(places[0])

    def to_jpeg(self) -> bytes:
        """Returns the thumbnail as a JPEG file."""
        return encode_jpeg((self.sums // self.counts.astype(np.uint64)).astype(np.uint8))


def with_thumbnail(strips: Iterable[Strip], thumbnail: Thumbnail) -> Iterator[Strip]:
    """Passes strips on and adds them to a thumbnail."""
    for strip in strips:
        thumbnail.add(strip)
        yield strip
