"""The metadata of a training image, and the patches of it that evaluation crops.

The network is trained to know a photograph's vertical position, so it is defined once, here, for training and
evaluation alike: ``t`` in [-1, 1], with ``top = (full - patch) * (t + 1) / 2`` pixels.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from model.checks import is_integer
from model.errors import InputError

KEY_PATTERN = re.compile(r"[0-9a-f]{16}(-[1-9][0-9]*)?")
"""The first 16 hex digits of the source's sha256; ``-1``, ``-2``, ... mark further copies if duplicates are kept."""

SPLITS = ("train", "val", "test")
PLANNED_PATCHES = 8


class PatchJson(TypedDict):
    """The JSON value of a `PlannedPatch`."""

    x_px: int
    y_px: int
    size_px: int
    vertical_position: float


class SampleJson(TypedDict):
    """The JSON value of a `Sample`, which describes the fields."""

    key: str
    source: str
    licence: str | None
    author: str | None
    sha256: str
    perceptual_hash: str
    original_width_px: int
    original_height_px: int
    crop_box_px: list[int]
    full_size_px: list[int]
    stored_width_px: int
    stored_height_px: int
    split: str
    full_rows_px: list[int]
    patches: list[PatchJson]
    title: str | None
    detail_hash: str | None


@dataclass(frozen=True, slots=True)
class PlannedPatch:
    """A square of the stored image that evaluation crops.

    Attributes:
        x_px: its left edge.
        y_px: its top edge, in the stored image's rows.
        size_px: its side.
        vertical_position: t, from -1 (the top of the full picture) to 1 (its bottom).
    """

    x_px: int
    y_px: int
    size_px: int
    vertical_position: float

    def __post_init__(self) -> None:
        _check("x_px", self.x_px, self.x_px >= 0, "0 or more")
        _check("y_px", self.y_px, self.y_px >= 0, "0 or more")
        _check("size_px", self.size_px, self.size_px >= 1, "1 or more")
        _check("vertical_position", self.vertical_position, -1 <= self.vertical_position <= 1, "-1 to 1")


@dataclass(frozen=True, slots=True)
class Sample:
    """A training image: its source, the part of the original that it shows, and its split.

    Attributes:
        key: the name of the sample's files in its shard.
        source: the URL or path of the photograph.
        licence: the licence that the source's list, page, API or inventory states.
        author: the author, from the same place.
        sha256: the SHA-256 of the photograph's file.
        perceptual_hash: 64 bits as hex digits; pictures that look alike differ in few of them.
        original_width_px: the width of the upright photograph.
        original_height_px: the height of the upright photograph.
        crop_box_px: left, top, right and bottom of the stored part, in the upright original's pixels.
        full_size_px: width and height of the full picture that the sample shows, in the original's pixels.
        stored_width_px: the width of the image in the shard.
        stored_height_px: the height of the image in the shard.
        split: train, val or test.
        full_rows_px: the rows of the stored image at which the full picture begins and ends.
        patches: the planned evaluation patches.
        title: the title, from the same place as the licence.
        detail_hash: 144 bits of the picture without its outermost 5%, as hex digits, for finding near-duplicates.
    """

    key: str
    source: str
    licence: str | None
    author: str | None
    sha256: str
    perceptual_hash: str
    original_width_px: int
    original_height_px: int
    crop_box_px: tuple[int, int, int, int]
    full_size_px: tuple[int, int]
    stored_width_px: int
    stored_height_px: int
    split: str
    full_rows_px: tuple[int, int]
    patches: tuple[PlannedPatch, ...]
    title: str | None = None
    detail_hash: str | None = None

    def __post_init__(self) -> None:
        _check("key", self.key, KEY_PATTERN.fullmatch(self.key), "16 hex digits, then perhaps -1, -2, ...")
        _check("source", self.source, isinstance(self.source, str) and self.source, "a path or URL")
        for name in ("licence", "author", "title"):
            _check(name, getattr(self, name), isinstance(getattr(self, name), str | None), "text")
        _check("sha256", self.sha256, re.fullmatch(r"[0-9a-f]{64}", self.sha256), "64 hex digits")
        _check(
            "perceptual_hash", self.perceptual_hash, re.fullmatch(r"[0-9a-f]{16}", self.perceptual_hash), "16 digits"
        )
        detail = self.detail_hash or "0" * 36  # sets made before there was one
        _check("detail_hash", self.detail_hash, re.fullmatch(r"[0-9a-f]{36}", detail), "36 hex digits")
        _check("key", self.key, self.sha256.startswith(self.key[:16]), f"the start of sha256, {self.sha256[:16]}")
        _check("split", self.split, self.split in SPLITS, " or ".join(SPLITS))
        for name in ("original_width_px", "original_height_px", "stored_width_px", "stored_height_px"):
            _check(name, getattr(self, name), is_integer(getattr(self, name)) and getattr(self, name) >= 1, "1 or more")
        left, top, right, bottom = self.crop_box_px
        inside = 0 <= left < right <= self.original_width_px and 0 <= top < bottom <= self.original_height_px
        _check("crop_box_px", self.crop_box_px, inside, "a box in the original")
        _check("full_size_px", self.full_size_px, min(self.full_size_px) >= 1, "1 or more")
        _check("full_rows_px", self.full_rows_px, self.full_rows_px[0] < self.full_rows_px[1], "top above bottom")
        for patch in self.patches:
            fits = (
                patch.x_px + patch.size_px <= self.stored_width_px
                and patch.y_px + patch.size_px <= self.stored_height_px
            )
            _check("patches", patch, fits, f"inside {self.stored_width_px}×{self.stored_height_px} px")

    def to_json(self) -> SampleJson:
        """Returns the sample as a JSON value; ``from_json`` reads it back."""
        value = dataclasses.asdict(self)
        value["crop_box_px"] = list(self.crop_box_px)
        value["full_size_px"] = list(self.full_size_px)
        value["full_rows_px"] = list(self.full_rows_px)
        value["patches"] = list(value["patches"])
        return cast(SampleJson, value)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Sample":
        """Restores a sample from its JSON value.

        Raises:
            InputError: a field is missing, unknown or not allowed.
        """
        fields = dict(value)
        try:
            for name in ("crop_box_px", "full_size_px", "full_rows_px"):
                fields[name] = tuple(fields[name])
            fields["patches"] = tuple(PlannedPatch(**patch) for patch in fields["patches"])
            return cls(**fields)
        except InputError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(f"sample {value.get('key')}: its metadata is invalid ({error})") from None


def sample_key(sha256: str, copy: int = 0) -> str:
    """Returns a photograph's key; if duplicates are kept, copy = 1, 2, ... for its further copies."""
    return sha256[:16] if copy == 0 else f"{sha256[:16]}-{copy}"


def split_of(key: str) -> str:
    """Returns the split of a key: 80% train, 10% val, 10% test.

    The copies of a photograph share its split, so that no held-out picture is used in training.
    """
    share = _fraction(key[:16], "split")
    if share < 0.8:
        return "train"
    return "val" if share < 0.9 else "test"


def plan_patches(key: str, width_px: int, full_rows_px: tuple[int, int], patch_px: int) -> tuple[PlannedPatch, ...]:
    """Plans the evaluation patches of a stored image, spread over its heights and its width.

    Heights and columns are each cut into as many strata as there are patches, and the strata are paired in an order
    that depends on the key. All randomness is a hash of the key, so every machine plans the same patches.

    Args:
        key: the sample's key.
        width_px: the width of the stored image.
        full_rows_px: the rows of the stored image where the full picture begins and ends.
        patch_px: the side of a patch.
    """
    top_px, bottom_px = full_rows_px
    free_rows_px = bottom_px - top_px - patch_px
    free_columns_px = width_px - patch_px
    columns = sorted(range(PLANNED_PATCHES), key=lambda index: _fraction(key, f"order/{index}"))
    patches = []
    for row, column in enumerate(columns):
        height = (row + _fraction(key, f"height/{row}")) / PLANNED_PATCHES
        along = (column + _fraction(key, f"width/{row}")) / PLANNED_PATCHES
        y_px = top_px + round(height * free_rows_px)
        # The position is taken from the whole pixel that the crop begins at, so it is exact.
        position = vertical_position(y_px, full_rows_px, patch_px)
        patches.append(PlannedPatch(round(along * free_columns_px), y_px, patch_px, position))
    return tuple(patches)


def vertical_position(y_px: int, full_rows_px: tuple[int, int], patch_px: int) -> float:
    """Returns a patch's vertical position t: -1 at the picture's top, 1 at its bottom, 0 if it fills the whole height.

    Args:
        y_px: the patch's top edge, in the stored image's rows.
        full_rows_px: rows of the stored image where the full picture begins and ends.
        patch_px: side of the patch.
    """
    top_px, bottom_px = full_rows_px
    free_rows_px = bottom_px - top_px - patch_px
    return 2 * (y_px - top_px) / free_rows_px - 1 if free_rows_px else 0.0


def as_copy(sample: Sample, copy: int) -> Sample:
    """Returns the same photograph's sample with the key of its copy number ``copy``, 1 or more."""
    key = sample_key(sample.sha256, copy)
    patch_px = sample.patches[0].size_px
    patches = plan_patches(key, sample.stored_width_px, sample.full_rows_px, patch_px)
    return dataclasses.replace(sample, key=key, patches=patches)


def _fraction(key: str, stream: str) -> float:
    """Returns a number in [0, 1) that depends on the key and the name of the stream."""
    digest = hashlib.sha256(f"{key}/{stream}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _check(name: str, value: object, allowed: object, range_: str) -> None:
    if not allowed:
        raise InputError(f"{name} is {value!r}; it must be {range_}")
