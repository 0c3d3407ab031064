"""Measures jobs with several worker processes and on a small cluster, compared with the same jobs in one process.

python benchmarks/workers.py --prism FILE [--only processes] [--width 16384] [--photographs 2000] [--out FILE.json]

The cluster is Prism, Beam's portable runner, with a pool of workers that is ready before a job begins, on this machine.
Each figure is a ratio of times, or a number of seconds. Next to it stands the ratio of processor times, which other
work on the machine changes less.
All of it takes two to three minutes on two quiet cores, and each part at most one.
"""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from processes import Cost, measure, whole_s
from rich.console import Console
from rich.table import Table

from transforms.storage.pictures import open_picture

SAMPLES = Path(__file__).parents[1] / "samples"
TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
COMMAND = (sys.executable, "-c", "from pipelines.cli import main; main()")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
INTERRUPTED = 130


def free_port() -> int:
    """Returns a port that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def cluster(prism: str, folder: Path) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """Runs Prism and a pool of workers; yields the flags of a job there, and the ids of both processes."""
    job, pool = free_port(), free_port()
    worker_pool = [sys.executable, "-m", "pipelines.worker_pool", f"--port={pool}"]
    with (folder / "cluster.log").open("wb") as log:
        how: dict[str, Any] = {"stdout": log, "stderr": log}
        processes = [
            subprocess.Popen([prism, f"-job_port={job}", "-serve_http=false"], **how),
            subprocess.Popen(worker_pool, **how),
        ]
    try:
        for port in (job, pool):
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.1)
        workers = ("--environment_type=EXTERNAL", f"--environment_config=localhost:{pool}")
        flags = ("--runner=PortableRunner", f"--job_endpoint=localhost:{job}", *workers)
        yield flags, [process.pid for process in processes]
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


Figures = dict[str, tuple[float, float | None]]
"""Figures, in times or seconds, each with the same one in processor time if that means anything."""


class Bench:
    """Runs commands in a folder. What several figures are compared with is run once.

    Args:
        folder: where all files go.
        prism: the program of Prism.
        width_px: the width of the panorama.
        count: the number of photographs.
    """

    def __init__(self, folder: Path, prism: str, width_px: int, count: int):
        self.folder, self.prism, self.width_px, self.count, self.runs = folder, prism, width_px, count, 0

    def run(self, *words: str, **environment: str) -> Cost:
        """Runs a command, which writes to a new folder, and prints its cost."""
        self.runs += 1
        cost = measure([*COMMAND, *words, f"--out={self.folder / f'out{self.runs}'}"], self.folder / "log", environment)
        print(" ".join(words)[:100], environment or "", cost, file=sys.stderr, flush=True)
        return cost

    def render(self, *flags: str, **environment: str) -> Cost:
        """Renders a panorama."""
        return self.run("render", f"--width={self.width_px}", "--height=512", *flags, **environment)

    def ingest(self, *flags: str) -> Cost:
        """Makes a training set of photographs."""
        return self.run("ingest", self.source, "--dedup=exact", *flags)

    @cached_property
    def source(self) -> str:
        """The folder of photographs."""
        return photographs(self.folder / "photographs", self.count)

    @cached_property
    def one(self) -> Cost:
        """A render in one process."""
        return self.render()

    def on_cluster(self, job: Callable[..., Cost]) -> Cost:
        """Returns the cost of a job on a cluster, with the processor time that the whole cluster uses meanwhile."""
        with cluster(self.prism, self.folder) as (flags, processes):
            before_s = sum(map(whole_s, processes))
            cost = job(*flags)
            return replace(cost, cpu_s=cost.cpu_s + sum(map(whole_s, processes)) - before_s)

    def processes(self) -> Figures:
        """Compares two worker processes with one process."""
        two, single = self.render(*TWO_PROCESSES), self.render(**ONE_THREAD)
        return {
            "two worker processes / one process (at most 1.15)": ratio(two, self.one),
            "two worker processes / one single-threaded process (at most 0.7)": ratio(two, single),
        }

    def busy(self) -> Figures:
        """Compares a render next to two busy loops with one alone."""
        with busy_loops(2):
            beside = self.render()
        return {"beside two busy loops / alone (at most 1.1 in processor time)": ratio(beside, self.one)}

    def spinning(self) -> Figures:
        """Compares a render with one whose threads spin as OpenMP lets them."""
        spinning = self.render(GOMP_SPINCOUNT="300000")
        return {"one process / one with OpenMP's own spinning (at most 1.03)": ratio(self.one, spinning)}

    def cluster_render(self) -> Figures:
        """Compares a render on the cluster with one in process."""
        return {"render on Prism / in process (at most 1.2)": ratio(self.on_cluster(self.render), self.one)}

    def cluster_ingest(self) -> Figures:
        """Compares an ingest on the cluster with one in process."""
        there, here = self.on_cluster(self.ingest), self.ingest()
        return {"ingest on Prism / in process (at most 1.3)": ratio(there, here)}

    def watching(self) -> Figures:
        """Measures the time until an ingest shows its first line, and from an interrupt until it has ended."""
        with cluster(self.prism, self.folder) as (flags, _):
            words = ("ingest", self.source, f"--out={self.folder / 'watched'}", "--dedup=exact", *flags)
            start = time.monotonic()
            process = subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE)
            assert process.stderr is not None
            first = process.stderr.readline()
            line_s = time.monotonic() - start
            time.sleep(3)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate()
            if process.returncode != INTERRUPTED:
                sys.exit(f"the ingest was not interrupted at work: {(first + rest).decode()}")
        return {
            "first line of progress, s (at most 5)": (line_s, None),
            "from an interrupt to the end, s (at most 10)": (time.monotonic() - start, None),
        }


def ratio(cost: Cost, other: Cost) -> tuple[float, float]:
    """Returns the ratios of times and of processor times."""
    return cost.wall_s / other.wall_s, cost.cpu_s / other.cpu_s


class Part(str, Enum):
    """The parts of the benchmark, which are methods of `Bench`."""

    PROCESSES = "processes"
    BUSY = "busy"
    SPINNING = "spinning"
    CLUSTER_RENDER = "cluster_render"
    CLUSTER_INGEST = "cluster_ingest"
    WATCHING = "watching"


def main(
    prism: Annotated[str, typer.Option(help="The program of Prism.")],
    only: Annotated[list[Part] | None, typer.Option(help="A part to run; may be repeated. All by default.")] = None,
    width: Annotated[int, typer.Option(help="Width of the panorama in pixels.")] = 16384,
    count: Annotated[int, typer.Option("--photographs", help="Number of photographs to ingest.")] = 2000,
    out: Annotated[str | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Prints the table of figures."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), prism, width, count)
        for part in only or Part:
            figures |= getattr(bench, part.value)()
    table = Table("figure", "", "in processor time")
    for what, (figure, in_cpu) in figures.items():
        table.add_row(what, f"{figure:.2f}", "" if in_cpu is None else f"{in_cpu:.2f}")
    Console().print(table)
    if out:
        Path(out).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
