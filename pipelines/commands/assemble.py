"""The flags of ``infinitygan assemble``."""

from typing import Annotated

import typer

from pipelines.terminal.flags import FORMATS, Quiet, beam_flags


def assemble(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(help="The --out of a render job.")],
    format: Annotated[list[str] | None, typer.Option(help=f"{FORMATS}; may be repeated.")] = None,
    id: Annotated[list[str] | None, typer.Option(help="A panorama; may be repeated.", show_default="all")] = None,
    quiet: Quiet = False,
) -> None:
    """Makes other formats of panoramas from their patches, without rendering."""
    flags = beam_flags(context)
    from pipelines.assemble import assemble
    from pipelines.terminal.render_tables import show_summary
    from transforms.panoramas.manifest import DONE

    rows = assemble(folder, format or [], id or [], flags)
    show_summary(folder, rows)
    if any(row["state"] != DONE for row in rows):
        raise typer.Exit(1)
