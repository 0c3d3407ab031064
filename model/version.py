"""The version of the distribution, which is recorded in every output."""

__version__ = "0.1.0"
