"""Jobs on a cluster, seen from anywhere: their state, and how to cancel them."""

from apache_beam.runners.runner import PipelineState

from model.errors import InputError
from pipelines.terminal.failures import JobFailedError
from pipelines.terminal.job_records import JOB, found_again, read_record, unreachable
from pipelines.terminal.jobs import CANCELLED_IN_S, cancel, counts_of
from transforms.ingest.run_mark import revoke
from transforms.storage.files import join, remove

FAILED = (PipelineState.FAILED, PipelineState.CANCELLED)


def status(out: str) -> tuple[str, bool]:
    """Returns a line about the job that writes to a folder, and whether it failed.

    Raises:
        InputError: the folder's record is damaged.
        JobFailedError: the runner does not answer.
    """
    record = read_record(out)
    if record is None:
        return f"{out}: no job on a cluster is at work here; `infinitygan info` shows the contents", False
    result = found_again(record)
    try:
        state, counts = result.state, counts_of(result)
    except Exception as error:  # a runner raises errors of its own
        raise unreachable(record, error) from None
    done = ", ".join(f"{title} {count}" for title, count in sorted(counts.items()))
    line = f"{out}: {record['command']}, job {record['job']} on {record['runner']}, since {record['started']}: {state}"
    if PipelineState.is_terminal(state):
        remove(join(out, JOB))
    return f"{line}; {done or 'no worker has begun'}", state in FAILED


def cancel_job(out: str) -> str:
    """Cancels the job that writes to a folder and waits for its end; returns a line about it.

    Raises:
        InputError: no job writes there.
        JobFailedError: the runner does not answer, or does not end the job.
    """
    record = read_record(out)
    if record is None:
        raise InputError(f"{out}: no job on a cluster is at work here")
    revoke(out)  # whatever the runner does, the job's workers change nothing that is finished from now on
    result = found_again(record)
    try:
        cancel(result)
        state = result.state
    except Exception as error:  # a runner raises errors of its own
        raise unreachable(record, error) from None
    if not PipelineState.is_terminal(state):
        raise JobFailedError(f"job {record['job']} is still {state.lower()} after {CANCELLED_IN_S:.0f} s; try again")
    remove(join(out, JOB))
    return f"{out}: job {record['job']} is {state.lower()}; the same command, run again, continues it"
