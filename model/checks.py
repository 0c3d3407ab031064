"""Checks of numbers that come from outside."""

from typing import TypeGuard

from model.errors import InputError


def is_integer(value: object) -> TypeGuard[int]:
    """Returns whether a value is an integer; bool does not count."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: object) -> TypeGuard[int]:
    """Returns whether a value is an integer of 0 or more."""
    return is_integer(value) and value >= 0


def check_seed(seed: int) -> None:
    """Raises InputError for a seed outside 0 to 2^64 - 1."""
    if not 0 <= seed < 2**64:
        raise InputError(f"seed is {seed}; it must be from 0 to 2^64 - 1")
