"""The seam audit: neighbouring tiles each compute the strip around their border; here the two are compared."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from transforms.plan import Plan
from transforms.synthesize import SIDES

ReadEdges = Callable[[int], npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class SeamAudit:
    """How far apart neighbours are where both know the answer.

    Attributes:
        borders: how many pairs of neighbours were compared.
        max_difference: the largest, of 255.
        differing_share: share of the values that differ at all.
    """

    borders: int
    max_difference: int
    differing_share: float

    def to_json(self) -> dict[str, float]:
        """As JSON values."""
        return dataclasses.asdict(self)


def audit_seams(plan: Plan, read_edges: ReadEdges) -> SeamAudit:
    """Compares all neighbours in a panorama."""
    read = lru_cache(maxsize=256)(read_edges)
    borders = differing = values = largest = 0
    for first, second, side in neighbours(plan):
        ours = strip(read(first), side)
        theirs = strip(read(second), {"right": "left", "bottom": "top"}[side])
        difference = np.abs(ours.astype(np.int16) - theirs)
        borders += 1
        values += difference.size
        differing += int(np.count_nonzero(difference))
        largest = max(largest, int(difference.max()))
    return SeamAudit(borders, largest, differing / max(values, 1))


def neighbours(plan: Plan) -> Iterator[tuple[int, int, str]]:
    """Each pair of neighbouring tiles, by index, and the first one's side on which the second lies."""
    rows, columns = plan.shape
    for index in range(plan.tiles):
        row, column = divmod(index, columns)
        if column + 1 < columns:
            yield index, index + 1, "right"
        if row + 1 < rows:
            yield index, index + columns, "bottom"


def strip(edges: npt.NDArray[np.uint8], side: str) -> npt.NDArray[np.uint8]:
    """The strip of one side out of a patch's edges."""
    return np.split(edges, len(SIDES))[SIDES.index(side)]
