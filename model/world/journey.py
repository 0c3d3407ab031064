"""Journeys: styles without end. Their centres lie on a jittered grid, and nothing is listed.

The grid's squares are `every_px` wide, and each has one centre, which lies in the middle half of the square in both
directions. In one dimension there is one row of squares, and the distance to a centre is that along x alone. On a
circle the squares have the nearest width of which a whole number fits, and at least two do.

A style's number is its row and column in the grid in one integer.
"""

import math
from fractions import Fraction
from functools import lru_cache

from model.geometry import Window
from model.world.definition import Definition
from model.world.fields import journey_jitter

Centre = tuple[int, int, int]
"""The number of a style and the place of its centre, y and x, in world pixels."""

PLACES_KEPT = 256

_JITTER_BITS, _COLUMN_BITS = 24, 32


class Grid:
    """The centres of a journey.

    Args:
        definition: A world with a journey.

    Attributes:
        one_row: Whether the style changes along x only.
    """

    def __init__(self, definition: Definition):
        journey = definition.journey
        assert journey is not None
        self.seed = definition.seed if journey.seed is None else journey.seed
        self.one_row = journey.dimensions == 1
        self.turn, self.width = squares(journey.every_px, definition.cyclic_px)
        self.jitter = lru_cache(maxsize=PLACES_KEPT)(journey_jitter)

    def near(self, rows: Window, columns: Window) -> list[Centre]:
        """Returns all centres that may be the nearest to a pixel of a window, and a few others.

        A pixel's own square has a centre that is nearer than those of the squares after the next.
        """
        down = [0] if self.one_row else around(rows, self.width)
        return [self.centre(row, column) for row in down for column in around(columns, self.width)]

    def centre(self, row: int, column: int) -> Centre:
        """Returns the centre in a square; on a circle the column may be of any turn."""
        known = column if self.turn is None else column % self.turn
        down, across = self.jitter(self.seed, row, known)
        y = 0 if self.one_row else placed(row, down, self.width)
        return number_of(row, known), y, placed(column, across, self.width)


def squares(every_px: int, turn_px: int | None) -> tuple[int | None, Fraction]:
    """Returns the number of squares in a turn, or None, and the width of a square in pixels."""
    if turn_px is None:
        return None, Fraction(every_px)
    turn = max(2, round(Fraction(turn_px, every_px)))
    return turn, Fraction(turn_px, turn)


def around(window: Window, width: Fraction) -> range:
    """Returns the squares that a window of pixels touches, and their neighbours."""
    low, high = (int(pixel // width) for pixel in window)
    return range(low - 1, high + 2)


def placed(square: int, jitter: int, width: Fraction) -> int:
    """Returns the pixel of a centre: from a quarter to three quarters of the square."""
    return math.floor((square + Fraction(1, 4) + Fraction(jitter, 2 << _JITTER_BITS)) * width)


def number_of(row: int, column: int) -> int:
    """Returns the number of the style at a place of the grid."""
    return (row << _COLUMN_BITS) + column


def place_of(number: int) -> tuple[int, int]:
    """Returns the row and column of a style in the grid."""
    half = 1 << (_COLUMN_BITS - 1)
    row = (number + half) >> _COLUMN_BITS
    return row, number - (row << _COLUMN_BITS)
