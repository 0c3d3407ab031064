"""Storage that fails now and then, asked again after a while."""

import errno
import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

WAITS_S = (0.5, 1.0, 2.0, 4.0)
"""Before each further attempt, give or take half of it, so that many workers do not come back at the same moment."""

FINAL = (ValueError, TypeError, LookupError, AttributeError, AssertionError, MemoryError)
"""Errors of the data or the program: another attempt would end alike."""

FINAL_ERRNO = {
    *(errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
}
"""What no wait of a few seconds will change."""

FINAL_OS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
"""The same as classes: stores raise them without a number."""


def passes(error: Exception) -> bool:
    """Returns whether a retry may succeed. Stores raise errors of their own classes, so most errors count as such."""
    if isinstance(error, OSError):
        return not isinstance(error, FINAL_OS) and error.errno not in FINAL_ERRNO
    return not isinstance(error, FINAL)


def retried(function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
    """Returns what the function returns, at one of five attempts. It must do no harm if it is called again half-way.

    Raises:
        Exception: of the function's last attempt, or one that will not pass.
    """
    for wait_s in WAITS_S:
        try:
            return function(*arguments, **named)
        except Exception as error:
            if not passes(error):
                raise
            time.sleep(wait_s * random.uniform(0.5, 1.5))
    return function(*arguments, **named)
