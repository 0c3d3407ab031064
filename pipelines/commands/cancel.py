"""The arguments of ``infinitygan cancel``."""

from typing import Annotated

import typer


def cancel(out: Annotated[str, typer.Argument(metavar="OUT", help="The --out of a job on a cluster.")]) -> None:
    """Cancels a job on a cluster and waits for its end. The same command, run again, continues it."""
    from pipelines.remote import cancel_job

    print(cancel_job(out))
