"""Measures two slices of a job at once, compared with the whole job, and the start of a worker.

python benchmarks/slices.py [--requests 200] [--width 1024] [--rounds 3]

The whole job uses two threads, each slice one, as on two machines with one core each.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import apache_beam as beam
import typer

COMMAND = (sys.executable, "-c", "from pipelines.cli import main; main()", "render", "--quiet")
IN_A_PROCESS_OF_ITS_OWN = ("--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=1")


def at_once(folder: Path, requests: Path, slices: tuple[str, ...]) -> float:
    """Renders slices of the requests to a new folder, all at once; returns the seconds until all have ended."""
    out = tempfile.mkdtemp(dir=folder)
    words = [*COMMAND, f"--requests={requests}", f"--out={out}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(2 // len(slices))}
    start = time.monotonic()
    with (folder / "log").open("wb") as log:
        how: dict[str, Any] = {"stdout": log, "stderr": log, "env": environment}
        for process in [subprocess.Popen([*words, f"--slice={each}"], **how) for each in slices]:
            if process.wait():
                raise RuntimeError((folder / "log").read_text())
    return time.monotonic() - start


def age_s(_: object) -> float:
    """Returns for how long this process has existed, after the imports of the steps that render."""
    import transforms.render.publish
    import transforms.render.synthesize  # noqa: F401

    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def first_bundle_s(folder: Path) -> float:
    """Returns the seconds from the start of a worker's process to its first bundle."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "age"
    with beam.Pipeline(argv=list(IN_A_PROCESS_OF_ITS_OWN)) as pipeline:
        _ = pipeline | beam.Create([None]) | beam.Map(age_s) | beam.Map(lambda age: out.write_text(str(age)))
    return float(out.read_text())


def main(
    count: Annotated[int, typer.Option("--requests", help="Number of panoramas.")] = 200,
    width: Annotated[int, typer.Option(help="Width of each in pixels.")] = 1024,
    rounds: Annotated[int, typer.Option(help="Number of rounds, in alternation.")] = 3,
) -> None:
    """Prints the medians of the rounds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = folder / "requests.csv"
        rows = [f"coast-{number:04},{number},{width},256" for number in range(count)]
        requests.write_text("\n".join(["id,seed,width_px,height_px", *rows]))
        times = [
            (at_once(folder, requests, ("1/1",)), at_once(folder, requests, ("1/2", "2/2")), first_bundle_s(folder))
            for _ in range(rounds)
        ]
    for line in times:
        print("whole {:.1f} s, two slices {:.1f} s, first bundle {:.1f} s".format(*line), file=sys.stderr)
    whole_s, slices_s, first_s = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"two slices at once / the whole job (at most 1.1): {slices_s / whole_s:.2f}")
    print(f"from the start of a worker's process to its first bundle, s (at most 10): {first_s:.1f}")


if __name__ == "__main__":
    typer.run(main)
