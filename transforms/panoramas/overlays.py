"""Overlay files on storage."""

from model.errors import InputError
from model.world.overlay import Overlay, load_overlay
from transforms.storage.tensor_files import read_tensors


def read_overlay(url: str, sha256: str | None = None) -> Overlay:
    """Reads an overlay.

    Args:
        url: the file.
        sha256: the SHA-256 of the file in the plan; None to accept any.

    Raises:
        InputError: the file is missing, is not an overlay, is too large, or is not the one that the plan names.
    """
    overlay = load_overlay(read_tensors(url, "overlay"), url)
    if sha256 not in (None, overlay.sha256):
        raise InputError(f"{url} is no longer the overlay of the plan; run render again")
    return overlay
