"""Beam's own flags: those known to one of Beam's option classes are passed on; anything else is refused."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from model.errors import InputError
from pipelines.terminal.flags import check_names

DEFAULT_RUNNER = "--runner=FnApiRunner"
"""Set explicitly, because Beam's own default first tries to download another runner."""


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Returns the options of a pipeline from flags that are not the command's own.

    Raises:
        InputError: Beam does not know a flag, or does not accept its value.
    """
    check_names(arguments)
    _, unknown = beam_parser().parse_known_args(arguments)
    if unknown:
        raise InputError(f"{unknown[0]!r} is an unexpected argument; see --help")
    given = list(arguments)
    if not any(argument.split("=", 1)[0] == "--runner" for argument in given):
        given.append(DEFAULT_RUNNER)
    options = PipelineOptions(given)
    try:
        beam.Pipeline(options=options)
    except Exception as error:  # the exception depends on the runner
        raise InputError(f"Beam does not accept {' '.join(given)}: {error}") from None
    return options


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raises storage errors, which Beam wraps inside a pipeline, in their original form."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        said = [line for line in str(error).splitlines() if "Error: [Errno " in line]
        if said:  # with several workers, Beam keeps only the text of the traceback
            raise OSError(said[-1].strip()) from None
        raise


class Parser(argparse.ArgumentParser):
    """Raises InputError with one line about a wrong value instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Overrides argparse's handler."""
        raise InputError(f"Beam does not accept this: {message}")


def beam_parser() -> Parser:
    """Returns a parser of the flags of all of Beam's option classes, which may overlap."""
    parser = Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for cls in PipelineOptions.__subclasses__():
        cls._add_argparse_args(parser)  # type: ignore[arg-type]
    return parser
