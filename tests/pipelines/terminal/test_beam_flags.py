import http.server
import threading

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.local_job_service import LocalJobServicer

from model.errors import InputError
from pipelines.terminal.beam_flags import beam_options, beam_parser
from pipelines.terminal.flag_names import beam_flag_names, check_names
from pipelines.terminal.runners import DESCRIBED, PACKAGE, RESTARTS, runner_of, with_defaults


def options_beside(own, flags):
    if runner_of(flags) not in DESCRIBED:
        check_names(flags, own)
    return beam_options(flags, own)


def test_without_flags_it_is_the_in_process_runner():
    options = beam_options([])
    assert options.view_as(StandardOptions).runner == "FnApiRunner"
    assert type(beam.Pipeline(options=options).runner).__name__ == "FnApiRunner"


@pytest.mark.parametrize("flags", [["--runner=BundleBasedDirectRunner"], ["--runner", "BundleBasedDirectRunner"]])
def test_a_named_runner_is_taken(flags):
    assert beam_options(flags).view_as(StandardOptions).runner == "BundleBasedDirectRunner"


def test_beams_flags_pass():
    options = beam_options(
        [
            "--direct_num_workers=3",
            "--direct_running_mode",
            "multi_threading",
            "--no_auth",
            "--setup_file",
            "./setup.py",
        ]
    )
    assert options.view_as(DirectOptions).direct_num_workers == 3
    assert options.view_as(DirectOptions).direct_running_mode == "multi_threading"
    assert options.view_as(GoogleCloudOptions).no_auth
    assert options.view_as(SetupOptions).setup_file == "./setup.py"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--widht", "5"], "--widht is unknown: did you mean --width?"),
        (["--widht=5"], "--widht is unknown: did you mean --width?"),
        (["--diret_num_workers=2"], "--diret_num_workers is unknown: did you mean --direct_num_workers?"),
        (["--runer=FnApiRunner"], "--runer is unknown: did you mean --runner?"),
        (["--direct_num_worker=2"], "--direct_num_worker is unknown: did you mean --direct_num_workers?"),
        (["--zzzzzzzzzzzzzz"], "--zzzzzzzzzzzzzz is unknown: see --help, and Beam's own flags"),
        (["-w"], "-w is unknown: "),
        (["-w", "5"], "-w is unknown: "),
        (["-5"], "-5 is unknown: "),
        (["stray"], "'stray' is an unexpected argument; see --help"),
        (["--no_auth", "stray"], "'stray' is an unexpected argument"),
        (["--runner=FnApiRunner", "stray"], "'stray' is an unexpected argument"),
        (["--direct_num_workers=two"], "--direct_num_workers: invalid int value: 'two'"),
        (["--direct_num_workers"], "--direct_num_workers: expected one argument"),
        (["--direct_running_mode=fast"], "--direct_running_mode: invalid choice: 'fast'"),
        (["--no_auth=maybe"], "ignored explicit argument 'maybe'"),
        (["--runner=NoneSuch"], "Unexpected pipeline runner: NoneSuch"),
        (["--runner=DataflowRunner"], "Beam does not accept --runner=DataflowRunner: "),
    ],
)
def test_a_wrong_flag_is_named_and_nothing_is_printed(flags, said, capfd):
    with pytest.raises(InputError) as caught:
        options_beside(["--width", "--height", "--tiles-per-shard"], flags)
    assert said in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_all_names_of_beams_flags_are_known_without_importing_it():
    assert set(beam_parser()._option_string_actions) <= set(beam_flag_names())


class DescribingServer(LocalJobServicer):
    """Beam's own job server, with flags that it describes as those of Flink and Spark do."""

    def DescribePipelineOptions(self, request, context=None, timeout=None):  # noqa: N802
        types = beam_job_api_pb2.PipelineOptionType
        kinds = {"checkpointing_interval": types.INTEGER, "object_reuse": types.BOOLEAN, "state_backend": types.STRING}
        described = [beam_job_api_pb2.PipelineOptionDescriptor(name=name, type=kind) for name, kind in kinds.items()]
        return beam_job_api_pb2.DescribePipelineOptionsResponse(options=described)


@pytest.fixture(scope="module")
def described():
    """Yields the flags of a runner whose job server describes further flags."""
    server = DescribingServer()
    port = server.start_grpc_server()
    yield [f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK"]
    server.stop()


@pytest.mark.parametrize("runner", ["PortableRunner", "flink", "FlinkRunner", "spark"])
def test_the_flags_of_the_job_server_pass(runner, described):
    flags = [
        f"--runner={runner}",
        *described,
        "--checkpointing_interval=5000",
        "--object_reuse",
        "--state_backend",
        "x",
    ]
    options = options_beside([], flags)
    assert options.view_as(PortableOptions).job_server_timeout == 20
    assert set(flags[1:]) <= set(options._flags)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--checkpointing_intervall=5", "--checkpointing_intervall is unknown: did you mean --checkpointing_interval?"),
        ("--state_bakend=x", "--state_bakend is unknown: did you mean --state_backend?"),
        ("--widht=5", "--widht is unknown: did you mean --width?"),
        ("--checkpointing_interval=often", "--checkpointing_interval: invalid int value: 'often'"),
    ],
)
def test_a_flag_that_the_job_server_does_not_know_is_refused(flag, said, described):
    with pytest.raises(InputError) as caught:
        beam_options(["--runner=PortableRunner", *described, flag], ["--width"])
    assert said in str(caught.value)


def test_a_job_server_that_does_not_answer_is_one_line():
    flags = ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--job_server_timeout=1"]
    with pytest.raises(InputError, match="--job_endpoint localhost:1: no job server has answered within 1 s"):
        beam_options(flags)


def test_what_the_user_gives_wins():
    given = with_defaults(["--runner", "flink", "--environment_cache_millis=5", "--setup_file=./other.py"])
    assert given.count("--runner=FlinkRunner") == 1
    assert not [flag for flag in given if flag.startswith("--environment_cache_millis=6")]
    assert [flag for flag in given if flag.startswith("--setup_file")] == ["--setup_file=./other.py"]
    assert "--job_server_timeout=20" in given


@pytest.mark.parametrize("runner", ["flink", "spark", "dataflow"])
def test_workers_get_this_package_unless_the_user_says_what_they_are(runner):
    assert f"--setup_file={PACKAGE}" in with_defaults(["--runner", runner])
    for given in ("--environment_type=EXTERNAL", "--sdk_container_image=own"):
        assert not [flag for flag in with_defaults(["--runner", runner, given]) if flag.startswith("--setup_file")]


def test_a_flink_job_survives_a_fault_by_default():
    assert set(RESTARTS) <= set(with_defaults(["--runner", "flink"]))


class Overview(http.server.BaseHTTPRequestHandler):
    """Flink's own interface, for a cluster with two slots."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"slots-total": 2, "slots-available": 1}')

    def log_message(self, *arguments):
        pass


def test_the_parallelism_is_the_clusters_and_too_few_slots_are_told_at_once():
    with http.server.HTTPServer(("127.0.0.1", 0), Overview) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        master = f"--flink_master=127.0.0.1:{server.server_port}"
        assert "--parallelism=2" in with_defaults(["--runner=flink", master])
        assert "--parallelism=2" not in with_defaults(["--runner=flink", master, "--parallelism=1"])
        with pytest.raises(InputError, match="has 2 slots, but the job wants 5"):
            with_defaults(["--runner=flink", master, "--parallelism=5"])
        server.shutdown()
    with pytest.raises(InputError, match="does not answer"):
        with_defaults(["--runner=flink", master])
