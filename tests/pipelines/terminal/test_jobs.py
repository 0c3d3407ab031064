"""A job on a cluster, watched: what happens if its job server is away, for a moment or for good."""

import gc
import json

import apache_beam as beam
import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState
from apache_beam.testing.util import assert_that, equal_to

from pipelines.terminal import jobs
from pipelines.terminal.failures import JobFailedError, UnwatchedError


class Result:
    """Beam's result of a job that is done, but whose job server is away for the first requests."""

    job_id = "job-1"

    def __init__(self, requests, ends_as=PipelineState.DONE):
        self.requests, self.ends_as = requests, ends_as

    @property
    def state(self):
        self.requests -= 1
        if self.requests >= 0:
            raise grpc.RpcError("connection refused")
        return self.ends_as

    def metrics(self):
        raise NotImplementedError


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Returns a function that runs a job with a given result; it returns the record that is left in the folder."""
    monkeypatch.setattr(jobs, "POLL_S", 0.01)
    monkeypatch.setattr(jobs, "JOB_SERVER_S", 0.2)

    def run(result):
        monkeypatch.setattr(jobs.Submitted, "submit", lambda self, *_: setattr(self, "result", result))
        jobs.run_elsewhere(None, PipelineOptions(["--job_endpoint=localhost:1"]), str(tmp_path))

    return run


def test_a_job_server_may_be_away_for_a_moment(run, tmp_path):
    run(Result(requests=5))
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_is_no_longer_seen_is_found_again_by_its_record(run, tmp_path):
    with pytest.raises(UnwatchedError, match=r"no longer answers .*; the job may go on: see `infinitygan status`"):
        run(Result(requests=10**6))
    assert json.loads((tmp_path / jobs.JOB).read_text())["job"] == "job-1"


def test_a_job_that_has_failed_leaves_no_record(run, tmp_path):
    with pytest.raises(JobFailedError):
        run(Result(requests=0, ends_as=PipelineState.FAILED))
    assert list(tmp_path.iterdir()) == []


def test_the_garbage_collector_skips_what_is_loaded_while_a_job_runs(tmp_path):
    with jobs.job(None, str(tmp_path)) as pipeline:
        skipped = pipeline | beam.Impulse() | beam.Map(lambda _: gc.get_freeze_count() > 100_000)
        assert_that(skipped, equal_to([True]))
    assert gc.get_freeze_count() == 0
