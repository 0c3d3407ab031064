"""Photographs to training images: plain functions on bytes and Pillow images.

The result is always upright, 8-bit and sRGB. A photograph that cannot be converted raises a ``Rejection``.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, ROWSPERSTRIP, TILELENGTH, TILEWIDTH, TiffImageFile

from model.errors import one_line
from transforms.photographs.picture_headers import CostlyFileError, MeteredFile, check_header, has_overlapping_tags
from transforms.storage.memory import DEFAULT_BYTES, Budget, Memory
from transforms.storage.pictures import open_picture
from transforms.training_set.records import Rejection

PIXEL_CAP: Final = 200_000_000
"""The most pixels that are decoded: a small file can claim any size (a decompression bomb)."""

LONGEST_SIDE_PX: Final = {"jpg": 65_500, "webp": 16_383, "png": 65_500}
"""The formats that pictures can be stored in, and the longest side that each allows."""

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS: Final = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}
_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()

SAME_LEVELS: Final = 2
"""A profile counts as sRGB if it moves no colour by more than this many levels; makers' own differ by one."""

_COLOURS: Final = Image.fromarray(
    np.stack(np.meshgrid(*3 * [np.arange(0, 256, 15, dtype=np.uint8)]), axis=-1).reshape(-1, 18, 3)
)
"""A sample of colours of all kinds."""

BAND_PX: Final = 1 << 20
"""The number of pixels converted at once, so that working copies take little memory."""

_SLOW_CODECS: Final = {"ppm", "ppm_plain", "bmp_rle"}
SLOW_CAP: Final = 16_000_000
"""The most values (pixels × channels) given to a decoder written in Python, which does four million a second."""

_DECODER_BYTES: Final = {"WEBP": 16, "AVIF": 20, "JPEG2000": 24}
"""The memory per pixel that the decoders themselves take, measured."""

WORKING_BYTES: Final = 24 << 20
"""The memory that does not grow with the picture: bands, buffers, and memory that is not released at once."""

_WITH_ALPHA: Final = ("P", "PA", "LA", "La", "RGBa", "RGBA")
_MODE_BYTES: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2}
"""The bytes that Pillow takes for a pixel; four in all other modes."""
_TRUNCATED = re.compile(r"truncat|unexpected end|broken data stream|not enough data|incomplete", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A decoded photograph, perhaps smaller than the original if no later step needs all its pixels.

    Attributes:
        image: the picture: upright, mode RGB, sRGB.
        width_px: the width of the upright original.
        height_px: the height of the upright original.
    """

    image: Image.Image
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Framing:
    """The part of an original that is stored, and its stored size.

    Attributes:
        crop_box_px: left, top, right and bottom in the upright original's pixels.
        width_px: the stored width.
        height_px: the stored height.
    """

    crop_box_px: tuple[int, int, int, int]
    width_px: int
    height_px: int


def frame(width_px: int, height_px: int, full_px: int, square: bool = False, longest_px: int = 65_500) -> Framing:
    """Decides which part of an original of this size is stored, and at what size.

    A wide picture keeps its full width, unless ``longest_px`` limits it, and is scaled to the height ``full_px``. A
    tall picture, or any picture with ``square``, is first cropped to its middle square.
    """
    if square or height_px > width_px:
        kept_px = min(width_px, height_px)
    else:
        kept_px = min(width_px, longest_px * height_px // full_px)
    side_px = min(width_px, height_px)
    left_px, top_px = (width_px - kept_px) // 2, (height_px - side_px) // 2
    box = (left_px, top_px, left_px + kept_px, top_px + side_px)
    return Framing(box, min(longest_px, max(full_px, round(kept_px * full_px / side_px))), full_px)


def decode(content: bytes, full_px: int) -> DecodedPicture:
    """Decodes a photograph as `decoding` does, within the memory that ingest gives a photograph by default.

    Raises:
        Rejection: as `decoding` does.
    """
    with decoding(content, full_px, Memory(DEFAULT_BYTES).pictures) as picture:
        return picture


@contextmanager
def decoding(
    content: bytes, full_px: int, budget: Budget, more_bytes: Callable[[int, int], int] | None = None
) -> Iterator[DecodedPicture]:
    """Decodes the first frame of a photograph: upright, RGB, sRGB. Its memory counts to the budget until the end.

    Transparent parts become white, as they look on a web page. A JPEG is decoded at a reduced scale if that leaves at
    least twice the pixels that ``full_px`` needs; the resize that follows then loses nothing visible.

    Args:
        content: the photograph's file.
        full_px: the height to which it will be scaled.
        budget: the memory for all photographs that are decoded at the same time.
        more_bytes: the memory that the block needs in addition to the picture, given the original's width and height.

    Raises:
        Rejection: empty, not a picture, truncated, of too many pixels, of an unsupported kind, or too costly to decode.
    """
    with ExitStack() as held:
        with _rejections(), _open_photograph(content) as file:
            full_size = file.size
            _draft(file, full_px)
            need = decoding_bytes(file, full_size) + len(content) + (more_bytes(*full_size) if more_bytes else 0)
            held.enter_context(budget.hold(need, f"a {file.format} of {full_size[0]}×{full_size[1]} px"))
            picture = _decode(file, full_size)
        yield picture


def decoding_bytes(file: Image.Image, full_size: tuple[int, int]) -> int:
    """Returns the most memory needed to decode and convert a photograph whose header has been read.

    Pillow holds the picture whole. A picture that is turned or converted exists twice at the same time.

    Args:
        file: the photograph; a JPEG at the scale at which it will be decoded.
        full_size: width and height that its header states, in pixels.
    """
    pixels = file.width * file.height
    if isinstance(file, JpegImageFile):
        decoder = _coefficient_bytes(file, full_size)
    elif isinstance(file, TiffImageFile):
        decoder = _tile_bytes(file)
    else:
        decoder = _DECODER_BYTES.get(file.format or "", 4) * pixels
    return _MODE_BYTES.get(file.mode, 4) * pixels + max(decoder, 4 * pixels) + WORKING_BYTES


def to_srgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to 8-bit sRGB without alpha; returns it unchanged if it is that already."""
    is_flat = image.mode not in _WITH_ALPHA and "transparency" not in image.info
    mode = image.mode if is_flat else "RGB"
    if mode.startswith("I;16"):
        mode = "L"
    profile = image.info.get("icc_profile") or (_LAB if mode == "LAB" else None)
    transform = _transform(profile, mode) if profile and mode in ("RGB", "L", "CMYK", "LAB") else None
    if image.mode == "RGB" and is_flat and transform is None:
        return image
    result, rows = Image.new("RGB", image.size), max(1, BAND_PX // image.width)
    for top in range(0, image.height, rows):
        band = _to_eight_bits(image.crop((0, top, image.width, min(top + rows, image.height))))
        if not is_flat and ("transparency" in band.info or band.mode in _WITH_ALPHA):
            band = _onto_white(band.convert("RGBA"))
        result.paste(transform.apply(band) if transform else band.convert("RGB"), (0, top))
    return result


def store(picture: DecodedPicture, framing: Framing, via_px: int | None = None) -> Image.Image:
    """Crops and resizes a picture as the framing says, with antialiasing, via the height ``via_px`` if given."""
    scale_x = picture.image.width / picture.width_px
    scale_y = picture.image.height / picture.height_px
    left, top, right, bottom = framing.crop_box_px
    box: tuple[float, float, float, float] | None = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
    image = picture.image
    if via_px is not None:
        via_width_px = max(1, round(via_px * framing.width_px / framing.height_px))
        image, box = image.resize((via_width_px, via_px), Image.Resampling.LANCZOS, box=box), None
    return image.resize((framing.width_px, framing.height_px), Image.Resampling.LANCZOS, box=box)


def encode(image: Image.Image, suffix: str, quality: int) -> bytes:
    """Encodes a picture; the bytes do not depend on when or where they were made.

    Args:
        image: the picture, mode RGB.
        suffix: jpg (4:4:4, full colour resolution), webp or png (lossless, whatever the quality).
        quality: the quality, from 1 to 100.
    """
    buffer = io.BytesIO()
    if suffix == "jpg":
        image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=False)
    elif suffix == "webp":
        image.save(buffer, "WEBP", quality=quality)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def _open_photograph(content: bytes) -> Image.Image:
    """Opens a photograph and checks its header."""
    if not content:
        raise Rejection("empty", "the file is empty")
    file = open_picture(MeteredFile(check_header(content)))
    _check_pixel_count(*file.size)
    _check_codec(file)
    return file


def _draft(file: Image.Image, full_px: int) -> None:
    """Lets a JPEG be decoded at a reduced scale."""
    if file.format == "JPEG":
        shrink = 2 * full_px / min(file.size)
        file.draft(file.mode, (ceil(file.width * shrink), ceil(file.height * shrink)))  # type: ignore[attr-defined]


def _decode(file: Image.Image, full_size: tuple[int, int]) -> DecodedPicture:
    file.seek(0)
    file.load()
    turn = _turn(file)
    image = file
    if turn is not None:
        image = file.transpose(turn)
        file.close()  # releases its pixels
    image = to_srgb(image)
    if file.format != "JPEG":
        return DecodedPicture(image, *image.size)
    return DecodedPicture(image, *(full_size[::-1] if turn in _QUARTER_TURNS else full_size))


def _check_codec(file: Image.Image) -> None:
    """Raises CostlyFileError for a large picture whose decoder is written in Python."""
    values = file.width * file.height * len(file.getbands())
    codecs = {tile[0] for tile in file.tile}  # type: ignore[attr-defined]
    if codecs & _SLOW_CODECS and values > SLOW_CAP:
        raise CostlyFileError(f"a {file.format} of this kind takes too long with {values} values; at most {SLOW_CAP}")


def _coefficient_bytes(file: JpegImageFile, full_size: tuple[int, int]) -> int:
    """Returns the memory that libjpeg keeps for a JPEG of several scans: two bytes per sample of each component.

    A header does not tell the number of scans: baseline JPEGs may have several, too.
    """
    densest = max(layer[1] for layer in file.layer) * max(layer[2] for layer in file.layer)
    return int(2 * sum(layer[1] * layer[2] for layer in file.layer) / densest * full_size[0] * full_size[1])


def _tile_bytes(file: TiffImageFile) -> int:
    """Returns the size of a TIFF's largest tile or strip, which is decoded whole; it may exceed the picture."""
    tags = file.tag_v2
    width, height = tags.get(TILEWIDTH), tags.get(TILELENGTH)
    if width is None or height is None:
        width, height = file.width, min(file.height, tags.get(ROWSPERSTRIP, file.height))
    bits = tags.get(BITSPERSAMPLE, (8,))
    return int(width) * int(height) * max(4, int(sum(bits)) // 8)


def _check_pixel_count(width_px: int, height_px: int) -> None:
    if width_px * height_px > PIXEL_CAP:
        megapixels = width_px * height_px / 1e6
        raise Rejection(
            "too_large", f"{width_px}×{height_px} px are {megapixels:.0f} megapixels; at most {PIXEL_CAP / 1e6:.0f}"
        )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Returns the transpose that makes a loaded image upright; an unreadable EXIF block is ignored.

    Pillow has already turned a TIFF. XMP is not consulted, because browsers ignore it too.
    """
    try:
        raw = image.info.get("Raw profile type exif")  # of a PNG: hexadecimal after three lines
        block = image.info.get("exif") or (bytes.fromhex("".join(raw.split("\n")[3:])) if raw else b"")
        if has_overlapping_tags(block.removeprefix(b"Exif\0\0")):
            return None
        exif = Image.Exif()  # not image.getexif(), which consults XMP too
        exif.load(block)
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken blocks raise errors of many types
        return None
    return _TURNS.get(orientation)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey to 8 bits; Pillow itself would clip it at 255."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.uint32)
        grey = Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))
        grey.info = dict(image.info)
        # A transparent grey value refers to the 16-bit scale, and is meaningless on the new one.
        grey.info.pop("transparency", None)
        return grey
    if image.mode in ("I", "F"):
        raise Rejection("unsupported", f"pixels of 32 bits (mode {image.mode}): convert it to 8 or 16 bits")
    return image


def _onto_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    return page.convert("RGB")


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns the transform from a colour profile to sRGB.

    None if the profile is sRGB already, is broken, or is not meant for this kind of image.
    """
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(_SRGB),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if mode == "RGB" and _changes_nothing(transform) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Returns whether a profile is sRGB, whatever its name: some profiles called sRGB are linear."""
    moved = np.abs(np.asarray(transform.apply(_COLOURS), np.int16) - np.asarray(_COLOURS, np.int16))
    return int(moved.max()) <= SAME_LEVELS


@contextmanager
def _rejections() -> Iterator[None]:
    """Converts the errors of Pillow's decoders, of almost any type, into rejections."""
    try:
        yield
    except Rejection:
        raise
    except MemoryError as error:
        raise Rejection("too_large", one_line(error) if error.args else "not enough memory to decode it") from None
    except CostlyFileError as error:
        raise Rejection("too_costly", str(error)) from None
    except Exception as error:
        raise _rejection(error) from None


def _rejection(error: Exception) -> Rejection:
    text = one_line(error)
    if _TRUNCATED.search(text):
        return Rejection("truncated", text)
    if isinstance(error, UnidentifiedImageError):
        return Rejection("unreadable", "not a picture in a known format, or its header is damaged")
    return Rejection("unreadable", text)
