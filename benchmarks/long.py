"""Measures a very long panorama, rendered to a bucket on this machine and assembled there as BigTIFF and DZI.

python benchmarks/long.py [--width 1000000] [--preset small] [--out FILE.json]

It is one job in this process, as with `render`; the bucket's server, fake-gcs-server, is a separate process. A million
pixels take ten minutes to an hour, and about 5 GB under `TMPDIR` for the bucket and the unfinished TIFF.
"""

import argparse
import json
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fsspec
import tifffile
import torch
from bucket import bucket
from pipeline import checkpoint
from rich.console import Console
from rich.table import Table

import transforms.render.assemble
from pipelines.render import render
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions
from transforms.storage.background import meanwhile

HEIGHT_PX, TILE_PX = 512, 256
FORMATS = ("tif", "dzi")
SAMPLE_S = 0.05


@contextmanager
def most_open_files() -> Iterator[list[int]]:
    """Tracks the peak number of open files of this process, including connections, twenty times a second."""
    most = [0]

    def watch(stop: threading.Event) -> None:
        while not stop.wait(SAMPLE_S):
            most[0] = max(most[0], len(os.listdir("/proc/self/fd")))

    with meanwhile(watch):
        yield most


@contextmanager
def assembly_times() -> Iterator[dict[str, tuple[float, float]]]:
    """Records when the assembly of each format starts and ends."""
    times: dict[str, tuple[float, float]] = {}
    original = transforms.render.assemble.write_file

    def write_file(name: str, *arguments: Any) -> Any:
        begin = time.monotonic()
        found = original(name, *arguments)
        times[name] = begin, time.monotonic()
        return found

    with patch.object(transforms.render.assemble, "write_file", write_file):
        yield times


def measure(width_px: int, preset: str) -> dict[str, Any]:
    """Renders one panorama and returns its cost."""
    asked = RenderRequest(id="long", seed=7, width_px=width_px, height_px=HEIGHT_PX, formats=FORMATS)
    with tempfile.TemporaryDirectory() as folder, bucket() as out:
        options = RenderOptions((asked,), out, checkpoint(preset, Path(folder)), TILE_PX)
        begin, used_s = time.monotonic(), time.process_time()
        with most_open_files() as most, assembly_times() as times:
            (row,) = render(options)
        end, used_s = time.monotonic(), time.process_time() - used_s
        assert row["state"] == "done", row["reason"]
        fs, path = fsspec.core.url_to_fs(f"{out}/panoramas")
        with fs.open(f"{path}/long.tif") as file, tifffile.TiffFile(file) as tif:
            assert tif.pages.first.shape == (HEIGHT_PX, width_px, 3)
        sizes = {name: info["size"] for name, info in fs.find(path, detail=True).items()}
    return {
        "preset": preset,
        "width, px": width_px,
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "most open files": most[0],
        "in all, s": end - begin,
        "processor, s": used_s,
        "computing, s": min(start for start, _ in times.values()) - begin,
        **{f"{name}, s": stop - start for name, (start, stop) in times.items()},
        "tif, MB": sizes[f"{path}/long.tif"] / 1e6,
        "dzi, files": sum("/long_files/" in name for name in sizes),
        "largest seam, of 255": row["seam_max_difference"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1_000_000)
    parser.add_argument("--preset", choices=["tiny", "small"], default="small")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    figures = measure(arguments.width, arguments.preset)
    table = Table("", f"{torch.get_num_threads()} threads")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"threads": torch.get_num_threads(), **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
