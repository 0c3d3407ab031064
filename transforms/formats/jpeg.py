"""JPEG and WebP, written with Pillow; JPEG strip by strip, so that only one strip is in memory."""

import io
import json
from collections.abc import Iterable, Mapping
from typing import IO
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from transforms.formats.layout import Strip

QUALITY = 90
STRIP_ROWS = 128
"""The height of a strip: eight rows of 16 px blocks, because restart markers are numbered modulo 8."""

MOST_COMMENT_BYTES = 65_000
START_OF_FRAME, START_OF_SCAN, LAST_RESTART, END = 0xC0, 0xDA, b"\xff\xd7", b"\xff\xd9"


def write_jpeg(
    file: IO[bytes], width_px: int, height_px: int, strips: Iterable[Strip], metadata: Mapping[str, str]
) -> None:
    """Writes a JPEG of quality 90, 4:2:0.

    Each strip is encoded as a JPEG with a restart marker after each row of blocks, so that nothing depends on earlier
    rows. The strips' scans, concatenated under one header, make the whole picture.
    """
    blocks = (
        strip.canvas.read(y, 0, min(STRIP_ROWS, strip.top + strip.height_px - y), width_px)
        for strip in strips
        for y in range(strip.top, strip.top + strip.height_px, STRIP_ROWS)
    )
    for number, block in enumerate(blocks):
        header, scan = divided(encode_jpeg(block, restart_marker_rows=1, comment=comment(metadata)), height_px)
        file.write(LAST_RESTART if number else header)
        file.write(scan)
    file.write(END)


def encode_jpeg(pixels: np.ndarray, **settings: object) -> bytes:
    """Encodes uint8 [h,w,3] as a JPEG of quality 90, 4:2:0, with JPEG's own tables of codes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling="4:2:0", **settings)
    return buffer.getvalue()


def divided(content: bytes, height_px: int) -> tuple[bytes, bytes]:
    """Splits a JPEG into its header, with another height written into it, and its scan."""
    header, place = bytearray(content), 2
    while content[place + 1] != START_OF_SCAN:
        if content[place + 1] == START_OF_FRAME:
            header[place + 5 : place + 7] = height_px.to_bytes(2, "big")
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return bytes(header[:place]), content[place : -len(END)]


def comment(metadata: Mapping[str, str]) -> bytes:
    """Returns the metadata as a JSON object, without values too long for a JPEG comment."""
    short = {key: value for key, value in metadata.items() if len(value.encode()) < MOST_COMMENT_BYTES // 2}
    return json.dumps(short, sort_keys=True).encode()[:MOST_COMMENT_BYTES]


def write_webp(
    file: IO[bytes], width_px: int, height_px: int, strips: Iterable[Strip], metadata: Mapping[str, str]
) -> None:
    """Writes a WebP of quality 90. The encoder needs the whole picture in memory; WebP's limits bound its size."""
    pixels = np.empty((height_px, width_px, 3), np.uint8)
    for strip in strips:
        pixels[strip.top : strip.top + strip.height_px] = strip.canvas.read(strip.top, 0, strip.height_px, width_px)
    about = escape(json.dumps(dict(metadata), sort_keys=True))
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
        f'<rdf:li xml:lang="x-default">{about}</rdf:li>'
        "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY, method=2, xmp=xmp.encode())
    file.write(buffer.getbuffer())
