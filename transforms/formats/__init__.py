"""Panorama files: one module per format, each writing strips of pixels."""
