"""Parses command lines as the commands would, without running them."""

from functools import cache

import typer

from pipelines.cli import RUNS_BEAM, build, with_runner_joined
from pipelines.terminal.beam_flags import beam_parser, check_known


@cache
def commands():
    return typer.main.get_group(build()).commands


@cache
def flags_of_beam():
    """Returns a parser of Beam's flags, and of some that only a job server of Flink describes."""
    parser = beam_parser()
    for name in ("checkpointing_interval", "parallelism", "detach"):
        parser.add_argument(f"--{name}", nargs="?")
    return parser


def parse(words):
    """Returns the values of a command's flags and arguments.

    Args:
        words: the command line, from the word ``infinitygan``.

    Raises:
        Exception: a command or a flag is unknown, a value is not accepted, or something is missing.
    """
    program, name, *arguments = words
    assert program == "infinitygan"
    context = commands()[name].make_context(name, with_runner_joined(arguments))
    flags = [*context.args, *(word for word in context.params.get("sources") or () if word.startswith("--"))]
    assert not flags or name in RUNS_BEAM, flags
    check_known(flags_of_beam(), flags, ())
    return context.params
