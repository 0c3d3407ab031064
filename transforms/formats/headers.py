"""What a panorama's file states about itself: its size and its provenance. No pixels are read.

Files may come from anyone, so the amount read is bounded, and only JSON is parsed.
"""

import html
import json
import re
from collections.abc import Callable, Mapping
from typing import IO, Any
from xml.sax.saxutils import unescape

from model.errors import InputError
from transforms.storage.files import filesystem, join

KEY = "InfinityGAN"
MOST_BYTES = 2**24
"""The most bytes read of a document or a page; longer ones are refused."""

MOST_WEBP_BYTES = 2**30
"""The largest WebP that is read, because Pillow reads a WebP whole when it opens it."""

Said = tuple[int, int, Any]
"""Width and height in pixels, and the provenance that the file states."""


def read_said(url: str, suffix: str) -> Said:
    """Reads the size and provenance that a panorama's file states.

    Args:
        url: the file, or the folder of a Zarr array.
        suffix: one of ``READERS``.

    Raises:
        InputError: the file is not a panorama of this project.
    """
    try:
        width_px, height_px, said = READERS[suffix](url)
        said = json.loads(said) if isinstance(said, str) else said
    except OSError as error:
        raise InputError(f"{url} is not a {NAMES[suffix]} that can be read: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{url} is not a {NAMES[suffix]} of this project: {error}") from None
    if not isinstance(said, dict):
        raise InputError(f"{url} is not a panorama of this project: the file does not state its provenance")
    return width_px, height_px, said


def read_png(url: str) -> Said:
    """Reads a PNG's text chunk."""
    return read_picture(url, "PNG", lambda info: info.get(KEY))


def read_jpeg(url: str) -> Said:
    """Reads a JPEG's comment, which holds a JSON object."""
    return read_picture(url, "JPEG", lambda info: json.loads(info.get("comment") or b"{}").get(KEY))


def read_webp(url: str) -> Said:
    """Reads a WebP's XMP, whose description is a JSON object."""
    fs, path = filesystem(url)
    if (fs.size(path) or 0) > MOST_WEBP_BYTES:
        raise InputError(f"{url} has {fs.size(path)} bytes; a WebP may have at most {MOST_WEBP_BYTES}")

    def said(info: Mapping[str | tuple[int, int], Any]) -> Any:
        found = re.search(r'<rdf:li xml:lang="x-default">([^<]*)</rdf:li>', info.get("xmp", b"")[:MOST_BYTES].decode())
        return json.loads(unescape(found[1])).get(KEY) if found else None

    return read_picture(url, "WEBP", said)


def read_picture(url: str, kind: str, said: Callable[[Mapping[str | tuple[int, int], Any]], Any]) -> Said:
    """Reads a picture that Pillow can open."""
    from transforms.storage.pictures import open_picture  # only some formats need Pillow

    fs, path = filesystem(url)
    with fs.open(path, "rb") as file, open_picture(file, [kind]) as image:
        return image.width, image.height, said(image.info)


def read_tiff(url: str) -> Said:
    """Reads the JSON object in a TIFF's ImageDescription."""
    import tifffile  # only TIFF needs it

    fs, path = filesystem(url)
    try:
        with fs.open(path, "rb") as file, tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            return page.imagewidth, page.imagelength, json.loads(page.description).get(KEY)
    except tifffile.TiffFileError as error:
        raise ValueError(error) from None


def read_dzi(url: str) -> Said:
    """Reads the size in the descriptor, and a tag of the page next to it."""
    text = read_text(url)
    width, height = (re.search(rf'<Size [^>]*\b{side}="(\d{{1,10}})"', text) for side in ("Width", "Height"))
    if not (width and height):
        raise ValueError("it has no size")
    page = re.search(rf'<meta name="{KEY}" content="([^"]*)">', read_text(f"{url.removesuffix('.dzi')}.html"))
    return int(width[1]), int(height[1]), json.loads(html.unescape(page[1])).get(KEY) if page else None


def read_zarr(url: str) -> Said:
    """Reads the attributes of a Zarr array."""
    about = json.loads(read_text(join(url, "zarr.json")))
    height_px, width_px = map(int, about["shape"][:2])
    return width_px, height_px, about["attributes"].get(KEY)


def read_record(url: str) -> Said:
    """Reads the JSON record next to a panorama."""
    about = json.loads(read_text(url))
    ours = isinstance(about, dict) and "pixel_sha256" in about
    return (int(about["width_px"]), int(about["height_px"]), about) if ours else (0, 0, None)


def read_text(url: str) -> str:
    """Reads a short text file."""
    fs, path = filesystem(url)
    with fs.open(path, "rb") as file:
        return read_short(url, file).decode()


def read_short(url: str, file: IO[bytes]) -> bytes:
    """Reads a short file.

    Raises:
        InputError: the file is too long.
    """
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InputError(f"{url} is longer than {MOST_BYTES} bytes, the most that is read of such a file")
    return content


READERS: Mapping[str, Callable[[str], Said]] = {
    ".png": read_png,
    ".tif": read_tiff,
    ".dzi": read_dzi,
    ".zarr": read_zarr,
    ".jpg": read_jpeg,
    ".webp": read_webp,
    ".json": read_record,
}
NAMES = {
    ".png": "PNG",
    ".tif": "TIFF",
    ".dzi": "Deep Zoom picture",
    ".zarr": "Zarr array",
    ".jpg": "JPEG",
    ".webp": "WebP",
    ".json": "JSON",
}
