"""A failed job is one line: what happened, and what to do about it."""

import botocore.session
import fsspec
import pytest

from model.errors import InputError
from pipelines.cli import run
from pipelines.terminal.failures import JobFailedError, cause_of, is_of_store, reason_in, told_in_one_line

STORE = {"key": "none", "secret": "none", "endpoint_url": "http://127.0.0.1:1"}
WORKER = """bundle inst004 stage-010 failed:Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1499, in process
  File "/x/transforms/training_set/dataset.py", line 5, in write
    {said}
{error}: {message} [while running 'WriteTables/Write']

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "sdk_worker.py", line 312, in _execute
{error}: {message} [while running 'WriteTables/Write']
"""


def worker_says(error, message):
    return WORKER.format(said="raise", error=error, message=message)


@pytest.mark.parametrize(
    ("said", "kind", "line"),
    [
        (worker_says("model.errors.InputError", "x.tar is damaged"), InputError, "x.tar is damaged"),
        (worker_says("OSError", "[Errno 28] No space left on device: '/o/a'"), OSError, "No space left on device"),
        (worker_says("PermissionError", "Access Denied: bucket b"), OSError, "Access Denied: bucket b"),
        (worker_says("ZeroDivisionError", "division by zero"), JobFailedError, "ZeroDivisionError: division by zero"),
        (worker_says("ModuleNotFoundError", "No module named 'transforms'"), JobFailedError, "--setup_file=./setup.py"),
        (worker_says("ModuleNotFoundError", "No module named 'torch'"), JobFailedError, "the package torch"),
        ('java.io.IOException: Cannot run program "docker": error=2', JobFailedError, "Docker"),
        (
            "org.apache.flink.runtime.jobmanager.scheduler.NoResourceAvailableException: Could not acquire",
            JobFailedError,
            "--parallelism",
        ),
        ("", JobFailedError, "gives no reason"),
    ],
)
def test_the_reason_of_a_worker_is_told_in_one_line(said, kind, line):
    error = cause_of(said)
    assert type(error) is kind
    assert line in str(error)
    assert "\n" not in str(error)
    assert "while running" not in str(error)


def test_the_whole_trace_is_kept_in_a_file():
    said = worker_says("ZeroDivisionError", "division by zero")
    path = str(cause_of(said, "the log")).rpartition("(log: ")[2].rstrip(")")
    with open(path) as file:
        kept = file.read()
    assert said in kept
    assert "the log" in kept


def test_an_error_of_the_program_in_process_is_one_line_too():
    with pytest.raises(JobFailedError, match="KeyError: 'x'"), told_in_one_line():
        raise RuntimeError("KeyError: 'x' [while running 'Step']")


def test_what_a_stores_package_raises_is_of_the_store():
    session = botocore.session.Session()
    with pytest.raises(ValueError, match="Invalid endpoint") as caught:
        session.create_client("s3", "us-east-1", endpoint_url="localhost:9000")
    assert is_of_store(caught.value)
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    assert not is_of_store(caught.value)


def test_errors_of_the_user_and_of_storage_pass_unchanged():
    for error in (InputError("bad"), OSError(28, "full", "file")):
        with pytest.raises(type(error)) as caught, told_in_one_line():
            raise error
        assert caught.value is error


def test_an_error_of_the_user_does_not_name_the_step_of_the_pipeline():
    with pytest.raises(InputError, match=r"^bad$"), told_in_one_line():
        raise InputError("bad [while running 'Step/ParDo(_Read)']")


def test_the_last_error_counts():
    assert reason_in("ValueError: a\nTypeError: b") == ("TypeError", "b")


def test_a_store_that_does_not_answer_is_one_line(monkeypatch, capsys):
    """Stores raise errors of their own classes, which are not OSErrors."""
    monkeypatch.setitem(fsspec.config.conf, "s3", STORE)
    assert run(["info", "s3://bucket/shards"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("infinitygan: storage: Could not connect to the endpoint URL")
    assert len(said.splitlines()) == 1
