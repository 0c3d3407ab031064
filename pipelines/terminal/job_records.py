"""Jobs on a cluster, found again by the record in their output folder."""

import types
from typing import Any, TypedDict, cast

import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2_grpc
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.runner import PipelineState

from model.errors import InputError, one_line
from pipelines.terminal.failures import JobFailedError
from pipelines.terminal.runners import JOB_SERVER_S
from transforms.storage.files import join, read_json

JOB = ".job.json"
"""The record of a job on a cluster, in its output folder, for `infinitygan status` and `infinitygan cancel`."""

FINDING = ("--project", "--region", "--dataflow_endpoint")
"""The flags with which Dataflow finds a job; none that may hold a secret is stored."""


class JobRecord(TypedDict):
    """What finds a job on a cluster again."""

    job: str
    runner: str
    job_endpoint: str | None
    host: str
    started: str
    command: str
    flags: list[str]
    detached: bool


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


def refuse_detached(out: str) -> None:
    """Raises InputError if a detached job is at work in a folder, because a new run would end it."""
    try:
        record = read_record(out)
    except (InputError, OSError):  # the command itself says what is wrong with the folder
        return
    if record is None or not record.get("detached"):
        return
    try:
        state = found_again(record).state
    except (JobFailedError, grpc.RpcError):
        return  # a runner that is gone does no work, and a fence keeps out what is left of it
    if not PipelineState.is_terminal(state):
        raise InputError(
            f"{out}: detached job {record['job']} is {state.lower()} here: see `infinitygan status {out}`; "
            f"`infinitygan cancel {out}` ends it"
        )
