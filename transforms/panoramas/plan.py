"""Plans: all that decides a panorama's bits, and its division into tiles and patch shards."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cached_property
from typing import Any

from model.checks import is_integer
from model.errors import InputError
from model.geometry import LIMIT, Window
from model.world.definition import Edit
from model.world.fields import SCHEME_VERSION
from transforms.formats.layout import TileLayout
from transforms.panoramas.requests import RenderRequest, without_secrets
from transforms.panoramas.tiling import Cuts, TileSize, area, column_cuts, grid_cuts, row_cuts, size_text, tile_size

LATER_FIELDS = {"truncation": 1.0, "journey": None, "scale": 1, "local_truncation": 1.0}
"""Fields that requests of earlier versions lacked, with the values that give the pixels of those versions. Plans are
written without fields that have these values, so that their digests stay as they were."""

REFERENCE = "float32"
"""The precision of promise 2; a plan of another precision records how far it is from this one."""

MOST_TILES_PER_SHARD = 256
MOST_TILE_PX = 4096

MOST_TILES = 2**25
"""The most tiles of a panorama, all of which are listed: 256 px tiles for 2^32 px, the world's width, by 512 px."""


@dataclass(frozen=True)
class Plan:
    """A request with all else that decides its pixels.

    Attributes:
        request: the request.
        checkpoint_url: the URL of the generator.
        checkpoint_sha256: the SHA-256 of the generator's file.
        tile_px: the size of a tile, whose sides are multiples of the network's cell; see `tiling`.
        precision: the precision of the network's convolutions, one of `engine.PRECISIONS`.
        overlays: the sha256 of each of the request's overlays, in the order of `Definition.overlay_names`.

    Raises:
        InputError: a tile, which is computed whole, would leave the world.
    """

    request: RenderRequest
    checkpoint_url: str
    checkpoint_sha256: str
    tile_px: TileSize
    precision: str = REFERENCE
    overlays: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sides = self.tile_px if isinstance(self.tile_px, tuple) else (self.tile_px,)
        if len(sides) not in (1, 2) or not all(is_integer(side) and 1 <= side <= MOST_TILE_PX for side in sides):
            raise InputError(f"request {self.request.id}: tile size {self.tile_px!r} px; give 1 to {MOST_TILE_PX}")
        if self.tiles > MOST_TILES:
            raise InputError(
                f"request {self.request.id}: {self.shape[1]} x {self.shape[0]} tiles of {size_text(self.tile_px)} px "
                f"are more than the {MOST_TILES} that a job lists for one panorama: ask for a smaller one or larger "
                "tiles, or cut it by origins into several requests, which fit together without a seam"
            )
        if len(self.overlays) != len(self.request.definition.overlay_names):
            raise InputError(f"request {self.request.id}: the plan does not identify the file of each of its overlays")
        for first, last in zip(self.computed(0), self.computed(self.tiles - 1), strict=True):
            low, high = first[0], last[1]
            if not -LIMIT < low <= high < LIMIT:
                raise InputError(
                    f"request {self.request.id}: its tiles of {size_text(self.tile_px)} px, pixels {low} to {high}, "
                    f"leave the world, whose positions are below {LIMIT}; move its origin by a tile, or choose another "
                    "--tile"
                )

    def with_edits(self, edits: tuple[Edit, ...]) -> "Plan":
        """Returns the plan of the same panorama with other edits."""
        return dataclasses.replace(self, request=dataclasses.replace(self.request, edits=edits))

    @cached_property
    def digest(self) -> str:
        """12 hex digits that identify the plan, computed from all that decides the pixels and nothing else."""
        return hashlib.sha256(json.dumps(self.pixels_json(), sort_keys=True).encode()).hexdigest()[:12]

    def pixels_json(self) -> dict[str, Any]:
        """Returns all that decides the pixels: the content of plan.json."""
        content = self.to_json()
        for name in ("id", "formats", "checkpoint"):
            del content["request"][name]
        # The content of an overlay's file decides the pixels; its location does not.
        sha256 = content.pop("overlays")
        request = content["request"]
        request["overlays"] = [sha256[name] for name in request["overlays"]]
        for style in request["styles"]:
            style["overlay"] = style["overlay"] and sha256[style["overlay"]]
        return content

    def to_json(self) -> dict[str, Any]:
        """Returns the plan and the whole request, for the panorama's own files."""
        request = self.request.to_json()
        return {
            "request": {name: value for name, value in request.items() if LATER_FIELDS.get(name, MISSING) != value},
            "checkpoint_sha256": self.checkpoint_sha256,
            "tile_px": self.tile_px if isinstance(self.tile_px, int) else list(self.tile_px),
            "precision": self.precision,
            "scheme_version": SCHEME_VERSION,
            "overlays": dict(zip(self.request.definition.overlay_names, self.overlays, strict=True)),
        }

    def provenance(self) -> dict[str, Any]:
        """Returns `to_json` for files that others will see: without user names, passwords and tokens in URLs.

        A checkpoint whose URL contains secrets is not named in the request, because nobody could fetch it from there;
        its URL is given separately, without them.
        """
        content = without_secrets(self.to_json())
        if content["request"]["checkpoint"] != self.request.checkpoint:
            content["checkpoint"], content["request"]["checkpoint"] = content["request"]["checkpoint"], None
        return content

    @cached_property
    def cuts(self) -> tuple[Cuts, Cuts]:
        """The cuts of its rows and of its columns."""
        rows, columns = self.request.rows, self.request.columns
        if isinstance(self.tile_px, int):
            return grid_cuts(rows, self.tile_px), grid_cuts(columns, self.tile_px)
        return row_cuts(rows, self.tile_px[0]), column_cuts(columns, self.tile_px[1])

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and columns of tiles."""
        rows, columns = self.cuts
        return rows.count, columns.count

    @property
    def tiles(self) -> int:
        """The number of tiles. Their indices are row-major."""
        return self.shape[0] * self.shape[1]

    @property
    def tile_area(self) -> int:
        """The number of pixels of a tile; one whose shape follows the panorama may have up to half as many more."""
        return area(self.tile_px)

    def member(self, index: int) -> str:
        """Returns the key of a tile's files in its shard: row and column in the panorama, zero-padded."""
        rows, columns = self.shape
        row, column = divmod(index, columns)
        return f"{row:0{len(str(rows - 1))}d}_{column:0{len(str(columns - 1))}d}"

    def computed(self, index: int) -> tuple[Window, Window]:
        """Returns the rows and columns of world pixels for which a tile is computed."""
        if not isinstance(self.tile_px, int):
            return self.cropped(index)
        (rows, columns), (row, column) = self.cuts, divmod(index, self.shape[1])
        return (rows.cut(row), rows.cut(row + 1) - 1), (columns.cut(column), columns.cut(column + 1) - 1)

    def cropped(self, index: int) -> tuple[Window, Window]:
        """Returns the rows and columns of world pixels of the part of a tile that lies inside the panorama."""
        (rows, columns), (row, column) = self.cuts, divmod(index, self.shape[1])
        return rows.part(row), columns.part(column)

    @property
    def layout(self) -> TileLayout:
        """The cuts of the panorama into tiles."""
        rows, columns = self.cuts
        return TileLayout(columns.edges, rows.edges)


@dataclass(frozen=True, slots=True)
class PatchShard:
    """The patches of consecutive tiles of one panorama: the unit of work, of retry and of resume.

    Attributes:
        plan: the plan of the panorama.
        first: the index of its first tile.
        last: the index of its last tile.
    """

    plan: Plan
    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < self.plan.tiles:
            raise ValueError(f"tiles {self.first} to {self.last} are not within 0 to {self.plan.tiles - 1}")

    @property
    def indices(self) -> range:
        """The indices of its tiles."""
        return range(self.first, self.last + 1)

    @property
    def name(self) -> str:
        """The name of its file."""
        digits = len(str(self.plan.tiles - 1))
        return f"{self.first:0{digits}d}-{self.last:0{digits}d}.tar"


@dataclass(frozen=True, slots=True)
class Failure:
    """A shard that could not be made, with the reason."""

    request_id: str
    part: str
    reason: str


def plan_from_json(values: Mapping[str, Any], checkpoint_url: str, name: str) -> Plan:
    """Restores the plan from a panorama's record.

    Args:
        values: the record's JSON.
        checkpoint_url: the current URL of its checkpoint.
        name: the name of the record in an error.

    Raises:
        InputError: the record is not a plan, or is one by another version of this program.
    """
    if not isinstance(values, dict) or not isinstance(values.get("request"), dict):
        raise InputError(f"{name} is not the record of a panorama")
    if values.get("scheme_version") != SCHEME_VERSION:
        raise InputError(f"{name} has scheme version {values.get('scheme_version')}; it should be {SCHEME_VERSION}")
    try:
        fields = {field: values[field] for field in ("checkpoint_sha256", "precision")}
        tile_px = tile_size(values["tile_px"])
        request = RenderRequest.from_json({**LATER_FIELDS, **values["request"]})
        overlays = tuple(values["overlays"][overlay] for overlay in request.definition.overlay_names)
    except (KeyError, TypeError) as error:
        raise InputError(f"{name} lacks {error}") from None
    if not all(isinstance(text, str) for text in (fields["checkpoint_sha256"], fields["precision"], *overlays)):
        raise InputError(f"{name} does not give the checkpoint, the precision or the overlays as text")
    plan = Plan(request, checkpoint_url, **fields, tile_px=tile_px, overlays=overlays)
    if plan.digest != values.get("plan"):
        raise InputError(f"{name} does not match its own plan, {values.get('plan')}: it has been changed")
    return plan
