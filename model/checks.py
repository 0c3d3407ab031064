"""What kind of number a value from outside is."""

from typing import Any, TypeGuard

from model.errors import InputError


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number, 0 or more."""
    return is_integer(value) and value >= 0


def check_seed(seed: int) -> None:
    """Raises InputError for a seed that is no key of the world's random numbers."""
    if not 0 <= seed < 2**64:
        raise InputError(f"seed is {seed}; it must be from 0 to 2^64 - 1")
