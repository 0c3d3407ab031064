"""Parses command lines as the commands would, without running them."""

import typer

from pipelines.cli import RUNS_BEAM, build, with_runner_joined
from pipelines.terminal.beam_flags import beam_parser, check_known

OF_FLINK = ("checkpointing_interval", "parallelism")
"""Flags that a job server of Flink describes, which are known only where there is one."""


def parse(words):
    """Returns the values of a command's flags and arguments.

    Args:
        words: the command line, from the word ``infinitygan``.

    Raises:
        Exception: a command or a flag is unknown, a value is not accepted, or something is missing.
    """
    program, name, *arguments = words
    assert program == "infinitygan"
    command = typer.main.get_command(build()).commands[name]
    context = command.make_context(name, with_runner_joined(arguments))
    flags = [*context.args, *(word for word in context.params.get("sources") or () if word.startswith("--"))]
    assert not flags or name in RUNS_BEAM, flags
    parser = beam_parser()
    for flag in OF_FLINK:
        parser.add_argument(f"--{flag}")
    check_known(parser, flags, ())
    return context.params
