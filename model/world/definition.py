"""The definition of a world apart from its network: a seed and, optionally, a circle, styles, edits and overlays.

Nothing here computes. A definition checks itself when it is created; `check_definition` checks it against a network.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from model import geometry
from model.checks import check_seed, is_integer
from model.config import GeneratorConfig
from model.errors import InputError
from model.geometry import LIMIT, Window

FUSION_PX = 127
"""The side of the box over which neighbouring styles blend (paper, Section 4.3)."""

MOST_FUSION_PX = 4095

FEW_STYLES = 32
"""This many styles may be crowded: a tile that meets them all needs hundreds of megabytes, growing by the square."""

MOST_NEAR_STYLES = 8
"""With more than a few styles, this many may have their centres in one square of the side over which styles blend."""

LEAST_JOURNEY_PX = 256
"""The least distance of a journey's styles, so that a tile meets few of them."""

JOURNEY_FUSION_PX = 2047
"""The most that a journey's styles blend over by default."""

MOST_TRUNCATION = 1.5

LOCAL_TRUNCATION = 0.5
"""The local truncation by default. At 1, worlds have scraps of hill in the sky and holes in the ground."""

MOST_PASTE_PX = 4096
MOST_LIKE_PX = 16384
"""Limits the sides of a box whose statistics an edit copies, because it is computed at once."""

Z_L, NOISE = "z_l", "noise"
FIELDS = (Z_L, NOISE)

Box = tuple[int, int, int, int]
"""x, y, width and height in world pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A style and its centre; a pixel takes the style of the nearest centre.

    Attributes:
        seed: The seed of z_g. Exactly one of `seed`, `z_g` and `overlay` is given.
        z_g: The global latent itself, as numbers.
        overlay: The name of an overlay whose z_g and W+ are used.
        texture_seed: Takes w from the z_g of another seed, so that only the texture differs.
        x_px: The centre, in world pixels.
        y_px: The centre, in world pixels.

    Raises:
        InputError: A value is out of range.
    """

    seed: int | None = None
    z_g: tuple[float, ...] | None = None
    overlay: str | None = None
    texture_seed: int | None = None
    x_px: int = 0
    y_px: int = 0

    def __post_init__(self) -> None:
        if [self.seed, self.z_g, self.overlay].count(None) != 2:
            raise InputError("a style needs a seed, z_g or overlay: give exactly one of them")
        if self.overlay is not None:
            check_name("overlay", self.overlay)
        for name in ("seed", "texture_seed"):
            value = getattr(self, name)
            if value is not None:
                check_integer(name, value)
                check_seed(value)
        for name in ("x_px", "y_px"):
            check_position(name, getattr(self, name))
        if self.z_g is not None and not (
            isinstance(self.z_g, tuple)
            and all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in self.z_g)
        ):
            raise InputError(f"z_g is {str(self.z_g)[:60]}; give a list of finite numbers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """Styles without end, on a jittered grid over the world; each is drawn from a seed and its place in the grid.

    Attributes:
        every_px: The mean distance between neighbouring styles. On a circle it is adjusted to fit, at least twice.
        seed: The seed of the journey; None for the seed of the world.
        dimensions: 1 if the style changes along x only, 2 if it changes along y too.

    Raises:
        InputError: A value is out of range.
    """

    every_px: int
    seed: int | None = None
    dimensions: int = 1

    def __post_init__(self) -> None:
        check_integer("every_px", self.every_px)
        if not LEAST_JOURNEY_PX <= self.every_px < LIMIT:
            raise InputError(f"every_px is {self.every_px}; it must be from {LEAST_JOURNEY_PX} to {LIMIT - 1}")
        if self.seed is not None:
            check_integer("seed", self.seed)
            check_seed(self.seed)
        if not is_integer(self.dimensions) or self.dimensions not in (1, 2):
            raise InputError(f"dimensions is {self.dimensions!r}; it must be 1 or 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A box whose fields are drawn from another seed.

    Attributes:
        box_px: The box; all cells that it touches are drawn again.
        seed: The seed of the new draw.
        fields: The fields to draw again: "z_l", "noise" or both.
        like_box_px: Another box; each channel of the new z_l takes its mean and deviation from there.

    Raises:
        InputError: A value is out of range.
    """

    box_px: Box
    seed: int
    fields: tuple[str, ...] = FIELDS
    like_box_px: Box | None = None

    def __post_init__(self) -> None:
        check_integer("seed", self.seed)
        check_seed(self.seed)
        check_box("box_px", self.box_px)
        known = isinstance(self.fields, tuple) and all(name in FIELDS for name in self.fields)
        if not known or not self.fields or len(set(self.fields)) < len(self.fields):
            raise InputError(f"fields is {self.fields!r}; name some of {', '.join(FIELDS)}, each once")
        if self.like_box_px is not None:
            check_box("like_box_px", self.like_box_px)
            if max(self.like_box_px[2:]) > MOST_LIKE_PX:
                raise InputError(
                    f"like_box_px is {list(self.like_box_px)}; its sides must be {MOST_LIKE_PX} px at most"
                )
            if Z_L not in self.fields:
                raise InputError("like_box_px applies to z_l; add z_l to fields, or remove like_box_px")

    def rows(self, cell_px: int) -> Window:
        """Returns the first and last row of cells drawn again."""
        return cells(self.box_px[1], self.box_px[3], cell_px)

    def columns(self, cell_px: int) -> Window:
        """Returns the first and last column of cells drawn again."""
        return cells(self.box_px[0], self.box_px[2], cell_px)

    def reach(self, config: GeneratorConfig) -> tuple[Window, Window]:
        """Returns the rows and columns of all pixels that the edit can change; on a circle they may exceed its ends."""
        windows = self.rows(config.cell_px), self.columns(config.cell_px)
        row, column = (self._reach(window, config) for window in windows)
        return row, column

    def _reach(self, window: Window, config: GeneratorConfig) -> Window:
        reached = []
        if Z_L in self.fields:
            reached.append(geometry.reach((*config.structure, *config.texture), window))
        if NOISE in self.fields:
            for layer in range(2 * config.pairs):
                own = image(window, positions_per_cell(layer))
                reached.append(geometry.reach(config.texture[layer + 1 :], own))
        return min(low for low, _ in reached), max(high for _, high in reached)


@dataclass(frozen=True, slots=True)
class Definition:
    """A world.

    Attributes:
        seed: The seed of its fields, 0 to 2^64 - 1.
        cyclic_px: The number of pixels after which the world repeats to the right; None if it does not.
        styles: The styles with their centres; if empty, the style of the world's own seed.
        fusion_px: The side of the box over which styles blend; odd.
        edits: The edits, applied in order.
        overlays: The names of the overlays, whose fields replace the world's own, in order, before the edits.
        paste_px: The photographs' own pixels are shown, and blend into the world's over this many pixels inwards from
            their borders; None to show only the world's pixels.
        truncation: How far drawn styles are from the average one, as a share of what they were drawn as.
        journey: The styles of a journey, in place of `styles`.
        local_truncation: The factor of the local latents that are drawn beyond the photographs' frame, where the
            network would otherwise show hills in the sky and holes in the ground; see `Latents.truncation_of`.

    Raises:
        InputError: A value is out of range.
    """

    seed: int
    cyclic_px: int | None = None
    styles: tuple[Style, ...] = ()
    fusion_px: int = FUSION_PX
    edits: tuple[Edit, ...] = ()
    overlays: tuple[str, ...] = ()
    paste_px: int | None = None
    truncation: float = 1.0
    journey: Journey | None = None
    local_truncation: float = LOCAL_TRUNCATION

    def __post_init__(self) -> None:
        check_integer("seed", self.seed)
        check_seed(self.seed)
        self._check_overlays()
        for name in ("truncation", "local_truncation"):
            check_truncation(name, getattr(self, name))
        if not is_integer(self.fusion_px) or not (1 <= self.fusion_px <= MOST_FUSION_PX and self.fusion_px % 2):
            raise InputError(f"fusion_px is {self.fusion_px!r}; it must be an odd number from 1 to {MOST_FUSION_PX}")
        self._check_journey()
        for name, kind in (("styles", Style), ("edits", Edit)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(value, kind) for value in values):
                raise InputError(f"{name} is {values!r}; it must be a list of {name}")
        if self.cyclic_px is not None:
            check_integer("cyclic_px", self.cyclic_px)
        centres = [(self.canonical_px(style.x_px), style.y_px) for style in self.styles]
        if len(set(centres)) < len(centres):
            raise InputError("two styles have the same centre; move one of them")
        self._check_crowds(centres)
        for edit in self.edits:
            if self.cyclic_px is not None and edit.box_px[2] > self.cyclic_px:
                raise InputError(f"box_px is {edit.box_px[2]} px wide, but the world only {self.cyclic_px} px")

    def _check_journey(self) -> None:
        if self.journey is None:
            return
        if not isinstance(self.journey, Journey):
            raise InputError(f"journey is {str(self.journey)[:60]}; give an object such as {{'every_px': 4096}}")
        if self.styles:
            raise InputError("styles and a journey are both given; remove one")
        if self.fusion_px > self.journey.every_px:
            raise InputError(
                f"fusion_px is {self.fusion_px}, more than the journey's every_px, {self.journey.every_px}; give less"
            )

    def _check_crowds(self, centres: list[tuple[int, int]]) -> None:
        if len(centres) <= FEW_STYLES:
            return
        side = max(self.fusion_px, FUSION_PX)
        (column, row), most = Counter((x // side, y // side) for x, y in centres).most_common(1)[0]
        if most > MOST_NEAR_STYLES:
            raise InputError(
                f"{most} of {len(centres)} styles lie within {side} px of each other, near x_px {column * side}, y_px "
                f"{row * side}; with more than {FEW_STYLES} styles, at most {MOST_NEAR_STYLES} may: move them apart"
            )

    def _check_overlays(self) -> None:
        if not isinstance(self.overlays, tuple):
            raise InputError(f"overlays is {self.overlays!r}; it must be a list of paths or URLs")
        for name in self.overlays:
            check_name("overlays", name)
        if len(set(self.overlays)) < len(self.overlays):
            raise InputError("overlays names one file twice; remove one")
        if self.paste_px is not None:
            check_integer("paste_px", self.paste_px)
            if not 0 <= self.paste_px <= MOST_PASTE_PX:
                raise InputError(f"paste_px is {self.paste_px}; it must be from 0 to {MOST_PASTE_PX}")

    @property
    def overlay_names(self) -> tuple[str, ...]:
        """The names of all overlays, including those that only give a style, each once."""
        return tuple(dict.fromkeys((*self.overlays, *(style.overlay for style in self.styles if style.overlay))))

    def canonical_px(self, x_px: int) -> int:
        """Maps a column of pixels of a cyclic world to its first turn; other worlds' columns are unchanged."""
        return x_px if self.cyclic_px is None else x_px % self.cyclic_px

    def cyclic_cells(self, cell_px: int) -> int | None:
        """Returns the number of columns of cells in one turn."""
        return None if self.cyclic_px is None else self.cyclic_px // cell_px


def default_fusion_px(journey: object) -> int:
    """Returns the side of the box over which styles blend by default: about half the distance of a journey's styles."""
    if not isinstance(journey, Journey):
        return FUSION_PX
    return min(JOURNEY_FUSION_PX, journey.every_px // 4 * 2 - 1)


def check_definition(definition: Definition, config: GeneratorConfig, scale: int = 1) -> None:
    """Raises InputError for a world that the network cannot render; the scale is that of widths in the message."""
    turn_px = definition.cyclic_px
    if turn_px is not None:
        least_cells = -(-config.period_cells // 2)
        if turn_px % config.cell_px or turn_px < least_cells * config.cell_px:
            cell_px = config.cell_px * scale
            raise InputError(
                f"a cyclic panorama {turn_px * scale} px wide: with this network the width must be a multiple of "
                f"{cell_px} px, and at least {least_cells * cell_px} px"
            )
    for style in definition.styles:
        if style.z_g is not None and len(style.z_g) != config.z_g_dim:
            raise InputError(f"z_g has {len(style.z_g)} numbers; this network needs {config.z_g_dim}")


def cells(start_px: int, length_px: int, cell_px: int) -> Window:
    """Returns the first and last cell that pixels touch; a cell owns the pixels from its own position on."""
    return start_px // cell_px, (start_px + length_px - 1) // cell_px


def positions_per_cell(layer: int) -> int:
    """Returns the number of positions per cell in a layer of G_T; every pair (up, plain) doubles it."""
    return 2 ** (layer // 2 + 1)


def image(window: Window, positions: int) -> Window:
    """Returns a window of cells as a window of a grid with `positions` positions per cell."""
    return window[0] * positions, (window[1] + 1) * positions - 1


def check_integer(name: str, value: object) -> None:
    """Raises InputError for a value that is not an integer."""
    if not is_integer(value):
        raise InputError(f"{name} is {value!r}; it must be a whole number")


def check_truncation(name: str, value: object) -> None:
    """Raises InputError for a value that is not a truncation."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST_TRUNCATION:
        raise InputError(f"{name} is {value!r}; it must be a number from 0 to {MOST_TRUNCATION}")


def check_name(field: str, value: object) -> None:
    """Raises InputError for a value that cannot name a file."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{field} is {value!r}; give a path or URL")


def check_position(name: str, value: Any) -> None:
    """Raises InputError for a value that is not a position in the world."""
    check_integer(name, value)
    if not -LIMIT < value < LIMIT:
        raise InputError(f"{name} is {value}; its magnitude must be below {LIMIT}")


def check_box(name: str, box: object) -> None:
    """Raises InputError for a value that is not a box of pixels in the world."""
    if not isinstance(box, tuple) or len(box) != 4:
        raise InputError(f"{name} is {box!r}; give x, y, width and height in pixels")
    x, y, width, height = box
    for value in box:
        check_integer(name, value)
    for value in (width, height):
        if value < 1:
            raise InputError(f"{name} is {list(box)}; its width and height must be at least 1")
    for value in (x, y, x + width, y + height):
        check_position(name, value)
