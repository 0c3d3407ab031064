"""Retries for storage that fails temporarily."""

import errno
import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

WAITS_S = (0.5, 1.0, 2.0, 4.0)
"""The pauses before each further attempt, varied by up to half so that many workers do not return at once."""

FINAL = (ValueError, TypeError, LookupError, AttributeError, AssertionError, MemoryError)
"""Errors of the data or the program, which another attempt would repeat."""

FINAL_ERRNO = {
    *(errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
}
"""Operating system errors that a wait of a few seconds does not resolve."""

FINAL_OS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
"""The same errors as classes, because stores raise them without a number."""


def passes(error: Exception) -> bool:
    """Returns whether a retry may succeed. Stores raise errors of their own classes, so most errors count as such."""
    if isinstance(error, OSError):
        return not isinstance(error, FINAL_OS) and error.errno not in FINAL_ERRNO
    return not isinstance(error, FINAL)


def retried(function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
    """Calls the function, at most five times. A call that failed half-way must be safe to repeat.

    Raises:
        Exception: the last attempt's error, or the first one that a retry would not resolve.
    """
    for wait_s in WAITS_S:
        try:
            return function(*arguments, **named)
        except Exception as error:
            if not passes(error):
                raise
            time.sleep(wait_s * random.uniform(0.5, 1.5))
    return function(*arguments, **named)
