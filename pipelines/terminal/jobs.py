"""Runs a pipeline to its end, in this process or on a cluster, and reports its failure in one line."""

import gc
import platform
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    TestOptions,
)
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.runner import PipelineResult, PipelineState

from model.errors import InputError, one_line
from pipelines.terminal.beam_flags import OwnOptions, add_described, beam_options, beam_parser, check_known
from pipelines.terminal.failures import Detached, JobFailedError, UnwatchedError, cause_of, told_in_one_line
from pipelines.terminal.interrupts import cancelled_by_signals
from pipelines.terminal.job_records import FINDING, JOB, JobRecord
from pipelines.terminal.progress import remark, say
from pipelines.terminal.runners import JOB_SERVER_S, RESTARTS
from transforms.storage.files import join, remove, write_json
from transforms.storage.retry import WAITS_S, pauses, repeat
from transforms.storage.tally import NAMESPACE, Collected
from transforms.storage.urls import redact
from transforms.workers.faults import FAULTS, in_this_process

POLL_S = 0.5
CANCELLED_IN_S = 30.0
IN_PROCESS = ("FnApiRunner", "DirectRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner")


@contextmanager
def job(flags: PipelineOptions | None, out: str, stop: threading.Event | None = None) -> Iterator[beam.Pipeline]:
    """Yields a pipeline to add steps to; at the end of the block, runs it to its end.

    Args:
        flags: Beam's options; None for Beam's in-process runner.
        out: the output folder, which records a job on a cluster while it runs.
        stop: ends a job on a cluster that would go on for ever.

    Raises:
        InputError: a worker met invalid input, or the cluster cannot be used as the flags say.
        OSError: storage failed.
        JobFailedError: the job failed for another reason.
        Detached: the job was submitted, and the flags say not to wait.
    """
    options = flags or beam_options([])
    pipeline = beam.Pipeline(options=options)
    yield pipeline
    with told_in_one_line():
        if is_remote(options):
            run_elsewhere(pipeline, options, out, stop)
        else:
            with in_this_process(), frozen_objects():
                pipeline.run().wait_until_finish()


@contextmanager
def frozen_objects() -> Iterator[None]:
    """Keeps the garbage collector from searching what is loaded, hundreds of thousands of objects, in the block."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def repeated(run: Callable[[], None]) -> None:
    """Runs a job that may be repeated, up to five times if storage fails in a way that may pass.

    Raises:
        Exception: the last attempt's error, or the first one that another attempt would not resolve.
    """

    def pause_s(error: Exception, attempt: int) -> float | None:
        wait_s = None if isinstance(error, JobFailedError) else pauses(WAITS_S)(error, attempt)
        if wait_s is not None:
            say(redact(f"storage failed, and the job is tried again: {one_line(error)}"))
        return wait_s

    repeat(lambda _: run(), pause_s)


def is_remote(flags: PipelineOptions | None) -> bool:
    """Returns whether the workers are other processes, perhaps on other machines."""
    runner = flags.view_as(StandardOptions).runner if flags else None
    return runner is not None and runner.rpartition(".")[2] not in IN_PROCESS


def is_detached(flags: PipelineOptions | None) -> bool:
    """Returns whether this process will not be there at the end of the job."""
    return flags is not None and is_remote(flags) and bool(flags.view_as(OwnOptions).detach)


def is_template(flags: PipelineOptions | None) -> bool:
    """Returns whether the job is only stored, as a template of Dataflow, or only built."""
    if not uses_dataflow(flags):
        return False
    assert flags is not None
    return bool(flags.view_as(GoogleCloudOptions).template_location or flags.view_as(TestOptions).dry_run)


def uses_dataflow(flags: PipelineOptions | None) -> bool:
    """Returns whether the job is for Dataflow."""
    return "dataflow" in str(flags and flags.view_as(StandardOptions).runner).lower()


@contextmanager
def attached(flags: PipelineOptions | None) -> Iterator[None]:
    """Waits for a job that the block runs, even if the flags say not to, because another job follows it."""
    own = flags.view_as(OwnOptions) if flags else None
    before = own is not None and own.detach
    if own is not None:
        own.detach = False
    try:
        yield
    finally:
        if own is not None:
            own.detach = before


def run_elsewhere(
    pipeline: beam.Pipeline, options: PipelineOptions, out: str, stop: threading.Event | None = None
) -> None:
    """Submits a job and, unless it is detached, waits for its end."""
    submitted = Submitted()
    with cancelled_by_signals(submitted.cancel):
        submitted.submit(pipeline, options)
        if is_template(options):  # there is nothing to wait for
            return
        write_json(join(out, JOB), submitted.record(options))
        if is_detached(options):
            raise Detached(f"the job was submitted: see `infinitygan status {out}` and `infinitygan cancel {out}`")
        try:
            watch(submitted.result, stop)
        except UnwatchedError:  # the record finds the job again
            raise
        except BaseException:
            remove(join(out, JOB))
            raise
        remove(join(out, JOB))


class Submitted:
    """A job on a cluster, or one on its way there."""

    def __init__(self) -> None:
        self.result: PipelineResult | None = None
        self.runner = ""
        self._known = threading.Event()

    def submit(self, pipeline: beam.Pipeline, options: PipelineOptions) -> None:
        """Submits the job.

        Raises:
            InputError: the job server does not answer, or does not know a flag.
        """
        runner = pipeline.runner
        self.runner = type(runner).__name__
        if isinstance(runner, portable_runner.PortableRunner):
            runner.create_job_service_handle = CheckedHandle  # type: ignore[method-assign]
        endpoint = options.view_as(PortableOptions).job_endpoint
        try:
            self.result = pipeline.run()
        except grpc.FutureTimeoutError:
            raise InputError(f"the job server {endpoint or ''} does not answer: check --job_endpoint") from None
        except grpc.RpcError as error:
            raise cause_of(f"the job server {endpoint or ''} refuses the job: {error}") from None
        finally:
            self._known.set()

    def cancel(self) -> None:
        """Cancels the job and waits for its end."""
        self._known.wait(CANCELLED_IN_S)
        if self.result is None:
            return
        cancel(self.result)

    def record(self, options: PipelineOptions) -> JobRecord:
        """Returns what is needed to find the job again."""
        return {
            "job": job_id(self.result),
            "runner": self.runner,
            "job_endpoint": options.view_as(PortableOptions).job_endpoint,
            "host": platform.node(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "command": " ".join(sys.argv[1:2]),
            "flags": [flag for flag in options._flags or [] if flag.startswith(FINDING)],
            "detached": is_detached(options),
        }


class CheckedHandle(portable_runner.JobServiceHandle):
    """Refuses flags that a job server, which Beam has just started, does not know. Beam drops them with a warning."""

    def get_pipeline_options(self) -> Any:
        """Overrides Beam's."""
        request = beam_job_api_pb2.DescribePipelineOptionsRequest()
        parser = beam_parser()
        add_described(parser, self.job_service.DescribePipelineOptions(request, timeout=self.timeout).options)
        check_known(parser, [flag for flag in self.options._flags or [] if flag not in RESTARTS], ())
        return super().get_pipeline_options()


def job_id(result: Any) -> str:
    """Returns a runner's name for a job."""
    found = getattr(result, "_job_id", None) or result.job_id
    return str(found() if callable(found) else found)


def cancel(result: Any) -> None:
    """Cancels a job and waits for its end."""
    result.cancel()
    late = time.monotonic() + CANCELLED_IN_S
    while not PipelineState.is_terminal(result.state) and time.monotonic() < late:
        time.sleep(POLL_S / 2)


def watch(result: Any, stop: threading.Event | None = None) -> None:
    """Waits for the end of a job; takes over its counts, and ends it at the first fault that no retry would mend.

    Beam's own way to wait ends with an error after the job server's time-out.

    Args:
        result: the job.
        stop: set to cancel the job.

    Raises:
        Exception: as `cause_of` says.
    """
    collected, messages = Collected(), Messages(result)
    while True:
        state, counts = look(result)
        collected.take(counts)
        remark("" if counts else f"waiting for workers (the job is {state.lower()})")
        fault = next((title.removeprefix(FAULTS) for title in counts if title.startswith(FAULTS)), None)
        if fault is not None:
            cancel(result)
            raise cause_of(fault, messages.text())
        if PipelineState.is_terminal(state):
            break
        if stop is not None and stop.is_set():
            cancel(result)
            return
        messages.wait(POLL_S)
    remark("")
    clean_up = getattr(result, "_cleanup", None)
    if clean_up:  # workers in this process
        clean_up()
    if state == PipelineState.CANCELLED:
        raise JobFailedError("the job was cancelled; the same command, run again, continues it")
    if state != PipelineState.DONE:
        raise cause_of(messages.last_error() or f"the job has ended as {state}", messages.text())


def look(result: Any) -> tuple[str, Mapping[str, int]]:
    """Returns a job's state and its counts. A job server may be away for a moment.

    Raises:
        UnwatchedError: the job server no longer answers.
    """
    late = time.monotonic() + JOB_SERVER_S
    while True:
        try:
            return result.state, counts_of(result)
        except grpc.RpcError as error:
            if time.monotonic() > late:
                details = error.details() if hasattr(error, "details") else one_line(error)
                raise UnwatchedError(
                    f"the job server no longer answers ({details}); the job may go on: see `infinitygan status`"
                ) from None
        time.sleep(POLL_S)


def counts_of(result: Any) -> dict[str, int]:
    """Returns a job's counts so far, by the titles of tallies."""
    result._metrics = None  # a portable runner's result keeps its first answer
    counts: dict[str, int] = {}
    with suppress(NotImplementedError):
        for counter in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
            title = counter.key.metric.name
            counts[title] = counts.get(title, 0) + max(counter.attempted or 0, counter.committed or 0)
    return counts


class Messages:
    """The messages of a portable runner about a job, read in a thread of their own."""

    def __init__(self, result: Any) -> None:
        self._read: deque[Any] = deque(maxlen=1000)
        self._new_state = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(result,), daemon=True)
        self._thread.start()

    def _listen(self, result: Any) -> None:
        service = getattr(result, "_job_service", None)
        if service is None:
            return
        with suppress(Exception):  # the end of the job closes the stream in one of many ways
            for message in service.GetMessageStream(beam_job_api_pb2.JobMessagesRequest(job_id=result._job_id)):
                if message.HasField("message_response"):
                    self._read.append(message.message_response)
                else:
                    self._new_state.set()

    def wait(self, most_s: float) -> None:
        """Waits until the job has a new state, but no longer than this."""
        self._new_state.wait(most_s)
        self._new_state.clear()

    def last_error(self) -> str:
        """Returns the last message about an error, which may still be on its way."""
        self._thread.join(5)
        level = beam_job_api_pb2.JobMessage.JOB_MESSAGE_ERROR
        return next((message.message_text for message in reversed(self._read) if message.importance == level), "")

    def text(self) -> str:
        """Returns all messages, for a log."""
        return "\n".join(message.message_text for message in self._read)
