"""Opening pictures: the only place that does, so that Pillow always gets a list of accepted formats."""

import io
import warnings
from collections.abc import Sequence
from typing import IO, Final

from PIL import Image, UnidentifiedImageError

Image.init()
STORED_FORMATS: Final = ("JPEG", "PNG", "WEBP")
"""The formats of the pictures in a training set."""

_WANTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF", "PPM", "TGA")
FORMATS: Final = tuple(name for name in _WANTED_FORMATS if name in Image.OPEN)
"""The formats accepted from outside, as far as the installed Pillow supports them."""

# Pillow's own guard would warn above 89 megapixels and refuse above 179. Sizes are instead checked before any pixel
# is decoded, against one limit with one outcome.
Image.MAX_IMAGE_PIXELS = None

# Pillow also warns about damaged metadata, in lines that name no file, between those of the progress.
warnings.filterwarnings("ignore", module="PIL")


def open_picture(file: bytes | IO[bytes], formats: Sequence[str] = FORMATS) -> Image.Image:
    """Opens a picture with Pillow. Only its header is read; pixels are decoded when they are first needed.

    All pictures are opened here, because Pillow by default tries every format that it knows, and some formats start
    other programs (PostScript starts Ghostscript).

    Args:
        file: the picture's bytes, or a binary file.
        formats: Pillow's names of the accepted formats.

    Raises:
        Exception: of almost any type, if the bytes are not a picture in one of these formats.
    """
    try:
        return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=list(formats))
    except UnidentifiedImageError:  # its own message contains a memory address
        raise UnidentifiedImageError(f"not a picture in the format {' or '.join(formats)}") from None
