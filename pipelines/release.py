"""What comes with the package: its version and the bundled checkpoint."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path

import model

BUNDLED = "bundled"
WEIGHTS = Path(model.__file__).parent / "weights"
BUNDLED_CHECKPOINT = str(WEIGHTS / "small.safetensors")


def version() -> str:
    """The installed version of the distribution."""
    try:
        return distribution_version("infinitygan")
    except PackageNotFoundError:
        return "unknown"
