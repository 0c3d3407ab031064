"""The version of the distribution, which every output names."""

__version__ = "0.1.0"
