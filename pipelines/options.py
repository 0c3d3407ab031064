"""Beam's own flags: those that one of its option classes knows are passed on; anything else is refused."""

import argparse
import difflib
from collections.abc import Sequence

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
    known = beam_flags()
    for argument in arguments:
        name = argument.split("=", 1)[0]
        if argument.startswith("--") and name not in known:
            near = difflib.get_close_matches(name, [*own_flags, *known], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "see --help, and Beam's own flags"
            raise InputError(f"{name} is unknown: {hint}")
    stray = stray_values(arguments)
    if stray:
        raise InputError(f"{stray[0]!r} belongs to no flag; see --help")
    given = list(arguments)
    if not any(argument.split("=", 1)[0] == "--runner" for argument in given):
        given.append(DEFAULT_RUNNER)
    try:
        return PipelineOptions(given)
    except (SystemExit, ValueError) as error:
        raise InputError(f"Beam does not accept {' '.join(arguments)} ({error})") from None


def beam_flags() -> set[str]:
    """The names of all flags of Beam's option classes."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for cls in PipelineOptions.__subclasses__():
        try:
            cls._add_argparse_args(parser)
        except argparse.ArgumentError:
            continue  # two of Beam's classes know the same flag
    return set(parser._option_string_actions)


def stray_values(arguments: Sequence[str]) -> list[str]:
    """Values that follow no flag."""
    before = ["", *arguments]
    return [
        value
        for previous, value in zip(before, arguments, strict=False)
        if not value.startswith("-") and (not previous.startswith("--") or "=" in previous)
    ]
