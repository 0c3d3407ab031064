import asyncio
import errno

import pytest

import transforms.storage.retry
from model.errors import InputError
from transforms.storage.retry import WAITS_S, pauses, repeat, repeat_async, retried


class StoreError(Exception):
    """An error that a store may raise, which is not an OSError."""


@pytest.fixture
def waits(monkeypatch):
    """Records the pauses instead of waiting."""
    waited = []
    monkeypatch.setattr(transforms.storage.retry.time, "sleep", waited.append)
    return waited


def failing(error, times):
    """Returns a function that fails the given number of times."""
    calls = []

    def function(a, b=0):
        calls.append(1)
        if len(calls) <= times:
            raise error
        return a + b

    return function, calls


@pytest.mark.parametrize(
    "error", [OSError("reset"), TimeoutError(), ConnectionResetError(), StoreError("503"), OSError(errno.EIO, "I/O")]
)
def test_what_may_pass_is_tried_again_after_longer_and_longer_waits(error, waits):
    function, calls = failing(error, len(WAITS_S))
    assert retried(function, 1, b=2) == 3
    assert len(calls) == len(WAITS_S) + 1
    assert all(0.5 * wait_s <= waited <= 1.5 * wait_s for wait_s, waited in zip(WAITS_S, waits, strict=True))


def test_the_last_error_is_raised(waits):
    function, calls = failing(StoreError("503"), 100)
    with pytest.raises(StoreError, match="503"):
        retried(function, 1)
    assert len(calls) == len(WAITS_S) + 1


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("x"),
        PermissionError("x"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError(errno.EFBIG, "File too large"),
        InputError("x"),
        KeyError("x"),
        MemoryError(),
    ],
)
def test_what_will_not_pass_is_raised_at_once(error, waits):
    function, calls = failing(error, 1)
    with pytest.raises(type(error)):
        retried(function, 1)
    assert (len(calls), waits) == (1, [])


def test_a_policy_counts_attempts_and_gives_up_when_its_waits_are_over(waits):
    attempts = []

    def function(attempt):
        attempts.append(attempt)
        raise KeyError(attempt)

    with pytest.raises(KeyError, match="3"):
        repeat(function, pauses((0.1, 0.2), lambda error: True))
    assert attempts == [1, 2, 3]
    assert len(waits) == 2


def test_a_coroutine_is_repeated_as_its_own_policy_says(monkeypatch):
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(transforms.storage.retry.asyncio, "sleep", sleep)

    async def function(attempt):
        if attempt < 3:
            raise StoreError(str(attempt))
        return attempt

    assert asyncio.run(repeat_async(function, lambda error, attempt: 10.0 * attempt)) == 3
    assert waited == [10, 20]
    with pytest.raises(StoreError, match="1"):
        asyncio.run(repeat_async(function, lambda error, attempt: None))
