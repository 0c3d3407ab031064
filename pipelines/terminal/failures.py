"""What a job's failure comes down to: one line, found in what a runner or a worker reports.

Runners wrap a worker's error in their own, often as the text of several tracebacks. The line that matters is the last
one that names an error.
"""

import re
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError

from model.errors import InputError

ERROR_LINE = re.compile(r"^\s*(?:[\w]+(?:Error)?: )*((?:\w+\.)*(\w*(?:Error|Exception|Exit|Interrupt)\w*)): (.*)$")
STEP = re.compile(r" ?\[while running '[^']*'\]")
STORAGE = re.compile(r"\[Errno \d+\]|PermissionError|FileNotFoundError")

STORES = ("botocore", "aiobotocore", "s3fs", "gcsfs", "google", "aiohttp", "aiohttp_retry", "azure", "adlfs")
"""The packages whose errors mean that a store failed, or is not configured."""

CURES = (
    (
        re.compile(r"No module named '(model|transforms|pipelines)"),
        "the workers do not have this package: add --setup_file=./setup.py, or use an image that contains it",
    ),
    (
        re.compile(r"No module named '([\w.]+)"),
        r"the workers do not have the package \1: use an image that contains it, or list it in --requirements_file",
    ),
    (
        re.compile(
            r"docker\b.*(not found|No such file|Cannot run|daemon|permission denied)|Cannot run program .docker", re.I
        ),
        "the workers are started with Docker, which does not work there: install it, or choose another "
        "--environment_type (PROCESS or EXTERNAL)",
    ),
    (
        re.compile(
            r"NoResourceAvailableException|Could not acquire the minimum required resources|not enough slots", re.I
        ),
        "the cluster has too few free slots: add workers, or lower --parallelism",
    ),
    (
        re.compile(
            r"didn't get control connection|failed to connect to .*worker|Timed out.*(environment|worker)", re.I
        ),
        "the workers did not start: see their log, and check --environment_type and --environment_config",
    ),
    (
        re.compile(r"Unable to fetch|urlopen error", re.I),
        "Beam cannot fetch the runner: name the program by --prism_location, the jar by --flink_job_server_jar or "
        "--spark_job_server_jar, or a running job server by --job_endpoint",
    ),
    (
        re.compile(r"java.*(not found|No such file)", re.I),
        "the runner's job server needs Java, which is not installed here",
    ),
)
"""Failures of a cluster, and what to say about each."""


class Detached(Exception):  # noqa: N818 - not an error
    """The job has been submitted, and goes on without this process. The message says how to look at it."""


class JobFailedError(RuntimeError):
    """A job failed for a reason that is not the user's input. The message is one line and names the log."""


class UnwatchedError(JobFailedError):
    """A job may go on, but its job server does not answer any more."""


def is_of_store(error: Exception) -> bool:
    """Returns whether an error is of a store's own class, or was raised in a store's package."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_in = str(frame.f_globals.get("__name__"))
    return any(module.partition(".")[0] in STORES for module in (type(error).__module__, raised_in))


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Raises an error of a job as the error that caused it: InputError, OSError or JobFailedError."""
    try:
        yield
    except InputError as error:
        error.args = (STEP.sub("", str(error)),)
        raise
    except (OSError, JobFailedError, Detached):
        raise
    except RuntimeError as error:
        context = error.__context__
        if isinstance(context, OSError) and not isinstance(context, URLError):  # which is not an error of storage
            raise context from None
        raise cause_of(f"{error}", "".join(traceback.format_exception(error))) from None


def cause_of(said: str, log: str = "") -> Exception:
    """Returns the error to report for a failed job.

    Args:
        said: what the runner says, perhaps with the traceback of a worker.
        log: what else is worth keeping; both are written to a file.
    """
    for pattern, cure in CURES:
        if match := pattern.search(said):
            return JobFailedError(f"the job failed: {match.expand(cure)} (log: {keep(said, log)})")
    name, reason = reason_in(said)
    if name == "InputError":
        return InputError(reason)
    if "Error: [Errno " in said or STORAGE.search(f"{name}: {reason}"):
        return OSError(reason)
    return JobFailedError(f"the job failed: {name + ': ' if name else ''}{reason} (log: {keep(said, log)})")


def reason_in(text: str) -> tuple[str, str]:
    """Returns the class and the message of the last error in a text; without a class if none is named."""
    lines = [STEP.sub("", line) for line in text.splitlines() if line.strip()]
    found = [match for match in map(ERROR_LINE.match, lines) if match]
    if found:
        return found[-1][2], " ".join(found[-1][3].split())[:500]
    return "", " ".join(lines[-1].split())[:500] if lines else "the runner gives no reason"


def keep(said: str, log: str) -> str:
    """Writes all that is known about a failure to a file; returns its path."""
    with tempfile.NamedTemporaryFile("w", prefix="infinitygan-", suffix=".log", delete=False, errors="replace") as file:
        file.write(f"{said}\n\n{log}\n")
    return file.name
