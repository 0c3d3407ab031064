"""Verify: renders random tiles of finished panoramas again and compares them with the stored ones."""

import sys

from model.errors import InputError
from pipelines.terminal.progress import track
from transforms.render.verify import Verdict, draw_tiles, finished_plans, verify_tiles


def verify(out: str, tiles: int, seed: int, checkpoint: str | None) -> list[Verdict]:
    """Renders random tiles of the panoramas in a folder again and compares them with the stored ones.

    Raises:
        InputError: There is nothing to verify, or the checkpoint is a different one.
    """
    if tiles < 1:
        raise InputError(f"--tiles {tiles}: give 1 or more")
    drawn = draw_tiles(finished_plans(out, checkpoint), tiles, seed)
    verdicts: list[Verdict] = []
    with track("Tiles", len(drawn), lambda: len(verdicts)):
        verdicts.extend(verify_tiles(out, drawn))
    return verdicts


if __name__ == "__main__":
    from pipelines.cli import main

    main(["verify", *sys.argv[1:]])
