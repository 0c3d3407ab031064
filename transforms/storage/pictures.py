"""Pictures are opened here alone, so that Pillow is always told which formats to accept."""

import io
from collections.abc import Sequence
from typing import IO, Final

from PIL import Image, UnidentifiedImageError

Image.init()
STORED_FORMATS: Final = ("JPEG", "PNG", "WEBP")
"""The formats of the pictures in a training set."""

_WANTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF", "PPM", "TGA")
FORMATS: Final = tuple(name for name in _WANTED_FORMATS if name in Image.OPEN)
"""Only these decoders are let loose on files from outside, as far as this Pillow was built with them."""

# Pillow's own guard would warn above 89 megapixels and refuse above 179. Sizes are checked here instead, before any
# pixel is decoded, against one limit with one outcome.
Image.MAX_IMAGE_PIXELS = None


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
    try:
        return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=list(formats))
    except UnidentifiedImageError:  # whose own message names an address in memory
        raise UnidentifiedImageError(f"not a picture in the format {' or '.join(formats)}") from None
