"""Overlay files on storage."""

from model.errors import InputError
from model.world.overlay import Overlay, load_overlay
from transforms.storage.tensor_files import read_tensors


def read_overlay(url: str, sha256: str | None = None) -> Overlay:
    """Reads an overlay.

    Args:
        url: the file.
        sha256: of the file that a plan is made with; None to take whatever is there.

    Raises:
        InputError: there is no such file, it is none or too large, or another one than the plan's.
    """
    overlay = load_overlay(read_tensors(url, "overlay"), url)
    if sha256 not in (None, overlay.sha256):
        raise InputError(f"{url} is no longer the overlay of the plan; run render again")
    return overlay
