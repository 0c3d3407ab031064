"""The names of Beam's flags, to find misspelt ones without importing Beam, which takes more than a second."""

import difflib
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from model.errors import InputError

DETACH = "--detach"
"""Submits a job and ends; a flag of every command that runs on Beam."""


def check_names(flags: Sequence[str], own: Sequence[str] = ()) -> None:
    """Raises InputError for a flag that is not one of Beam's, and suggests a similar name."""
    given = [flag.split("=", 1)[0] for flag in flags if flag.startswith("-")]
    if not given:
        return
    beams = beam_flag_names()
    for name in given:
        if name not in beams:
            raise unknown_flag(name, [*own, *beams])


def unknown_flag(flag: str, known: Sequence[str]) -> InputError:
    """Returns the error for a flag that is not known, with the nearest name."""
    name = flag.split("=", 1)[0]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "see --help, and Beam's own flags"
    return InputError(f"{name} is unknown: {hint}")


def beam_flag_names() -> list[str]:
    """Returns the names of Beam's flags, read from its source, and of ours for any runner."""
    package = find_spec("apache_beam")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("apache_beam is not installed")
    source = Path(package.origin).with_name("options") / "pipeline_options.py"
    return [DETACH, *re.findall(r"""["'](--\w[\w-]*)["']""", source.read_text(encoding="utf-8"))]
