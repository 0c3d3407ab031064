"""What a world is made of besides its network: a seed, and if wanted a circle, styles, edits and overlays.

Nothing here computes. A definition is checked when it is made, and against a network by `check_definition`.
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
"""Side of the box over which neighbouring styles blend (paper, Section 4.3)."""

MOST_FUSION_PX = 4095

FEW_STYLES = 32
"""So many may crowd together: a tile that meets them all takes a few hundred megabytes, and with their square more."""

MOST_NEAR_STYLES = 8
"""Of more than a few, as many may have their centres in one square of the side over which styles blend."""

MOST_PASTE_PX = 4096
MOST_LIKE_PX = 16384
"""A box whose statistics an edit takes over is computed at once, so its sides are bounded."""

Z_L, NOISE = "z_l", "noise"
FIELDS = (Z_L, NOISE)

Box = tuple[int, int, int, int]
"""x, y, width and height in world pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A style and the point around which it holds sway.

    Attributes:
        seed: from which z_g is drawn; this, `z_g` or `overlay` is given.
        z_g: the global latent itself, as numbers.
        overlay: the name of an overlay, whose z_g and W+ are taken.
        texture_seed: takes w from the z_g of another seed, so that only the texture differs.
        x_px: the centre, in world pixels.
        y_px: the centre, in world pixels.

    Raises:
        InputError: a value is out of range.
    """

    seed: int | None = None
    z_g: tuple[float, ...] | None = None
    overlay: str | None = None
    texture_seed: int | None = None
    x_px: int = 0
    y_px: int = 0

    def __post_init__(self) -> None:
        if [self.seed, self.z_g, self.overlay].count(None) != 2:
            raise InputError("a style has either a seed or z_g or overlay: give one of them")
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
class Edit:
    """A box whose fields are drawn from another seed.

    Attributes:
        box_px: the box; whole cells are drawn anew, all that it meets.
        seed: of the new draw.
        fields: which are drawn anew, of "z_l" and "noise".
        like_box_px: another box: each channel of the new z_l takes over the mean and deviation that it has there.

    Raises:
        InputError: a value is out of range.
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
                raise InputError(f"like_box_px is {list(self.like_box_px)}; its sides may be {MOST_LIKE_PX} px at most")
            if Z_L not in self.fields:
                raise InputError("like_box_px is about z_l; add z_l to fields, or leave it away")

    def rows(self, cell_px: int) -> Window:
        """First and last row of cells drawn anew."""
        return cells(self.box_px[1], self.box_px[3], cell_px)

    def columns(self, cell_px: int) -> Window:
        """First and last column of cells drawn anew."""
        return cells(self.box_px[0], self.box_px[2], cell_px)

    def reach(self, config: GeneratorConfig) -> tuple[Window, Window]:
        """Rows and columns of all pixels that it can change, in a circle maybe beyond its ends."""
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
        seed: of its fields, 0 to 2^64 - 1.
        cyclic_px: after as many pixels it returns to its beginning, to the right; None if it never does.
        styles: with their centres; none stands for the one of the world's own seed.
        fusion_px: side of the box over which styles blend; odd.
        edits: applied in turn.
        overlays: the names of those whose fields are laid over the world's own, in turn, before the edits.
        paste_px: their photographs' own pixels are shown, blended with the world's over so many pixels from their
            borders inwards; None to show the world's alone.

    Raises:
        InputError: a value is out of range.
    """

    seed: int
    cyclic_px: int | None = None
    styles: tuple[Style, ...] = ()
    fusion_px: int = FUSION_PX
    edits: tuple[Edit, ...] = ()
    overlays: tuple[str, ...] = ()
    paste_px: int | None = None

    def __post_init__(self) -> None:
        check_integer("seed", self.seed)
        check_seed(self.seed)
        self._check_overlays()
        if not is_integer(self.fusion_px) or not (1 <= self.fusion_px <= MOST_FUSION_PX and self.fusion_px % 2):
            raise InputError(f"fusion_px is {self.fusion_px!r}; it must be an odd number from 1 to {MOST_FUSION_PX}")
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

    def _check_crowds(self, centres: list[tuple[int, int]]) -> None:
        if len(centres) <= FEW_STYLES:
            return
        side = max(self.fusion_px, FUSION_PX)
        (column, row), most = Counter((x // side, y // side) for x, y in centres).most_common(1)[0]
        if most > MOST_NEAR_STYLES:
            raise InputError(
                f"{most} of {len(centres)} styles lie within {side} px of each other, near x_px {column * side}, y_px "
                f"{row * side}; of more than {FEW_STYLES} styles at most {MOST_NEAR_STYLES} may: move them apart"
            )

    def _check_overlays(self) -> None:
        if not isinstance(self.overlays, tuple):
            raise InputError(f"overlays is {self.overlays!r}; it must be a list of paths or URLs")
        for name in self.overlays:
            check_name("overlays", name)
        if len(set(self.overlays)) < len(self.overlays):
            raise InputError("overlays names one file twice; leave one away")
        if self.paste_px is not None:
            check_integer("paste_px", self.paste_px)
            if not 0 <= self.paste_px <= MOST_PASTE_PX:
                raise InputError(f"paste_px is {self.paste_px}; it must be from 0 to {MOST_PASTE_PX}")

    @property
    def overlay_names(self) -> tuple[str, ...]:
        """The names of all overlays, also those that only give a style, each once."""
        return tuple(dict.fromkeys((*self.overlays, *(style.overlay for style in self.styles if style.overlay))))

    def canonical_px(self, x_px: int) -> int:
        """A column of pixels in the first turn of a cyclic world; in another, as it is."""
        return x_px if self.cyclic_px is None else x_px % self.cyclic_px

    def cyclic_cells(self, cell_px: int) -> int | None:
        """Columns of cells in one turn."""
        return None if self.cyclic_px is None else self.cyclic_px // cell_px


def check_definition(definition: Definition, config: GeneratorConfig) -> None:
    """Raises InputError for a world that this network cannot have."""
    turn_px, least_cells = definition.cyclic_px, -(-config.period_cells // 2)
    if turn_px is not None and (turn_px % config.cell_px or turn_px < least_cells * config.cell_px):
        raise InputError(
            f"a cyclic panorama {turn_px} px wide: with this network the width must be a multiple of {config.cell_px} "
            f"px, and at least {least_cells * config.cell_px} px"
        )
    for style in definition.styles:
        if style.z_g is not None and len(style.z_g) != config.z_g_dim:
            raise InputError(f"z_g has {len(style.z_g)} numbers; this network's has {config.z_g_dim}")


def cells(start_px: int, length_px: int, cell_px: int) -> Window:
    """First and last cell that pixels meet; a cell owns the pixels from its own on."""
    return start_px // cell_px, (start_px + length_px - 1) // cell_px


def positions_per_cell(layer: int) -> int:
    """How many positions a layer of G_T has for each cell: every pair (up, plain) doubles them."""
    return 2 ** (layer // 2 + 1)


def image(window: Window, positions: int) -> Window:
    """A window of cells on a grid with so many positions a cell."""
    return window[0] * positions, (window[1] + 1) * positions - 1


def check_integer(name: str, value: Any) -> None:
    """Raises InputError for a value that is no whole number."""
    if not is_integer(value):
        raise InputError(f"{name} is {value!r}; it must be a whole number")


def check_name(field: str, value: Any) -> None:
    """Raises InputError for a value that cannot name a file."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{field} is {value!r}; give a path or URL")


def check_position(name: str, value: Any) -> None:
    """Raises InputError for a value that is no position in the world."""
    check_integer(name, value)
    if not -LIMIT < value < LIMIT:
        raise InputError(f"{name} is {value}; positions are below {LIMIT}")


def check_box(name: str, box: Any) -> None:
    """Raises InputError for a value that is no box of pixels in the world."""
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
