"""Distances between sets of pictures, and measurements of single pictures."""
