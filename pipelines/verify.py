"""Verify: renders random tiles of finished panoramas again and compares."""

import sys
from collections import Counter
from typing import Annotated

import typer

from model.errors import InputError
from pipelines.progress import track
from transforms.verify import DIFFERENT, EQUAL, ROUNDING, Verdict, draw_tiles, finished_plans, verify_tiles


def verify(out: str, tiles: int, seed: int, checkpoint: str | None) -> list[Verdict]:
    """How random tiles of the panoramas in a folder compare with themselves computed again.

    Raises:
        InputError: there is nothing to verify, or the checkpoint is another one.
    """
    if tiles < 1:
        raise InputError(f"--tiles {tiles}: give 1 or more")
    drawn = draw_tiles(finished_plans(out, checkpoint), tiles, seed)
    verdicts: list[Verdict] = []
    with track("Tiles", len(drawn), lambda: len(verdicts)):
        verdicts.extend(verify_tiles(out, drawn))
    return verdicts


def verify_command(
    folder: Annotated[str, typer.Argument(help="The --out of a render job.")],
    tiles: Annotated[int, typer.Option(help="How many tiles, drawn from all finished panoramas.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    checkpoint: Annotated[
        str | None, typer.Option(help="Generator of requests that name none.", show_default="bundled")
    ] = None,
) -> None:
    """Renders random tiles again and compares them with the stored ones, bit for bit."""
    verdicts = verify(folder, tiles, seed, checkpoint)
    for verdict in verdicts:
        if verdict.state == DIFFERENT:
            largest = f"up to {verdict.max_difference} of 255 on {verdict.differing_share:.2%} of its pixels"
            print(f"{verdict.request_id}, tile {verdict.index}: {verdict.reason or largest}", file=sys.stderr)
    counts = Counter(verdict.state for verdict in verdicts)
    print(", ".join(f"{counts[state]} {state}" for state in (EQUAL, ROUNDING, DIFFERENT)), file=sys.stderr)
    if counts[DIFFERENT]:
        raise typer.Exit(1)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["verify", *sys.argv[1:]])
