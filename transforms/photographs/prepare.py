"""From one photograph's bytes to one training image: a plain function, wherever the bytes come from."""

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass

from model.errors import InputError, one_line
from transforms.photographs.codec import LONGEST_SIDE_PX, DecodedPicture, decoding, encode, frame, store
from transforms.photographs.filters import check_content, check_shape
from transforms.photographs.hashes import crop_hashes, detail_hash, grey_grid, perceptual_hash
from transforms.storage.byte_ranges import Piece, read_pieces
from transforms.storage.files import filesystem
from transforms.storage.memory import DEFAULT_BYTES, Budget, Memory, OverBudgetError
from transforms.storage.retry import passes, pauses, repeat
from transforms.training_set.records import Photograph, Reject, Rejection
from transforms.training_set.samples import Sample, plan_patches, sample_key, split_of

READ_AGAIN_AFTER_S = (0.4, 1.6)
STORING_BYTES = 24
"""The memory per pixel of the stored image, including the copies for judging and encoding it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The settings for converting photographs to training images.

    Attributes:
        full_height_px: the height to which photographs are scaled.
        patch_size_px: the side of the patches that training and evaluation will crop.
        square: whether every photograph is cropped to its middle square.
        via_size_px: the height to which photographs are scaled first; None for no such step.
        suffix: the format to store them in: jpg, webp or png.
        quality: the quality of the stored file, 1 to 100.
        min_side_px: the least length of an original's short side; None for the side of the patches.
        max_aspect: the largest ratio of an original's long side to its short one.
        content_filters: whether to refuse pictures that are nearly black, flat, mostly text or mostly border.
    """

    full_height_px: int = 197
    patch_size_px: int = 101
    square: bool = False
    via_size_px: int | None = None
    suffix: str = "jpg"
    quality: int = 95
    min_side_px: int | None = None
    max_aspect: float = 20.0
    content_filters: bool = True

    def __post_init__(self) -> None:
        if self.suffix not in LONGEST_SIDE_PX:
            raise InputError(f"--format {self.suffix} is unknown: give {', '.join(LONGEST_SIDE_PX)}")
        if self.patch_size_px < 1:
            raise InputError(f"--patch-size {self.patch_size_px} is too small: give 1 or more pixels")
        longest_px = LONGEST_SIDE_PX[self.suffix]
        if not self.patch_size_px <= self.full_height_px <= longest_px:
            bounds = f"the patch size, {self.patch_size_px}, to {longest_px} pixels"
            raise InputError(f"--full-size {self.full_height_px} is out of range: give from {bounds}")
        if self.via_size_px is not None and not 1 <= self.via_size_px <= longest_px:
            raise InputError(f"--via-size {self.via_size_px} is out of range: give from 1 to {longest_px} pixels")
        if not 1 <= self.quality <= 100:
            raise InputError(f"--quality {self.quality} is out of range: give from 1 to 100")
        if self.min_side_px is not None and self.min_side_px < 1:
            raise InputError(f"--min-side {self.min_side_px} is too small: give 1 or more pixels")
        if not self.max_aspect >= 1:
            raise InputError(f"--max-aspect {self.max_aspect} is too small: give 1 or more")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A photograph that can go into the set.

    Attributes:
        sample: its metadata.
        image: its encoded image.
        crop_hashes: its detail hashes for all crops.
        origin: the place of the photograph's own bytes, if it came from an archive.
    """

    sample: Sample
    image: bytes
    crop_hashes: bytes
    origin: Piece | None


def prepare_photograph(
    photograph: Photograph, content: bytes, attempts: int, how: Preparation, budget: Budget | None = None
) -> Prepared | Reject:
    """Converts a photograph's bytes to a training image with its metadata.

    Args:
        photograph: the photograph's source.
        content: its file.
        attempts: the number of attempts that reading it took.
        how: the settings.
        budget: the memory shared by all photographs prepared at the same time; None for one photograph's default.
    """
    budget = budget or Memory(DEFAULT_BYTES).pictures
    try:
        with decoding(content, how.full_height_px, budget, lambda *size: storing_bytes(size, how)) as picture:
            return _prepare(photograph, content, picture, attempts, how)
    except Rejection as rejection:
        return photograph.reject("decode", rejection.reason, rejection.message, attempts)


def storing_bytes(size: tuple[int, int], how: Preparation) -> int:
    """Returns the most memory needed to scale, judge and encode a photograph of this size, turned or not."""
    longest_px = LONGEST_SIDE_PX[how.suffix]
    needed = []
    for width_px, height_px in (size, size[::-1]):
        framing = frame(width_px, height_px, how.full_height_px, how.square, longest_px)
        scaled_first = framing.width_px * (height_px + (how.via_size_px or 0)) * 4
        needed.append(scaled_first + framing.width_px * framing.height_px * STORING_BYTES)
    return max(needed)


def _prepare(
    photograph: Photograph, content: bytes, picture: DecodedPicture, attempts: int, how: Preparation
) -> Prepared | Reject:
    stage = "frame"
    try:
        check_shape(picture, how.min_side_px or how.patch_size_px, how.max_aspect)
        longest_px = LONGEST_SIDE_PX[how.suffix]
        framing = frame(picture.width_px, picture.height_px, how.full_height_px, how.square, longest_px)
        image = store(picture, framing, how.via_size_px)
        stage = "filter"
        if how.content_filters:
            check_content(image)
    except Rejection as rejection:
        return photograph.reject(stage, rejection.reason, rejection.message, attempts)
    sha256 = hashlib.sha256(content).hexdigest()
    key = sample_key(sha256)
    left, top, right, bottom = framing.crop_box_px
    rows = (0, framing.height_px)
    grid = grey_grid(image)
    crops = crop_hashes(grid)
    sample = Sample(
        key=key,
        source=photograph.source,
        licence=photograph.licence,
        author=photograph.author,
        sha256=sha256,
        perceptual_hash=perceptual_hash(grid),
        original_width_px=picture.width_px,
        original_height_px=picture.height_px,
        crop_box_px=framing.crop_box_px,
        full_size_px=(right - left, bottom - top),
        stored_width_px=framing.width_px,
        stored_height_px=framing.height_px,
        split=split_of(key),
        full_rows_px=rows,
        patches=plan_patches(key, framing.width_px, rows, how.patch_size_px),
        title=photograph.title,
        detail_hash=detail_hash(crops),
    )
    return Prepared(sample, encode(image, how.suffix, how.quality), crops, photograph.piece)


def read_photograph(photograph: Photograph, budget: Budget, held: ExitStack) -> tuple[bytes, int]:
    """Reads the bytes of a photograph on some file system; returns them and the number of attempts.

    Args:
        photograph: the photograph, with the place of its bytes.
        budget: the memory shared by all files that are read at the same time.
        held: the stack that releases the memory when it closes.

    Raises:
        Rejection: the file cannot be read, or is too large to read.
    """

    def read(attempt: int) -> tuple[bytes, int]:
        held.close()  # what a failed attempt held
        return _read(photograph, budget, held), attempt

    def may_pass(error: Exception) -> bool:
        return passes(error) and not isinstance(error, Rejection)

    try:
        return repeat(read, pauses(READ_AGAIN_AFTER_S, may_pass))
    except Rejection:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise Rejection("unreadable", error.strerror or one_line(error)) from None
    except OverBudgetError as error:
        raise Rejection("too_large", one_line(error)) from None
    except Exception as error:  # stores have errors of their own, and not all of them are OSErrors
        attempts = f" ({1 + len(READ_AGAIN_AFTER_S)} attempts)" if passes(error) else ""
        raise Rejection("unreadable", one_line(error) + attempts) from None


def _read(photograph: Photograph, budget: Budget, held: ExitStack) -> bytes:
    piece = photograph.piece
    if piece is not None:
        held.enter_context(budget.hold(piece.size_bytes, "the file"))
        return next(read_pieces([piece]))
    fs, path = filesystem(photograph.url)
    with fs.open(path, "rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        held.enter_context(budget.hold(size_bytes, "the file"))
        file.seek(0)
        content = file.read(size_bytes + 1)
    if len(content) > size_bytes:
        raise Rejection("unreadable", "the file grew while it was read")
    return content
