"""What kind of number a value from outside is."""

from typing import Any, TypeGuard


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number, 0 or more."""
    return is_integer(value) and value >= 0
