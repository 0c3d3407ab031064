"""Folders for the files of a job at work."""

from collections.abc import Iterator
from contextlib import contextmanager

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.terminal.failures import Detached, UnwatchedError
from pipelines.terminal.jobs import is_template
from transforms.render.job_folder import JobFolder, new_job_folder
from transforms.storage.files import remove
from transforms.storage.retry import retried


@contextmanager
def folder_of_job(out: str, flags: PipelineOptions | None) -> Iterator[JobFolder]:
    """Yields a new folder for the files of the job that the block runs, and removes it at the end of the block.

    It stays if the job goes on, or will be run later.
    """
    folder, remains = new_job_folder(out), False
    try:
        yield folder
        remains = is_template(flags)
    except (Detached, UnwatchedError):
        remains = True
        raise
    finally:
        if not remains:
            retried(remove, folder.url)
