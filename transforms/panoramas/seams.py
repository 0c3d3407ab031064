"""The seam audit: neighbouring tiles each compute the strip around their border, and the two are compared."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.geometry import length
from transforms.panoramas.patches import Patch
from transforms.panoramas.plan import Plan
from transforms.panoramas.tiling import power_of_2

SIDES = ("left", "right", "top", "bottom")

MEMORY_BYTES = 1 << 20
"""The size above which the strips of a row of tiles are kept in a temporary file until the row below."""

Pixels = npt.NDArray[np.uint8]


def shared_strips(levels: Pixels, rows: slice, columns: slice, beyond: tuple[int, int]) -> Pixels:
    """Returns the pixels that a tile and each of its neighbours both compute, as `Patch.edges`.

    A tile computes a few pixels before its first row and column, and a few beyond its last. So does its neighbour, and
    the strip that both compute is as wide as the two together, around their border. At the ends of a panorama, which
    nothing is compared with, less may be computed, and the strip lies further inside.

    Args:
        levels: the computed pixels [h,w,3].
        rows: the rows of the tile among them.
        columns: its columns.
        beyond: the number of pixels computed before and after a tile at a border between two.
    """
    before, after = beyond

    def around(border: int, size: int) -> slice:
        start = min(max(border - before, 0), size - before - after)
        return slice(start, start + before + after)

    height_px, width_px, _ = levels.shape
    strips = [levels[rows, around(border, width_px)].swapaxes(0, 1) for border in (columns.start, columns.stop)]
    strips += [levels[around(border, height_px), columns] for border in (rows.start, rows.stop)]
    longest = max(part.shape[1] for part in strips)
    return np.concatenate([np.pad(part, ((0, 0), (0, longest - part.shape[1]), (0, 0))) for part in strips])


def strip(edges: Pixels, side: str) -> Pixels:
    """Returns the strip of one side from a patch's edges; shorter ones are followed by zeros."""
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
    left_px, columns = plan.computed(0)[1][0], plan.shape[1]
    closed = is_closed(plan)
    first = before = np.empty(0, np.uint8)
    with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as row_above:
        for patch in patches:
            column, windows = patch.index % columns, plan.computed(patch.index)
            height_px, width_px = map(length, windows)
            left, right = (strip(patch.edges, side)[:, :height_px] for side in ("left", "right"))
            top, bottom = (strip(patch.edges, side)[:, :width_px] for side in ("top", "bottom"))
            if column == 0:
                first = left
            else:
                audit.compare(before, left)
            if closed and column == columns - 1:
                audit.compare(right, first)
            before = right
            place = 3 * len(top) * (windows[1][0] - left_px)
            if patch.index >= columns:
                row_above.seek(place)
                audit.compare(np.frombuffer(row_above.read(top.nbytes), np.uint8).reshape(top.shape), top)
            row_above.seek(place)
            row_above.write(bottom.tobytes())
            yield patch


def is_closed(plan: Plan) -> bool:
    """Returns whether both ends of a cyclic panorama are where cells begin, as at every border between tiles."""
    unit = plan.tile_px if isinstance(plan.tile_px, int) else power_of_2(plan.tile_px[1])
    return plan.request.cyclic and plan.request.columns[0] % unit == 0 and plan.request.width_px % unit == 0
