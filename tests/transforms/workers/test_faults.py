"""Faults that no retry would mend are reported before they are raised; others are left to the runner."""

import errno

import pytest

from model.errors import InputError
from transforms.workers import faults


@pytest.fixture
def heard(monkeypatch):
    reports = []
    monkeypatch.setattr(faults, "count_in_beam", lambda title, more: reports.append(title))
    monkeypatch.setattr(faults.time, "sleep", lambda seconds: None)
    return reports


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (OSError(errno.ENOSPC, "full"), ["fault OSError: [Errno 28] full"]),
        (PermissionError("denied"), ["fault PermissionError: denied"]),
        (InputError("bad"), ["fault InputError: bad"]),
        (OSError(errno.EIO, "flaky"), []),
        (ConnectionResetError("reset"), []),
    ],
)
def test_what_is_permanent_is_reported(error, report, heard):
    with pytest.raises(type(error)), faults.reported():
        raise error
    assert heard == report


def test_in_this_process_an_error_is_raised_at_once(heard):
    with pytest.raises(InputError), faults.in_this_process(), faults.reported():
        raise InputError("bad")
    assert heard == []
