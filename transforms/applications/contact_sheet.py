"""A contact sheet: several pictures on one page, one below the other."""

import io
from collections.abc import Sequence

from PIL import Image

from transforms.storage.files import read_bytes, write_bytes
from transforms.storage.pictures import open_picture

WIDTH_PX, GAP_PX = 1280, 8
MOST_PX = 64_000_000
"""The largest picture that is put on a contact sheet, because Pillow decodes it whole."""


def write_contact_sheet(url: str, pictures: Sequence[str]) -> bool:
    """Writes a JPEG of PNG pictures scaled to the same width; returns whether any was small enough to be included."""
    shown = [small for small in map(scaled, pictures) if small is not None]
    if not shown:
        return False
    height_px = sum(image.height + GAP_PX for image in shown) - GAP_PX
    sheet = Image.new("RGB", (max(image.width for image in shown), height_px), "white")
    top = 0
    for image in shown:
        sheet.paste(image, (0, top))
        top += image.height + GAP_PX
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    write_bytes(url, buffer.getvalue())
    return True


def scaled(url: str) -> Image.Image | None:
    """Returns a picture, at most as wide as the sheet; None if the picture is too large."""
    with open_picture(read_bytes(url), ["PNG"]) as image:
        if image.width * image.height > MOST_PX:
            return None
        width = min(WIDTH_PX, image.width)
        return image.convert("RGB").resize((width, max(1, image.height * width // image.width)), Image.Resampling.BOX)
