import errno

import pytest

import transforms.storage.retry
from model.errors import InputError
from transforms.storage.retry import WAITS_S, retried


class StoreError(Exception):
    """What a store may raise: no OSError."""


@pytest.fixture
def waits(monkeypatch):
    """How long was waited, without waiting."""
    waited = []
    monkeypatch.setattr(transforms.storage.retry.time, "sleep", waited.append)
    return waited


def failing(error, times):
    """A function that fails so many times."""
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
