"""One photograph's bytes to one training image: a plain function, the same wherever the bytes come from."""

import hashlib
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass

from model.errors import InputError, one_line
from transforms.photographs.codec import LONGEST_SIDE_PX, Picture, decoding, encode, frame, store
from transforms.photographs.filters import check_content, check_shape
from transforms.photographs.hashes import crop_hashes, detail_hash, grey_grid, perceptual_hash
from transforms.storage.byte_ranges import Piece, read_pieces
from transforms.storage.files import filesystem
from transforms.storage.memory import DEFAULT_BYTES, Budget, Memory, OverBudgetError
from transforms.storage.retry import passes
from transforms.training_set.records import Photograph, Reject, Rejection
from transforms.training_set.samples import Sample, plan_patches, sample_key, split_of

READ_ATTEMPTS = 3
STORING_BYTES = 24
"""Memory for each pixel of the stored image, with what is made of it to judge and to encode it."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What becomes of a photograph.

    Attributes:
        full_size_px: height to which photographs are scaled.
        patch_size_px: side of the patches that training and evaluation will crop.
        square: cut every photograph to its middle square.
        via_size_px: height to which they are scaled first; None for no such step.
        suffix: what they are stored as: jpg, webp or png.
        quality: of the stored file, 1 to 100.
        min_side_px: the originals' short side must have so many; None for the patches' side.
        max_aspect: an original's long side may be so many times its short one.
        content_filters: refuse what is nearly black, flat, mostly text or mostly border.
    """

    full_size_px: int = 197
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
        if not self.patch_size_px <= self.full_size_px <= longest_px:
            bounds = f"the patch size, {self.patch_size_px}, to {longest_px} pixels"
            raise InputError(f"--full-size {self.full_size_px} is out of range: give from {bounds}")
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
        sample: all that is to be known of it.
        image: its encoded image.
        crop_hashes: its detail hashes under all crops.
        origin: where the photograph's own bytes are, if it came out of an archive.
    """

    sample: Sample
    image: bytes
    crop_hashes: bytes
    origin: Piece | None


def prepare_photograph(
    photograph: Photograph, content: bytes, attempts: int, how: Preparation, budget: Budget | None = None
) -> Prepared | Reject:
    """Makes a photograph's bytes a training image, and says all that is to be known of it.

    Args:
        photograph: where it comes from.
        content: its file.
        attempts: how often it was asked for.
        how: what becomes of it.
        budget: the memory that all photographs prepared at the same time share; None for what one has by default.
    """
    budget = budget or Memory(DEFAULT_BYTES).pictures
    try:
        with decoding(content, how.full_size_px, budget, lambda *size: storing_bytes(size, how)) as picture:
            return _prepare(photograph, content, picture, attempts, how)
    except Rejection as rejection:
        return photograph.reject("decode", rejection.reason, rejection.message, attempts)


def storing_bytes(size: tuple[int, int], how: Preparation) -> int:
    """Returns the memory that it takes at most to scale, judge and encode a photograph of this size, turned or not."""
    longest_px = LONGEST_SIDE_PX[how.suffix]
    needed = []
    for width_px, height_px in (size, size[::-1]):
        framing = frame(width_px, height_px, how.full_size_px, how.square, longest_px)
        scaled_first = framing.width_px * (height_px + (how.via_size_px or 0)) * 4
        needed.append(scaled_first + framing.width_px * framing.height_px * STORING_BYTES)
    return max(needed)


def _prepare(
    photograph: Photograph, content: bytes, picture: Picture, attempts: int, how: Preparation
) -> Prepared | Reject:
    stage = "frame"
    try:
        check_shape(picture, how.min_side_px or how.patch_size_px, how.max_aspect)
        longest_px = LONGEST_SIDE_PX[how.suffix]
        framing = frame(picture.width_px, picture.height_px, how.full_size_px, how.square, longest_px)
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
    """Returns the bytes of a photograph on some file system, and how many attempts they took.

    Args:
        photograph: where they are.
        budget: the memory that all files that are read at the same time share.
        held: gives their memory back to the budget when it ends.

    Raises:
        Rejection: it cannot be read, or is too large to be.
    """
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            return _read(photograph, budget, held), attempt
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise Rejection("unreadable", error.strerror or one_line(error)) from None
        except OverBudgetError as error:
            raise Rejection("too_large", one_line(error)) from None
        except Rejection:
            raise
        except Exception as error:  # each store has errors of its own, and not all of them are OSErrors
            if not passes(error):
                raise Rejection("unreadable", one_line(error)) from None
            if attempt == READ_ATTEMPTS:
                raise Rejection("unreadable", f"{one_line(error)} ({attempt} attempts)") from None
            held.close()
            time.sleep(0.1 * 4**attempt)
    raise AssertionError("unreachable")


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
