"""The seam audit: neighbouring tiles each compute the strip around their border, and the two are compared."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.panoramas.patches import Patch
from transforms.panoramas.plan import Plan

SIDES = ("left", "right", "top", "bottom")

MEMORY_BYTES = 1 << 20
"""The size above which the strips of a row of tiles are kept in a temporary file until the row below."""

Pixels = npt.NDArray[np.uint8]


def shared_strips(levels: Pixels, before: int, tile_px: int) -> Pixels:
    """Returns the pixels that a tile and each of its neighbours both compute, as `Patch.edges`.

    A tile computes `before` pixels beyond its first row and column and a few beyond its last. So does its neighbour,
    and the strip that both compute is as wide as the two together, around their border.

    Args:
        levels: the computed pixels [h,w,3].
        before: the number of them beyond the tile's first row, and first column.
        tile_px: the side of the tile.
    """
    inside, first, last = slice(before, before + tile_px), slice(len(levels) - tile_px), slice(tile_px, None)
    columns = [levels[inside, part].swapaxes(0, 1) for part in (first, last)]
    return np.concatenate([*columns, *(levels[part, inside] for part in (first, last))])


def strip(edges: Pixels, side: str) -> Pixels:
    """Returns the strip of one side from a patch's edges."""
    return np.split(edges, len(SIDES))[SIDES.index(side)]


@dataclass(slots=True)
class SeamAudit:
    """The differences between neighbouring tiles where both compute the same pixels.

    Attributes:
        borders: the number of pairs of neighbours that were compared.
        max_difference: the largest difference, of 255.
        differing: the number of values that differ at all.
        values: the number of values.
    """

    borders: int = 0
    max_difference: int = 0
    differing: int = 0
    values: int = 0

    def compare(self, ours: Pixels, theirs: Pixels) -> None:
        """Adds a border, as each of its two sides computed it."""
        difference = np.abs(ours.astype(np.int16) - theirs)
        self.borders += 1
        self.max_difference = max(self.max_difference, int(difference.max()))
        self.differing += int(np.count_nonzero(difference))
        self.values += difference.size

    def to_json(self) -> dict[str, float]:
        """Returns the figures as JSON values."""
        return {
            "borders": self.borders,
            "max_difference": self.max_difference,
            "differing_share": self.differing / max(self.values, 1),
        }


def with_audit(plan: Plan, patches: Iterable[Patch], audit: SeamAudit) -> Iterator[Patch]:
    """Passes on a panorama's patches, all of them by index, and compares each with those to its left and above.

    If both ends of a cyclic panorama are borders of tiles, the last tile of a row is compared with its first, too.
    """
    columns = plan.shape[1]
    ends = plan.request.columns[0], plan.request.width_px
    closed = plan.request.cyclic and not any(end % plan.tile_px for end in ends)
    first = before = np.empty(0, np.uint8)
    with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as row_above:
        for patch in patches:
            column = patch.index % columns
            left, right, top, bottom = (strip(patch.edges, side) for side in SIDES)
            if column == 0:
                first = left
            else:
                audit.compare(before, left)
            if closed and column == columns - 1:
                audit.compare(right, first)
            before = right
            if patch.index >= columns:
                row_above.seek(column * top.nbytes)
                audit.compare(np.frombuffer(row_above.read(top.nbytes), np.uint8).reshape(top.shape), top)
            row_above.seek(column * top.nbytes)
            row_above.write(bottom.tobytes())
            yield patch
