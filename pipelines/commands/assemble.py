"""The flags of ``infinitygan assemble``."""

from typing import Annotated

import typer

from pipelines.terminal.flags import FORMATS, Quiet, beam_flags


def assemble(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(help="The output folder of a render job (its --out).")],
    format: Annotated[
        list[str] | None, typer.Option(metavar="FORMAT", help=f"File format to make: {FORMATS}; may be repeated.")
    ] = None,
    id: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Id of a panorama; may be repeated.", show_default="all")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Writes panoramas in other file formats from their stored patches, without rendering."""
    flags = beam_flags(context)
    from pipelines.assemble import assemble
    from pipelines.terminal.render_tables import Summary, show_summary
    from transforms.panoramas.manifest import DONE

    rows = assemble(folder, format or [], id or [], flags)
    show_summary(folder, Summary.of(rows))
    if any(row["state"] != DONE for row in rows):
        raise typer.Exit(1)
