"""Resolves the name of the checkpoint that comes with the package, on any worker."""

from pathlib import Path

BUNDLED = "bundled"
CHECKPOINT = Path(__file__).parent / "weights" / "small.safetensors"


def resolve(url: str) -> str:
    """Returns the path of a checkpoint; "bundled" becomes the file in the installed package."""
    return str(CHECKPOINT) if url == BUNDLED else url
