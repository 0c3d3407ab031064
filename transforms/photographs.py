"""Photographs to training images: plain functions on bytes and Pillow images.

Whatever comes in, what goes out is upright, 8-bit and sRGB. What cannot be made so is a ``Rejection`` with a reason.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import IO, Final

import numpy as np
from PIL import ExifTags, Image, ImageCms

from model.errors import one_line

PIXEL_CAP: Final = 200_000_000
"""Larger pictures are not decoded: a small file can claim any size (a decompression bomb)."""

LONGEST_SIDE_PX: Final = {"jpg": 65_500, "webp": 16_383, "png": 65_500}
"""What a picture can be stored as, and the longest side of it that is possible."""

Image.init()
STORED_FORMATS: Final = ("JPEG", "PNG", "WEBP")
"""The formats of the pictures in a training set."""

_WANTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF", "PPM", "TGA")
FORMATS: Final = tuple(name for name in _WANTED_FORMATS if name in Image.OPEN)
"""Only these decoders are let loose on files from outside, as far as this Pillow was built with them."""

# Pillow's own guard would warn above 89 megapixels and refuse above 179. Sizes are checked here instead, before any
# pixel is decoded, against one limit with one outcome.
Image.MAX_IMAGE_PIXELS = None

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
_TRUNCATED = re.compile(r"truncat|unexpected end|broken data stream|not enough data|incomplete", re.IGNORECASE)


class Rejection(Exception):  # noqa: N818 - not an error of the program, but an outcome
    """A photograph that cannot become a training image.

    Attributes:
        reason: one of the stable words that ``rejects.parquet`` and ``dataset.json`` count by.
        message: what is wrong with this one.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded photograph; perhaps smaller than the original, if nothing needs more of its pixels.

    Attributes:
        image: upright, mode RGB, sRGB.
        width_px: of the upright original.
        height_px: of the upright original.
    """

    image: Image.Image
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Framing:
    """What part of an original is stored, and at what size.

    Attributes:
        crop_box_px: left, top, right and bottom in the upright original's pixels.
        width_px: stored width.
        height_px: stored height.
    """

    crop_box_px: tuple[int, int, int, int]
    width_px: int
    height_px: int


def open_picture(file: bytes | IO[bytes], formats: Sequence[str] = FORMATS) -> Image.Image:
    """Opens a picture with Pillow. Only its header is read; pixels are decoded when they are first needed.

    Every picture is opened here, because left alone Pillow tries all formats that it knows, and some start other
    programs (PostScript starts Ghostscript).

    Args:
        file: the picture's bytes, or a binary file.
        formats: Pillow's names of the formats that are accepted.

    Raises:
        Exception: of almost any type, if the bytes are not a picture in one of these formats.
    """
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=list(formats))


def frame(width_px: int, height_px: int, full_px: int, square: bool = False, longest_px: int = 65_500) -> Framing:
    """How an original of this size is stored.

    A wide picture keeps its width, as far as ``longest_px`` lets it, and is scaled to the height ``full_px``. A tall
    one, or any with ``square``, is cut to the square in its middle first.
    """
    if square or height_px > width_px:
        kept_px = min(width_px, height_px)
    else:
        kept_px = min(width_px, longest_px * height_px // full_px)
    side_px = min(width_px, height_px)
    left_px, top_px = (width_px - kept_px) // 2, (height_px - side_px) // 2
    box = (left_px, top_px, left_px + kept_px, top_px + side_px)
    return Framing(box, min(longest_px, max(full_px, round(kept_px * full_px / side_px))), full_px)


def decode(content: bytes, full_px: int) -> Picture:
    """Decodes the first frame of a photograph: upright, RGB, sRGB.

    Transparent parts become white, which is what they look like on a page. A JPEG is decoded at a reduced scale where
    that leaves at least twice the pixels that ``full_px`` needs; the resize after it then loses nothing visible.

    Raises:
        Rejection: empty, not a picture, truncated, of too many pixels, or of an unsupported kind.
    """
    if not content:
        raise Rejection("empty", "the file has no bytes")
    try:
        with open_picture(content) as file:
            _check_pixel_count(*file.size)
            jpeg_size = file.size if file.format == "JPEG" else None
            if jpeg_size:
                shrink = 2 * full_px / min(jpeg_size)
                file.draft(file.mode, (ceil(file.width * shrink), ceil(file.height * shrink)))  # type: ignore[attr-defined]
            file.seek(0)
            file.load()
            turn = _turn(file)
            image = to_srgb(file if turn is None else file.transpose(turn))
    except Rejection:
        raise
    except MemoryError:
        raise Rejection("too_large", "not enough memory to decode it") from None
    except Exception as error:  # Pillow's decoders raise almost anything on broken bytes: none of it may end the run.
        raise _rejection(error) from None
    if jpeg_size is None:
        return Picture(image, *image.size)
    return Picture(image, *(jpeg_size[::-1] if turn in _QUARTER_TURNS else jpeg_size))


def to_srgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit sRGB, without alpha."""
    image = _to_eight_bits(image)
    if image.mode in ("P", "PA", "LA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        profile = image.info.get("icc_profile")
        image = _onto_white(image.convert("RGBA"))
        image.info["icc_profile"] = profile
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "L", "CMYK", "LAB"):
        converted = _from_profile(image, profile)
        if converted is not None:
            return converted
    return image.convert("RGB")


def store(picture: Picture, framing: Framing, via_px: int | None = None) -> Image.Image:
    """Cuts and resizes a picture as the framing says, with antialiasing; on the way to the height ``via_px`` first."""
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
    """A picture's file, with nothing in it that depends on when or where it was made.

    Args:
        image: mode RGB.
        suffix: jpg (with all colour kept, 4:4:4), webp or png (which loses nothing, whatever the quality).
        quality: from 1 to 100.
    """
    buffer = io.BytesIO()
    if suffix == "jpg":
        image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=False)
    elif suffix == "webp":
        image.save(buffer, "WEBP", quality=quality)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def _check_pixel_count(width_px: int, height_px: int) -> None:
    if width_px * height_px > PIXEL_CAP:
        megapixels = width_px * height_px / 1e6
        raise Rejection(
            "too_large", f"{width_px}×{height_px} px are {megapixels:.0f} megapixels; at most {PIXEL_CAP / 1e6:.0f}"
        )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright; an unreadable EXIF block is no reason to lose a photograph.

    Pillow has turned a TIFF already, and then says that nothing is left to do.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as many kinds of error as there are ways to break it
        return None
    return _TURNS.get(orientation)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Pillow would clip 16-bit grey at 255; its whole range is wanted."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.uint32)
        grey = Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))
        grey.info = dict(image.info)
        # A transparent grey value is given on the 16-bit scale, and means nothing on the new one.
        grey.info.pop("transparency", None)
        return grey
    if image.mode in ("I", "F"):
        raise Rejection("unsupported", f"pixels of 32 bits (mode {image.mode}): convert it to 8 or 16 bits")
    return image


def _onto_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    return page.convert("RGB")


def _from_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The image by its colour profile; None where the profile is broken or not meant for this kind of image."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        return ImageCms.profileToProfile(
            image,
            source,
            _SRGB,
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _rejection(error: Exception) -> Rejection:
    text = one_line(error)
    if _TRUNCATED.search(text):
        return Rejection("truncated", text)
    if isinstance(error, Image.UnidentifiedImageError):
        return Rejection("unreadable", "not a picture of a known format, whatever its name says")
    return Rejection("unreadable", text)
