"""The flags of ``infinitygan verify``."""

import sys
from collections import Counter
from typing import Annotated

import typer

from pipelines.terminal.flags import Quiet


def verify(
    folder: Annotated[str, typer.Argument(help="The output folder of a render job (its --out).")],
    tiles: Annotated[int, typer.Option(help="Number of tiles to check, drawn from all finished panoramas.")] = 16,
    seed: Annotated[int, typer.Option(help="Random seed of the draw.")] = 0,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Checkpoint for requests that do not name one.", show_default="bundled"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Renders random tiles again and compares them with the stored ones, bit for bit."""
    from pipelines.verify import verify
    from transforms.render.verify import DIFFERENT, EQUAL, ROUNDING

    verdicts = verify(folder, tiles, seed, checkpoint)
    for verdict in verdicts:
        if verdict.state == DIFFERENT:
            largest = f"up to {verdict.max_difference} of 255 on {verdict.differing_share:.2%} of its pixels"
            print(f"{verdict.request_id}, tile {verdict.index}: {verdict.reason or largest}", file=sys.stderr)
    counts = Counter(verdict.state for verdict in verdicts)
    print(", ".join(f"{counts[state]} {state}" for state in (EQUAL, ROUNDING, DIFFERENT)), file=sys.stderr)
    if counts[DIFFERENT]:
        raise typer.Exit(1)
