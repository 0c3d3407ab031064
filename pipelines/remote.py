"""Jobs on a cluster, found again by the record in their output folder: their state, and how to cancel them."""

import types
from typing import Any, cast

import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2_grpc
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.runner import PipelineState

from model.errors import InputError, one_line
from pipelines.terminal.failures import JobFailedError
from pipelines.terminal.jobs import CANCELLED_IN_S, JOB, JobRecord, cancel, counts_of
from pipelines.terminal.runners import JOB_SERVER_S
from transforms.storage.files import join, read_json, remove

FAILED = (PipelineState.FAILED, PipelineState.CANCELLED)


def read_record(out: str) -> JobRecord | None:
    """Returns the record of the job that writes to a folder; None if there is none.

    Raises:
        InputError: the record is damaged.
    """
    url = join(out, JOB)
    try:
        record = read_json(url)
    except FileNotFoundError:
        return None
    if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in ("job", "runner", "host")):
        raise InputError(f"{url} does not describe a job: remove it")
    return cast(JobRecord, record)


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


def found_again(record: JobRecord) -> Any:
    """Returns Beam's result of a job that this process did not submit.

    Raises:
        JobFailedError: its job server does not answer, or has ended with the command that submitted the job.
    """
    if record["runner"].startswith("Dataflow"):
        return on_dataflow(record)
    endpoint = record["job_endpoint"]
    if not endpoint:
        raise JobFailedError(
            f"job {record['job']} has its job server in the command that runs on {record['host']}: interrupt that one"
        )
    channel = grpc.insecure_channel(endpoint)
    try:
        grpc.channel_ready_future(channel).result(timeout=JOB_SERVER_S)
    except grpc.FutureTimeoutError:
        raise unreachable(record, f"no answer within {JOB_SERVER_S} s") from None
    server = beam_job_api_pb2_grpc.JobServiceStub(channel)
    return portable_runner.PipelineResult(server, record["job"], iter(()), iter(()))


def on_dataflow(record: JobRecord) -> Any:
    """Returns the result of a job on Dataflow."""
    from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult
    from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient

    client = DataflowApplicationClient(PipelineOptions(record["flags"]), "BEAM_PYTHON")
    runner = types.SimpleNamespace(dataflow_client=client)
    return DataflowPipelineResult(client.get_job(record["job"]), runner)


def unreachable(record: JobRecord, error: object) -> JobFailedError:
    """Returns the error for a job whose runner does not answer."""
    reason = error.details() if isinstance(error, grpc.RpcError) else error
    reason = one_line(reason) if isinstance(reason, Exception) else reason
    where = record["job_endpoint"] or record["runner"]
    return JobFailedError(f"job {record['job']}: {where} does not answer ({reason}); it may have ended")
