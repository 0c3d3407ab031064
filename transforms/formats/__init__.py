"""Panorama files: one module a format, all fed with strips of pixels."""
