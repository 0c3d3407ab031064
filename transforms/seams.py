"""The seam audit: neighbouring tiles each compute the strip around their border; here the two are compared."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from model.world import Picture
from transforms.plan import Plan, Tile

SIDES = ("left", "right", "top", "bottom")

ReadEdges = Callable[[int], npt.NDArray[np.uint8]]


def shared_strips(picture: Picture, plan: Plan, tile: Tile) -> npt.NDArray[np.uint8]:
    """What a tile and each of its neighbours both compute.

    A tile computes `before` pixels beyond its first row and column and `after` beyond its last; so does its neighbour,
    and the strip that both have is `before + after` wide around their border.
    """
    (top, bottom), (left, right) = plan.pixels(tile)
    before, after = top - picture.rows[0], picture.rows[1] - bottom
    strips = [
        picture.crop((top, bottom), (left - before, left + after - 1)).transpose(1, 2),
        picture.crop((top, bottom), (right - before + 1, right + after)).transpose(1, 2),
        picture.crop((top - before, top + after - 1), (left, right)),
        picture.crop((bottom - before + 1, bottom + after), (left, right)),
    ]
    return torch.cat(strips, dim=1).permute(1, 2, 0).contiguous().numpy()


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
