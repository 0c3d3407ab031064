"""Retries for storage that fails temporarily."""

import asyncio
import errno
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
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


Pause = Callable[[Exception, int], float | None]
"""Returns how many seconds to wait after an error of an attempt, counted from 1; None to give up."""


def pauses(waits_s: Sequence[float], may_pass: Callable[[Exception], bool] = passes) -> Pause:
    """Returns a policy: as many further attempts as there are waits, for errors that may pass."""

    def pause_s(error: Exception, attempt: int) -> float | None:
        if attempt > len(waits_s) or not may_pass(error):
            return None
        return waits_s[attempt - 1] * random.uniform(0.5, 1.5)

    return pause_s


def repeat(function: Callable[[int], Result], pause_s: Pause) -> Result:
    """Calls a function with the number of the attempt until it succeeds or the policy gives up.

    Raises:
        Exception: the last attempt's error.
    """
    for attempt in count(1):
        try:
            return function(attempt)
        except Exception as error:
            wait_s = pause_s(error, attempt)
            if wait_s is None:
                raise
        time.sleep(wait_s)
    raise AssertionError("unreachable")


async def repeat_async(function: Callable[[int], Awaitable[Result]], pause_s: Pause) -> Result:
    """Does the same as `repeat` with a coroutine function."""
    for attempt in count(1):
        try:
            return await function(attempt)
        except Exception as error:
            wait_s = pause_s(error, attempt)
            if wait_s is None:
                raise
        await asyncio.sleep(wait_s)
    raise AssertionError("unreachable")


def retried(function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
    """Calls the function, at most five times. A call that failed half-way must be safe to repeat.

    Raises:
        Exception: the last attempt's error, or the first one that a retry would not resolve.
    """
    return repeat(lambda attempt: function(*arguments, **named), pauses(WAITS_S))
