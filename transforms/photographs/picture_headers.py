"""Limits on the work that a file may cause a decoder, checked before Pillow opens it.

Small files can cost minutes and gigabytes. A JPEG may have thousands of scans, each over all its pixels. A TIFF or an
EXIF block may refer to the same bytes thousands of times. A PNG's text may be a thousand times longer unpacked. No
real picture comes near these limits.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final

from PIL import PngImagePlugin

MOST_SCANS: Final = 100
"""The most scans of a JPEG. Real progressive JPEGs have about ten."""

MOST_TEXT_BYTES: Final = 1 << 20
MOST_PROFILE_BYTES: Final = 16 << 20
PngImagePlugin.MAX_TEXT_CHUNK = MOST_PROFILE_BYTES  # Pillow has one limit for texts and profiles

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT: Final = {b"tEXt", b"zTXt", b"iTXt"}

_UPRIGHT: Final = b"Raw profile type exif"
"""The keyword of the text that may hold the orientation."""

_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""The size in bytes of a value of each TIFF type."""

MOST_BLOCKS: Final = 20
OVERLAP: Final = "its EXIF tags name the same bytes again and again"
_TIFF: Final = re.compile(rb"II\*\0|MM\0\*")
_MARKER: Final = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_PROGRESSIVE: Final = {0xC2, 0xC6, 0xCA, 0xCE}
_FRAMES: Final = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_SCAN: Final = 0xDA


class CostlyFileError(ValueError):
    """Raised for a file that causes far more work than any real picture."""


class MeteredFile(io.BytesIO):
    """A picture's bytes, with a limit on how much a decoder may read, and in how many pieces.

    Pillow reads headers in a Python loop, and a file may consist of nothing but headers, or refer to its bytes
    repeatedly.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._reads = _most_steps(content)
        self._bytes = (16 << 20) + 4 * len(content)

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads bytes, like any file.

        Raises:
            CostlyFileError: the decoder has read far more than any real picture of this size needs.
        """
        content = super().read(size)
        self._reads -= 1
        self._bytes -= len(content)
        if self._reads < 0 or self._bytes < 0:
            raise CostlyFileError("its header causes far more work than a real picture's")
        return content


def check_header(content: bytes) -> bytes:
    """Returns the bytes that Pillow may open; unneeded texts are removed from a PNG.

    Raises:
        CostlyFileError: the file would take far too long to decode.
    """
    if content.startswith(b"\xff\xd8"):
        _check_jpeg(content)
    if content[4:8] == b"ftyp":
        _check_avif(content)
    if content.startswith(_PNG):
        return _without_text(content)
    return content


def has_overlapping_tags(content: bytes, block: int = 0) -> bool:
    """Returns whether the first directory of an EXIF block names more bytes than exist. Pillow would copy them all.

    Args:
        content: bytes with an EXIF block in them.
        block: the position of the block.
    """
    order = {b"II": "<", b"MM": ">"}.get(content[block : block + 2])
    if order is None or block + 8 > len(content):
        return False
    start = block + struct.unpack_from(f"{order}L", content, block + 4)[0]
    if start + 2 > len(content):
        return False
    entries = content[start + 2 : start + 2 + 12 * struct.unpack_from(f"{order}H", content, start)[0]]
    whole = entries[: len(entries) // 12 * 12]
    sizes = (_SIZES.get(kind, 0) * count for _, kind, count, _ in struct.iter_unpack(f"{order}HHLL", whole))
    return sum(size for size in sizes if size <= len(content)) > len(content) + (64 << 10)


def _check_jpeg(content: bytes) -> None:
    """Counts the scans, each of which may cost as much as the whole picture, however short it is."""
    scans, exif = 0, []
    for step, (marker, segment) in enumerate(_jpeg_segments(content)):
        if step == _most_steps(content):
            raise CostlyFileError(f"a JPEG of more than {step} segments")
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            exif.append(segment[6:])
        if marker == 0xE2 and segment.startswith(b"MPF\0") and has_overlapping_tags(segment[4:]):
            raise CostlyFileError(OVERLAP)
        scans += marker == _SCAN
        if scans > MOST_SCANS:
            raise CostlyFileError(f"a JPEG of more than {MOST_SCANS} scans; real ones have about 10")
    if has_overlapping_tags(b"".join(exif)):
        raise CostlyFileError(OVERLAP)


def _check_avif(content: bytes) -> None:
    """Checks EXIF blocks, wherever they are: Pillow reads one when it opens the file."""
    for number, found in enumerate(_TIFF.finditer(content)):
        if number == MOST_BLOCKS or has_overlapping_tags(content, found.start()):
            raise CostlyFileError(OVERLAP)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields each marker of a JPEG with its content, up to the first scan, or to the end if it is progressive."""
    place, components, has_more_scans = 2, 0, False
    while found := _MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker in (0x01, 0xD8):
            continue
        if marker == 0xD9 or place + 2 > len(content):
            return
        (length,) = struct.unpack_from(">H", content, place)
        segment = content[place + 2 : place + length]
        place += max(2, length)
        yield marker, segment
        if marker in _FRAMES and len(segment) > 5:
            components, has_more_scans = segment[5], marker in _PROGRESSIVE
        if marker == _SCAN and not has_more_scans and segment[:1] >= bytes([components]):
            return


def _without_text(content: bytes) -> bytes:
    """Returns a PNG without its texts, except for the orientation, and without a profile that is too large."""
    kept, place, seen = [], len(_PNG), set[bytes]()
    start, steps = 0, 0
    while place + 12 <= len(content) and steps <= _most_steps(content):
        steps += 1
        (length,) = struct.unpack_from(">L", content, place)
        kind, end = content[place + 4 : place + 8], place + 12 + length
        if kind in _PNG_TEXT or kind == b"iCCP":
            keyword, _, rest = content[place + 8 : end - 4].partition(b"\0")
            if kind == b"iCCP":
                keyword = kind
            if keyword in seen or not _is_wanted(kind, keyword, rest):
                kept.append(content[start:place])
                start = end
            seen.add(keyword)
        place = end
    return b"".join([*kept, content[start:]]) if kept else content


def _is_wanted(kind: bytes, keyword: bytes, rest: bytes) -> bool:
    if kind == b"iCCP":
        return rest[:1] == b"\0" and _inflates(rest[1:], MOST_PROFILE_BYTES)
    if keyword != _UPRIGHT or len(rest) > MOST_TEXT_BYTES:
        return False
    if kind == b"zTXt":
        return rest[:1] == b"\0" and _inflates(rest[1:], MOST_TEXT_BYTES)
    if kind == b"iTXt" and rest[:1] != b"\0":
        return _inflates(rest[2:].split(b"\0", 2)[-1], MOST_TEXT_BYTES)
    return True


def _most_steps(content: bytes) -> int:
    """Returns the number of pieces that a file of this size may consist of.

    A GIF may have only a few, because Pillow joins its comments in quadratic time.
    """
    if content.startswith(b"GIF8"):
        return 10_000 + len(content) // 16_384
    return 100_000 + len(content) // 256


def _inflates(packed: bytes, most_bytes: int) -> bool:
    """Returns whether bytes inflate, and to at most this many bytes."""
    try:
        return len(zlib.decompressobj().decompress(packed, most_bytes + 1)) <= most_bytes
    except zlib.error:
        return False
