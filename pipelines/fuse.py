"""Fuse: places several styles along one panorama (paper, Section 4.3 and Figure 6)."""

import hashlib
import math
import sys
from collections.abc import Sequence

from model.errors import InputError
from model.world.definition import FEW_STYLES, FUSION_PX, Style
from pipelines.terminal.flags import whole_numbers

MOST_STYLES = 1000


def most_styles(width_px: int, height_px: int, fusion_px: int) -> int:
    """Returns how many styles a panorama may have.

    The cost of a tile grows with the square of the number of styles that it meets. More than a few styles are
    therefore allowed only if their fields are at least as large as the box over which they blend.
    """
    return min(MOST_STYLES, max(FEW_STYLES, width_px * height_px // max(fusion_px, FUSION_PX) ** 2))


def style_seeds(text: str, first: int, most: int) -> tuple[int, ...]:
    """Returns the seeds in --styles or, if it is a number, that many consecutive seeds; at most `most`."""
    numbers = whole_numbers("--styles", text, None, "4 or --styles 5,9,10,6")
    as_number = len(numbers) == 1 and "," not in text
    if not 2 <= (numbers[0] if as_number else len(numbers)) <= most:
        raise InputError(
            f"--styles {text[:40]}: give 2 to {most} styles for a panorama of this size, as a number or as "
            "comma-separated seeds"
        )
    return tuple(range(first, first + numbers[0])) if as_number else numbers


def lay_out(seeds: Sequence[int], width_px: int, height_px: int) -> tuple[Style, ...]:
    """Places styles at the centres of equal fields, in as many rows as make the fields nearly square."""
    count = len(seeds)

    def elongation(rows: int) -> float:
        columns = -(-count // rows)
        return abs(math.log((width_px / columns) / (height_px / rows)))

    rows = min(range(1, count + 1), key=elongation)
    styles = []
    for row in range(rows):
        first, end = count * row // rows, count * (row + 1) // rows
        y_px = height_px * (2 * row + 1) // (2 * rows) - height_px // 2
        for place, seed in enumerate(seeds[first:end]):
            styles.append(Style(seed=seed, x_px=width_px * (2 * place + 1) // (2 * (end - first)), y_px=y_px))
    return tuple(styles)


def name_of(seeds: Sequence[int]) -> str:
    """Returns seeds as part of an id; a checksum if there are too many."""
    names = "-".join(map(str, seeds))
    return names if len(names) <= 100 else hashlib.sha256(names.encode()).hexdigest()[:12]


if __name__ == "__main__":
    from pipelines.cli import main

    main(["fuse", *sys.argv[1:]])
