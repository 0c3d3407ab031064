"""The project's own rule of structure holds. `make lint` checks style and types."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
