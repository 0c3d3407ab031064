"""Beam's own flags: those that one of its option classes knows are passed on; anything else is refused."""

import argparse
import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import apache_beam as beam
import typer
from apache_beam.options.pipeline_options import PipelineOptions

from model.errors import InputError

DEFAULT_RUNNER = "--runner=FnApiRunner"
"""Named, because Beam's own default first tries to download another runner."""


def beam_options(arguments: Sequence[str], own_flags: Sequence[str] = ()) -> PipelineOptions:
    """Options of a pipeline from what is left of the command line.

    Args:
        arguments: flags that are not the command's own.
        own_flags: the command's own, for a hint on a misspelt one.

    Raises:
        InputError: Beam does not know a flag, or not its value.
    """
    parser = beam_parser()
    _, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = unknown[0].split("=", 1)[0]
        if not name.startswith("-"):
            raise InputError(f"{name!r} belongs to no flag; see --help")
        near = difflib.get_close_matches(name, [*own_flags, *parser._option_string_actions], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see --help, and Beam's own flags"
        raise InputError(f"{name} is unknown: {hint}")
    given = list(arguments)
    if not any(argument.split("=", 1)[0] == "--runner" for argument in given):
        given.append(DEFAULT_RUNNER)
    options = PipelineOptions(given)
    try:
        beam.Pipeline(options=options)
    except Exception as error:  # each runner has its own way to refuse
        raise InputError(f"Beam does not accept {' '.join(given)}: {error}") from None
    return options


def own_flags(context: typer.Context) -> list[str]:
    """The flags of a command itself."""
    return [f"--{name.replace('_', '-')}" for name in context.params]


@contextmanager
def storage_errors() -> Iterator[None]:
    """What storage says inside a pipeline, which Beam wraps, comes out as it was."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        said = [line for line in str(error).splitlines() if "Error: [Errno " in line]
        if said:  # several workers: Beam has only the text of the traceback left
            raise OSError(said[-1].strip()) from None
        raise


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag's value in one line, and does not exit."""

    def error(self, message: str) -> NoReturn:
        """Argparse's hook."""
        raise InputError(f"Beam does not accept this: {message}")


def beam_parser() -> Parser:
    """Knows the flags of all of Beam's option classes, two of which may know the same."""
    parser = Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for cls in PipelineOptions.__subclasses__():
        cls._add_argparse_args(parser)  # type: ignore[arg-type]
    return parser
