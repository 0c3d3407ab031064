"""Measures how well inversion reconstructs photographs that the network has not learned from.

python benchmarks/reconstruct.py DATA --out FILE.json [--photographs 10] [--steps 200] [--size 256x128]
                                 [--checkpoint FILE]

DATA is a training set; the photographs are its held-out ones (val and test), evenly spaced, scaled and cropped to the
size. PSNR and LPIPS compare a photograph with its reconstruction. LPIPS is optimistic, because it was optimised. The
time of a step is processor time of all threads, averaged over the steps of a photograph.

FILE.json is written after every photograph; run again, the command processes only photographs that are not in it.
"""

import argparse
import json
import math
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from model.bundled import CHECKPOINT
from model.checkpoint import Checkpoint
from model.inversion import Inversion, InversionConfig, Target
from model.networks.lpips import Lpips
from pipelines.terminal.progress import track
from transforms.applications.invert import fit, load_generator
from transforms.evaluation.crops import HELD_OUT
from transforms.storage.byte_ranges import Piece, read_pieces
from transforms.storage.files import join
from transforms.storage.tally import Tally
from transforms.training_set.dataset import IndexRows, read_dataset

COLUMNS = {
    "psnr_db": ("PSNR, dB", ".2f"),
    "lpips": ("LPIPS", ".4f"),
    "step_s": ("s a step", ".3f"),
}


def held_out(data: str, count: int) -> Iterator[tuple[str, bytes]]:
    """Yields the key and the file of `count` held-out photographs, evenly spaced."""
    rows = list(IndexRows(data, read_dataset(data), HELD_OUT))
    if not 1 <= count <= len(rows):
        sys.exit(f"--photographs {count}: {data} holds out {len(rows)}; give 1 to {len(rows)}")
    chosen = [rows[place * len(rows) // count] for place in range(count)]
    pieces = [Piece(join(data, row["shard"]), row["offset"], row["size"]) for row in chosen]
    yield from zip((row["key"] for row in chosen), read_pieces(pieces), strict=True)


def reconstruct(checkpoint: Checkpoint, content: bytes, size: tuple[int, int], config: InversionConfig) -> dict:
    """Inverts a photograph and returns its measurements."""
    levels = torch.from_numpy(fit(content, size, size[1]).copy()).permute(2, 0, 1).contiguous()
    inversion = Inversion(checkpoint.generator, Target(levels, 0, -size[1] // 2), config)
    done, started = Tally(), time.process_time()
    with track("Steps", config.steps, lambda: done.count):
        while inversion.step < config.steps:
            inversion.advance()
            done.add()
    step_s = (time.process_time() - started) / config.steps
    shown, photograph = inversion.picture()[None].clamp(-1, 1), levels[None].to(inversion.device) / 127.5 - 1
    found = {"psnr_db": inversion.quality()["psnr_db"], "step_s": step_s}
    with torch.no_grad():
        found["lpips"] = Lpips().to(shown.device)(shown, photograph).item()
    return found | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def read_results(path: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """Returns earlier results with the same settings."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    if content["setting"] != setting:
        sys.exit(f"{path} was made with {content['setting']}, and this is {setting}; name another --out")
    return content["photographs"]


def show(found: dict[str, dict[str, float]], setting: dict[str, Any]) -> None:
    """Prints the table: one row per photograph, and their mean with its standard error."""
    table = Table(title=f"Photographs given back after {setting['steps']} steps, {setting['size']} px")
    for name in ("photograph", *(title for title, _ in COLUMNS.values())):
        table.add_column(name)
    for key, one in found.items():
        table.add_row(key, *(f"{one[name]:{form}}" for name, (_, form) in COLUMNS.items()))
    means = []
    for name, (_, form) in COLUMNS.items():
        values = [one[name] for one in found.values()]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        means.append(f"{statistics.mean(values):{form}} ± {error:{form}}")
    table.add_section()
    table.add_row("mean ± error", *means)
    peak_mib = max(one["peak_mib"] for one in found.values())
    Console().print(table, f"peak memory of the process {peak_mib:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photographs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", default="256x128")
    parser.add_argument("--checkpoint", default=str(CHECKPOINT))
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    config = InversionConfig(steps=arguments.steps)
    checkpoint = load_generator(arguments.checkpoint)
    names = ("steps", "size")
    setting = {"checkpoint": checkpoint.sha256, **{name: getattr(arguments, name) for name in names}}
    found = read_results(arguments.out, setting)
    machine = {"processor": platform.processor(), "python": platform.python_version(), "torch": torch.__version__}
    photographs = dict(held_out(arguments.data, arguments.photographs))
    for number, (key, content) in enumerate(photographs.items(), start=1):
        if key not in found:
            print(f"{number} of {len(photographs)}: {key}", file=sys.stderr)
            found[key] = reconstruct(checkpoint, content, (width, height), config)
            part = arguments.out.with_suffix(".part")
            part.write_text(json.dumps({"setting": setting, "machine": machine, "photographs": found}, indent=2))
            part.replace(arguments.out)
    show({key: found[key] for key in photographs}, setting)


if __name__ == "__main__":
    main()
