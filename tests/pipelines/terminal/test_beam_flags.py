import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, SetupOptions, StandardOptions

from model.errors import InputError
from pipelines.terminal.beam_flags import beam_options, beam_parser
from pipelines.terminal.flags import beam_flag_names, check_names


def options_beside(own, flags):
    check_names(flags, own)
    return beam_options(flags)


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
