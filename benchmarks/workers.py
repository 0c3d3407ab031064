"""Measures jobs with several worker processes and on a small cluster, compared with the same jobs in one process.

python benchmarks/workers.py --prism FILE [--width 16384] [--photographs 2000] [--out FILE.json]

The cluster is Prism, Beam's portable runner, with a pool of workers, on this machine. Each figure is a ratio of times
(of processor times where other work runs at the same time), or a number of seconds. The whole takes some minutes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from processes import Cost, measure
from rich.console import Console
from rich.table import Table

from transforms.storage.pictures import open_picture

SAMPLES = Path(__file__).parents[1] / "samples"
TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
COMMAND = (sys.executable, "-c", "from pipelines.cli import main; main()")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """Returns a port that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def cluster(prism: str, folder: Path) -> Iterator[tuple[str, ...]]:
    """Runs Prism and a pool of workers; yields the flags of a job there."""
    job, pool = free_port(), free_port()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    worker_pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={pool}"]
    with (folder / "cluster.log").open("wb") as log:
        how = {"stdout": log, "stderr": log, "env": environment}
        processes = [
            subprocess.Popen([prism, f"-job_port={job}", "-serve_http=false"], **how),
            subprocess.Popen(worker_pool, **how),
        ]
    try:
        for port in (job, pool):
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.1)
        workers = ("--environment_type=EXTERNAL", f"--environment_config=localhost:{pool}")
        yield ("--runner=PortableRunner", f"--job_endpoint=localhost:{job}", *workers)
    finally:
        for process in processes:
            process.terminate()
            process.wait()


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keeps cores busy while the block runs."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def photographs(folder: Path, count: int) -> str:
    """Writes small photographs, no two of them alike; returns their folder."""
    folder.mkdir()
    samples = [
        open_picture(path.read_bytes()).convert("RGB").resize((480, 320)) for path in sorted(SAMPLES.glob("*.jpg"))
    ]
    for number in range(count):
        turn, sample = divmod(number, len(samples))
        left, top = turn % 16 * 6, turn // 16 % 16 * 4
        samples[sample].crop((left, top, left + 360, top + 240)).save(folder / f"{number:05d}.jpg", quality=90)
    return str(folder)


class Bench:
    """Runs commands in a folder.

    Args:
        folder: where all files go.
        width_px: the width of the panorama.
    """

    def __init__(self, folder: Path, width_px: int):
        self.folder, self.width_px, self.runs = folder, width_px, 0

    def run(self, *words: str, **environment: str) -> Cost:
        """Runs a command, which writes to a new folder, and prints its cost."""
        self.runs += 1
        cost = measure([*COMMAND, *words, f"--out={self.folder / f'out{self.runs}'}"], self.folder / "log", environment)
        print(" ".join(words)[:100], environment or "", cost, file=sys.stderr, flush=True)
        return cost

    def render(self, *flags: str, **environment: str) -> Cost:
        """Renders a panorama."""
        return self.run("render", f"--width={self.width_px}", "--height=512", *flags, **environment)

    def watched(self, source: str, flags: Sequence[str]) -> tuple[float, float]:
        """Returns the seconds until an ingest shows its first line, and from an interrupt until it has ended."""
        words = ("ingest", source, f"--out={self.folder / 'watched'}", *flags)
        start = time.monotonic()
        process = subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE)
        assert process.stderr is not None
        process.stderr.readline()
        line_s = time.monotonic() - start
        time.sleep(3)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate()
        return line_s, time.monotonic() - start


def main(
    prism: Annotated[str, typer.Option(help="The program of Prism.")],
    width: Annotated[int, typer.Option(help="Width of the panorama in pixels.")] = 16384,
    count: Annotated[int, typer.Option("--photographs", help="Number of photographs to ingest.")] = 2000,
    out: Annotated[str | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Prints the table of figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench, source = Bench(folder, width), photographs(folder / "photographs", count)
        one, single, two = bench.render(), bench.render(**ONE_THREAD), bench.render(*TWO_PROCESSES)
        spinning = bench.render(GOMP_SPINCOUNT="300000")
        with busy_loops(2):
            beside = bench.render()
        here = bench.run("ingest", source, "--dedup=exact")
        with cluster(prism, folder) as flags:
            rendered, ingested = bench.render(*flags), bench.run("ingest", source, "--dedup=exact", *flags)
            line_s, end_s = bench.watched(source, [*flags, "--dedup=exact"])
    figures = {
        "two worker processes / one process (at most 1.15)": two.wall_s / one.wall_s,
        "two worker processes / one single-threaded process (at most 0.7)": two.wall_s / single.wall_s,
        "beside two busy loops / alone, processor time (at most 1.1)": beside.cpu_s / one.cpu_s,
        "one process / one with OpenMP's own spinning (at most 1.03)": one.wall_s / spinning.wall_s,
        "render on Prism / in process (at most 1.2)": rendered.wall_s / one.wall_s,
        "ingest on Prism / in process (at most 1.3)": ingested.wall_s / here.wall_s,
        "first line of progress, s (at most 5)": line_s,
        "from an interrupt to the end, s (at most 10)": end_s,
    }
    table = Table("figure", "")
    for what, figure in figures.items():
        table.add_row(what, f"{figure:.2f}")
    Console().print(table)
    if out:
        Path(out).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
