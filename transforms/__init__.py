"""Beam PTransforms, and the plain functions that they wrap."""

import model  # noqa: F401 - which sets up threads before anything here imports torch
