"""Distances between sets of pictures, and what is measured of pictures."""
