"""Measures `render --watch`: how soon a panorama is finished, and many small requests through kills.

python benchmarks/watch.py [--requests 10000] [--kills 5] [FLAGS OF A RUNNER]

The flags may be those of a running job server with a pool of workers (`--runner=PortableRunner --job_endpoint=…
--environment_type=EXTERNAL --environment_config=…`). The pool must be on this machine: its workers' memory is measured.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import torch
import typer

from model.bundled import BUNDLED
from model.checkpoint import save_checkpoint
from model.config import PRESETS
from model.networks.generator import Generator
from transforms.panoramas.manifest import read_manifest
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner
from transforms.render.synthesize import Synthesizer
from transforms.render.work import cut

COMMAND = (sys.executable, "-c", "from pipelines.cli import main; main()", "render", "--quiet")
ROUNDS = 9
FILES_AT_ONCE = 50
WIDE = {"width_px": 1024, "height_px": 256}
SMALL = {"width_px": 64, "height_px": 64}


@contextmanager
def watching(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Watches `folder`/in while the block runs; a block that kills the process need not end it."""
    command = [*COMMAND, f"--watch={folder / 'in'}", f"--out={folder / 'out'}", *words]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(120)


def ask(folder: Path, name: str, seed: int, size: dict[str, int]) -> None:
    """Writes a file with one request, and renames it into place."""
    (folder / "in" / f".{name}").write_text(json.dumps({"id": name, "seed": seed, **size}))
    (folder / "in" / f".{name}").rename(folder / "in" / f"{name}.jsonl")


def wait_for(path: Path, limit_s: float = 300) -> float:
    """Waits for a file; returns the time at which it was seen."""
    late = time.monotonic() + limit_s
    while not path.exists():
        if time.monotonic() > late:
            raise TimeoutError(path)
        time.sleep(0.02)
    return time.monotonic()


def computing_s() -> float:
    """Returns the seconds that computing and encoding the patches of a panorama takes with a warm network."""
    options = RenderOptions((), "unused")
    plan, _ = Planner().plan(options, RenderRequest(id="a", seed=1, **WIDE))
    synthesizer, times = Synthesizer(), []
    for _ in range(ROUNDS):
        start = time.monotonic()
        for shard in cut(plan, 0, plan.tiles - 1, options.shard_tiles(plan)):
            synthesizer.parts(shard)
        times.append(time.monotonic() - start)
    return statistics.median(times)


def latencies_s(folder: Path, flags: list[str]) -> list[float]:
    """Returns the seconds from the arrival of each of some requests, one after the other, to its finished panorama."""
    times = []
    with watching(folder, f"--checkpoint={BUNDLED}", *flags):
        for number in range(ROUNDS + 1):
            ask(folder, f"wide-{number}", number, WIDE)
            start = time.monotonic()
            times.append(wait_for(folder / "out" / "panoramas" / f"wide-{number}.json") - start)
            time.sleep(1.3)
    return times[1:]


def tiny_checkpoint(folder: Path) -> Path:
    """Writes a checkpoint of the tiny network."""
    generator = Generator(PRESETS["tiny"])
    content = save_checkpoint(generator.state_dict(), generator.config, {"images": 0}, "CC0-1.0")
    (folder / "tiny.safetensors").write_bytes(content)
    return folder / "tiny.safetensors"


def workers_of(flags: list[str]) -> list[int]:
    """Returns the ids of the worker processes of the pool that the flags name."""
    port = next(flag for flag in flags if flag.startswith("--environment_config=")).rpartition(":")[2]
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            words = (folder / "cmdline").read_text().replace("=", "\0").split("\0")
            if {"apache_beam.runners.worker.worker_pool_main", port} <= set(words):
                found += [int(number) for path in folder.glob("task/*/children") for number in path.read_text().split()]
    return found


def memory_bytes(processes: list[int]) -> int:
    """Returns the resident memory of the process that has the most."""
    pages = [0]
    for number in processes:
        with suppress(FileNotFoundError, ProcessLookupError):
            pages.append(int(Path(f"/proc/{number}/statm").read_text().split()[1]))
    return max(pages) * os.sysconf("SC_PAGE_SIZE")


def handled(folder: Path) -> int:
    """Returns the number of files that are noted."""
    noted: set[bytes] = set()
    for path in (folder / "out" / "watched").glob("*.txt"):
        with suppress(FileNotFoundError):  # it has just been merged
            noted.update(path.read_bytes().splitlines())
    return len(noted)


def many(folder: Path, count: int, kills: int, flags: list[str]) -> None:
    """Prints what becomes of many small requests while the command is killed and started again."""
    words = (f"--checkpoint={tiny_checkpoint(folder)}", *flags)
    panoramas = folder / "out" / "panoramas"
    memory: list[int] = []
    asked = 0
    start = time.monotonic()
    for turn in range(kills + 1):
        with watching(folder, *words) as process:
            end = count if turn == kills else count * (turn + 1) // (2 * kills)  # half of them in the last turn
            while (handled(folder) if turn == kills else len(list(panoramas.glob("*.json")))) < end:
                for _ in range(min(FILES_AT_ONCE, count - asked)):
                    ask(folder, f"small-{asked}", asked, SMALL)
                    asked += 1
                time.sleep(0.5)
                if turn == kills:
                    memory.append(memory_bytes(workers_of(flags) if flags else [process.pid]))
            if turn < kills:
                process.send_signal(signal.SIGKILL)
    seconds = time.monotonic() - start
    states = [row["state"] for row in read_manifest(str(folder / "out"))]
    half = len(memory) // 2
    early, late = statistics.median(memory[half:][:9]), statistics.median(memory[-9:])
    print(f"{count} requests, {kills} kills: {states.count('done')} done in {len(states)} rows, {seconds:.0f} s")
    print(f"memory at the end: {late / 2**20:.0f} MiB, {late / early:.3f} of that half-way through the last turn (1.1)")


def main(
    context: typer.Context,
    count: Annotated[int, typer.Option("--requests", help="Number of small requests.")] = 10_000,
    kills: Annotated[int, typer.Option(help="Number of times that the command is killed.")] = 5,
) -> None:
    """Prints the figures."""
    torch.set_num_threads(1)
    for measure in ("latency", "many"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in").mkdir()
            if measure == "many":
                many(folder, count, kills, context.args)
                continue
            times, computing = latencies_s(folder, context.args), computing_s()
            beyond = [seconds - computing for seconds in times]
            print(f"computing a panorama of 1024x256: {computing:.2f} s")
            print(f"beyond that, until it is finished: {statistics.median(beyond):.2f} s, most {max(beyond):.2f} s")


if __name__ == "__main__":
    app = typer.Typer()
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(main)
    app()
