"""The command line: ``infinitygan ingest | train | render | info``.

Exit codes: 0 all there, 1 something asked for is missing, 2 wrong input.
"""

import sys
from collections.abc import Sequence

import click
import typer

from model.errors import InputError

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Flags that are not a command's own are Beam's, or refused by `pipelines.options`."""


def build() -> typer.Typer:
    """The commands, each imported from its module."""
    from pipelines.info import info_command
    from pipelines.ingest import ingest_command
    from pipelines.render import render_command
    from pipelines.train import train_command

    app = typer.Typer(
        name="infinitygan",
        help="InfinityGAN as dataflow: photographs to shards, shards to a model, a model to panoramas of any size.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command("ingest", context_settings=PASS_ON)(ingest_command)
    app.command("train")(train_command)
    app.command("render", context_settings=PASS_ON)(render_command)
    app.command("info")(info_command)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code; wrong input is one line on stderr."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs a command; returns its exit code."""
    try:
        result = build()(args=list(arguments), prog_name="infinitygan", standalone_mode=False)
    except InputError as error:
        return refuse(str(error))
    except click.UsageError as error:
        return refuse(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        print("infinitygan: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return result if isinstance(result, int) else 0


def refuse(message: str) -> int:
    """Says in one line what is wrong with the input."""
    print(f"infinitygan: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
