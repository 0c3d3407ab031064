"""Beam PTransforms, and the plain functions that they wrap."""

import model  # noqa: F401 - which sets up threads and memory before anything here imports torch or Arrow
