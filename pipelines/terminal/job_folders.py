"""Folders for the files of a job at work."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.terminal.failures import Detached, UnwatchedError
from transforms.render.job_folder import new_job_folder
from transforms.storage.files import remove
from transforms.storage.retry import retried


@contextmanager
def folder_of_job(out: str) -> Iterator[str]:
    """Yields the URL of a new folder for the job's own files.

    It is removed at the end of the block, unless the job goes on; then its last step should do so.
    """
    folder, goes_on = new_job_folder(out).url, False
    try:
        yield folder
    except (Detached, UnwatchedError):
        goes_on = True
        raise
    finally:
        if not goes_on:
            retried(remove, folder)
