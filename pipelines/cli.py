"""The command line: ``infinitygan`` and its `COMMANDS`.

Exit codes: 0 success, 1 something requested is missing, 2 invalid input, 130 interrupted.
"""

import gc
import logging
import math
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from model.errors import DivergenceError, InputError, one_line
from model.version import __version__
from pipelines.terminal import forked_workers
from pipelines.terminal.failures import Detached, JobFailedError, is_of_store
from pipelines.terminal.interrupts import INTERRUPTED, ended_by_signals
from pipelines.terminal.paths import absolute_arguments
from transforms.storage.text import printable

COMMANDS = (
    "ingest",
    "train",
    "evaluate",
    "render",
    "fuse",
    "edit",
    "invert",
    "outpaint",
    "inbetween",
    "assemble",
    "verify",
    "status",
    "cancel",
    "bench",
    "info",
)
"""Each is a function in the module of the same name in `pipelines.commands`."""

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Unknown flags are passed to Beam, or refused by `pipelines.terminal.beam_flags`."""

RUNS_BEAM = ("ingest", "render", "assemble", "fuse", "edit", "invert", "outpaint", "inbetween")

ON_ANY_RUNNER = (
    "Runs in this process; --runner=flink, spark, dataflow or prism runs it elsewhere, --detach does not wait for it. "
    "Beam's own flags, and those of the runner, are accepted too, in the form --flag=value."
)

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""The exception that typer raises for an invalid command line; its class is in a private module."""


def build() -> typer.Typer:
    """Builds the application with all commands."""
    app = typer.Typer(
        help="Turns photographs into training shards, trains a generator on them, and renders panoramas of any size.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(top)
    for name in COMMANDS:
        function = getattr(import_module(f"pipelines.commands.{name}"), name)
        runs_beam: dict[str, Any] = {"context_settings": PASS_ON, "epilog": ON_ANY_RUNNER} if name in RUNS_BEAM else {}
        app.command(name, cls=Command, **runs_beam)(function)
    return app


class Command(TyperCommand):
    """A command that refuses empty values and infinite numbers, and takes relative paths from the folder it starts in.

    Its help page has a panel for each group of options that `PANELS` in its module names.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help page."""
        module = import_module(f"pipelines.commands.{self.name}")
        for panel, names in getattr(module, "PANELS", {}).items():
            for parameter in self.params:
                if parameter.name in names:
                    parameter.rich_help_panel = panel  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Checks the values and completes the paths, then runs the command.

        Raises:
            InputError: a value is empty, infinite, or `nan`.
        """
        for parameter in self.params:
            name, value = parameter.opts[0], ctx.params.get(parameter.name)
            if "" in (value if isinstance(value, list | tuple) else (value,)):  # of a shell's variable that is not set
                raise InputError(f"{name} is empty; give a value")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{name} is {value}: give a finite number")
        if self.name in RUNS_BEAM:
            ctx.params = absolute_arguments(ctx.params)
        return super().invoke(ctx)


def show_version(asked: bool) -> None:
    """Prints the version and exits, if asked."""
    if asked:
        print(f"infinitygan {__version__}")
        raise typer.Exit


def top(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Handles the flags that precede a command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code. Invalid input is reported in one line on stderr."""
    # Beam warns about missing optional packages, and prints each traceback that it passes on.
    logging.getLogger().setLevel(logging.CRITICAL)
    words = sys.argv[1:] if arguments is None else arguments
    if forked_workers.are_wanted(words):
        forked_workers.begin_to_load(f"pipelines.{words[0]}")
    with ended_by_signals():
        code = run(words)
    gc.freeze()  # otherwise Python looks for garbage in all that was loaded, which takes a second
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs a command; returns its exit code."""
    try:
        result = build()(args=with_runner_joined(arguments), prog_name="infinitygan", standalone_mode=False)
    except InputError as error:
        return refuse(str(error))
    except UsageError as error:
        message = getattr(error, "format_message", error.__str__)()
        return refuse(message) if message else 2  # no command: the help has been shown
    except OSError as error:
        return refuse_storage(error)
    except (DivergenceError, JobFailedError) as error:
        return refuse(str(error), code=1)
    except Detached as said:
        return refuse(str(said), code=0)
    except KeyboardInterrupt:
        result = INTERRUPTED
    except Exception as error:
        if not is_of_store(error):
            raise
        return refuse(f"storage: {one_line(error)}", code=1)
    if result == INTERRUPTED:
        return refuse("interrupted", INTERRUPTED)
    return result if isinstance(result, int) else 0


def with_runner_joined(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with ``--runner NAME`` as one, so that the name is not read as one of several sources."""
    joined: list[str] = []
    for argument in arguments:
        if joined[-1:] == ["--runner"]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def refuse_storage(error: OSError) -> int:
    """Prints in one line which file or folder could not be read or written."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return refuse("the current folder was removed: change to another one")
    place = error.filename2 or error.filename or "storage"  # of a rename, the name that is wanted
    return refuse(f"{place}: {error.strerror or error}", code=1)


def refuse(message: str, code: int = 2) -> int:
    """Prints in one line why a command failed, with passwords and tokens removed from URLs."""
    from transforms.storage.urls import redact  # imported only when a command fails, to keep the start fast

    print(f"infinitygan: {printable(redact(' '.join(message.split())))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
