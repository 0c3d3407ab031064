"""Overlay files on storage."""

from model.errors import InputError
from model.overlay import MOST_BYTES, Overlay, load_overlay
from transforms.storage import filesystem


def read_overlay(url: str, sha256: str | None = None) -> Overlay:
    """Reads an overlay.

    Args:
        url: the file.
        sha256: of the file that a plan is made with; None to take whatever is there.

    Raises:
        InputError: there is no such file, it is none or too large, or another one than the plan's.
    """
    fs, path = filesystem(url)
    if not fs.isfile(path):
        raise InputError(f"overlay {url}: there is no such file")
    if fs.size(path) > MOST_BYTES:
        raise InputError(f"overlay {url} has {fs.size(path)} bytes; at most {MOST_BYTES} are read")
    overlay = load_overlay(fs.cat_file(path), url)
    if sha256 not in (None, overlay.sha256):
        raise InputError(f"{url} is no longer the overlay of the plan; run render again")
    return overlay
