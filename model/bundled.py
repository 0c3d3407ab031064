"""The checkpoint that comes with the package, by a name that means the same on every worker."""

from pathlib import Path

BUNDLED = "bundled"
CHECKPOINT = Path(__file__).parent / "weights" / "small.safetensors"


def resolve(url: str) -> str:
    """Where a checkpoint is: for the name "bundled", in the package as installed here."""
    return str(CHECKPOINT) if url == BUNDLED else url
