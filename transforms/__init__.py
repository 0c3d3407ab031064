"""Beam PTransforms, and the plain functions that they wrap."""
