"""Beam's own flags: those that one of its option classes knows are passed on; anything else is refused."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from model.errors import InputError
from pipelines.terminal.flags import check_names

DEFAULT_RUNNER = "--runner=FnApiRunner"
"""Named, because Beam's own default first tries to download another runner."""


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Options of a pipeline from flags that are not a command's own.

    Raises:
        InputError: Beam does not know a flag, or not its value.
    """
    check_names(arguments)
    _, unknown = beam_parser().parse_known_args(arguments)
    if unknown:
        raise InputError(f"{unknown[0]!r} belongs to no flag; see --help")
    given = list(arguments)
    if not any(argument.split("=", 1)[0] == "--runner" for argument in given):
        given.append(DEFAULT_RUNNER)
    options = PipelineOptions(given)
    try:
        beam.Pipeline(options=options)
    except Exception as error:  # each runner has its own way to refuse
        raise InputError(f"Beam does not accept {' '.join(given)}: {error}") from None
    return options


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
