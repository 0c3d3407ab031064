"""Beam workers are sent the package with ``--setup_file ./setup.py``; everything else stands in pyproject.toml."""

from setuptools import setup

setup()
