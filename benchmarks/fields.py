"""Measures the share of a 256 px tile's time that the world's randomness takes.

python benchmarks/fields.py [--out FILE.json]
"""

import json
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from model import speed
from model.memory import reuse_freed_memory

BOUND = 0.05
TURNS = {"small": 30, "paper": 3}


def main(out: Annotated[str | None, typer.Option()] = None) -> None:
    reuse_freed_memory()
    rows = {preset: speed.randomness(speed.network(preset), turns) for preset, turns in TURNS.items()}
    table = Table(title=f"Randomness of a {speed.TILE_PX} px tile, {torch.get_num_threads()} threads")
    for name in ("preset", "z_l, ms", "z_n, ms", "share"):
        table.add_column(name, justify="right")
    for preset, row in rows.items():
        z_l, z_n, share = row.values()
        table.add_row(preset, f"{z_l * 1e3:.3g}", f"{z_n * 1e3:.3g}", f"{share:.2%}")
    Console().print(table)
    print(f"The design's bound on the share is {BOUND:.0%}.")
    if out:
        with open(out, "w") as file:
            json.dump({"threads": torch.get_num_threads(), "bound": BOUND, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    typer.run(main)
