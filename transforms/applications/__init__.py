"""Photographs in worlds: inversion, arrangement and edits."""
