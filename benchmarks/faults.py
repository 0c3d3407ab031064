"""Measures what faults cost a render job: kills at random moments, a failing store, a full disk, two concurrent copies.

python benchmarks/faults.py [--kills 20] [--panoramas 12] [--seed 1] [--out FILE.json]

The jobs use `tiny` with random weights and tiles of 64 px, since only files and calls matter here, not pixels. The
bucket is served by fake-gcs-server on this machine; the disk that fills up is a small tmpfs, which only root may mount
(for other users this row is omitted). After every kill, and after the last run, each finished file is compared byte for
byte with that of an undisturbed job; after the last run also the manifest and the page. Runs are forked from a process
that has imported everything, so that kills hit them at work.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import torch
from bucket import bucket, connect
from gcsfs import GCSFileSystem
from gcsfs.retry import HttpError
from pipeline import checkpoint
from rich.console import Console
from rich.table import Table

import transforms.panoramas.patch_shards
from pipelines.cli import run
from transforms.panoramas.requests import RenderRequest
from transforms.render.synthesize import Synthesizer

FAILING_SHARE = 0.05
TOLD = ("manifest.parquet", "index.html")
"""Files that show the progress of a job."""

PRELOADED = ["gcsfs", "pipelines.render", "torch._dynamo", "torch.fx.experimental.symbolic_shapes"]

processes = multiprocessing.get_context("forkserver")
Files = Mapping[str, bytes]


@dataclass
class Outcome:
    """The effects of a fault on a job.

    Attributes:
        fault: The fault.
        store: The store of the files.
        jobs: The number of jobs that were completed.
        runs: The number of runs that this took.
        shards: The number of shards in all jobs.
        computed_again: The number of shards that were computed more than once.
        finished_again: The number of these that were already complete in the store when they were computed again.
        files: The number of files in all jobs.
        wrong: The number of files whose bytes differed from the undisturbed job's at any check.
        lost: The number of files that had been finished and were missing at a later check.
        completed: Whether the last run of every job reported success, and everything was there.
        note: The extent of the fault.
    """

    fault: str
    store: str
    jobs: int = 0
    runs: int = 0
    shards: int = 0
    computed_again: int = 0
    finished_again: int = 0
    files: int = 0
    wrong: int = 0
    lost: int = 0
    completed: bool = True
    note: str = ""


class Job:
    """A job in its own folder, whose runs are processes.

    Args:
        out: The folder.
        words: Further arguments of the command.
        outcome: Counts the results of all runs and checks.
        expected: The undisturbed job's files; empty if this is that job.
    """

    def __init__(self, out: str, words: list[str], outcome: Outcome, expected: Files):
        self.out, self.words, self.outcome, self.expected = out, words, outcome, expected
        self.log, self.before = Path(tempfile.mkstemp()[1]), set[str]()

    def start(self, failing: int | None = None) -> Any:
        """Starts a run; with a seed in `failing`, some of its calls to the store fail."""
        process = processes.Process(target=work, args=([*self.words, f"--out={self.out}"], str(self.log), failing))
        process.start()
        self.outcome.runs += 1
        return process

    def finish(self) -> None:
        """Runs the job once more, undisturbed, and counts the result."""
        self.end(self.start())

    def end(self, *running: Any) -> None:
        """Waits for the runs that complete the job, and counts the result."""
        for process in running:
            process.join()
        said = all(process.exitcode == 0 for process in running)
        files = self.check(told=True)
        computed, finished, again = Counter[str](), set[str](), 0
        for word, shard in map(str.split, self.log.read_text().splitlines()):
            if word == "computed":
                again += shard in finished
                computed[shard] += 1
            elif word == "finished":
                finished.add(shard)
        self.log.unlink()
        self.outcome.jobs += 1
        self.outcome.shards += len(computed)
        self.outcome.computed_again += sum(computed.values()) - len(computed)
        self.outcome.finished_again += again
        self.outcome.files += len(files)
        self.outcome.completed &= said and (not self.expected or files.keys() == self.expected.keys())

    def check(self, told: bool = False) -> Files:
        """Returns the files that exist now; counts those that are wrong or lost."""
        files = {name: content for name, content in stored(self.out).items() if ".tmp-" not in name}
        settled = {name for name in files if told or name not in TOLD}
        if self.expected:
            self.outcome.wrong += sum(files[name] != self.expected.get(name) for name in settled)
        self.outcome.lost += len(self.before - settled)
        self.before = settled
        return files


def work(words: list[str], log: str, failing: int | None) -> None:
    """Does a run in its own process."""
    torch.set_num_threads(1)
    if "STORAGE_EMULATOR_HOST" in os.environ:
        connect()
    said, noted = (os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in (os.devnull, log))
    os.dup2(said, 1)
    os.dup2(said, 2)
    compute, write = Synthesizer.parts, transforms.panoramas.patch_shards.write_patch_shard

    def note(word: str, shard: Any) -> None:
        os.write(noted, f"{word} {shard.plan.request.id}/{shard.name}\n".encode())

    def parts(self: Synthesizer, shard: Any) -> Any:
        note("computed", shard)
        return compute(self, shard)

    def write_patch_shard(out: str, shard: Any, samples: Any) -> None:
        write(out, shard, samples)
        note("finished", shard)

    Synthesizer.parts, transforms.panoramas.patch_shards.write_patch_shard = parts, write_patch_shard
    if failing is not None:
        fail_calls(random.Random(failing), noted)
    sys.exit(run(words))


def fail_calls(draw: random.Random, noted: int) -> None:
    """Makes some of this process's calls to the store return 503, or succeed without a response."""
    call = GCSFileSystem._call

    async def failing_call(self: Any, *arguments: Any, **named: Any) -> Any:
        fails, late = draw.random() < FAILING_SHARE, draw.random() < 0.5
        if fails:
            os.write(noted, b"failed call\n")
        if fails and not late:
            raise HttpError({"code": 503, "message": "the store is busy"})
        answer = await call(self, *arguments, **named)
        if fails:
            raise TimeoutError("the store did not answer")
        return answer

    GCSFileSystem._call = failing_call


def stored(url: str) -> Files:
    """Returns the bytes of all files below a URL, by relative path."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    names = fs.find(path)
    contents = fs.cat(names) if names else {}
    return {name.removeprefix(f"{path}/"): content for name, content in contents.items()}


def killed(store: str, words: list[str], expected: Files, whole_s: float, kills: int, draw: random.Random) -> Outcome:
    """Kills every run of some jobs at a random moment within the time of an undisturbed one."""
    outcome, done = Outcome("kill -9 at a random moment", "bucket"), 0
    while done < kills:
        job, alive = Job(f"{store}/killed-{outcome.jobs}", words, outcome, expected), True
        while alive and done < kills:
            process = job.start()
            process.join(draw.uniform(0, whole_s))
            alive = process.exitcode is None
            if alive:
                process.kill()
                process.join()
                done += 1
                job.check()
        job.finish()
    outcome.note = f"{done} kills"
    return outcome


def failing(store: str, words: list[str], expected: Files, draw: random.Random) -> Outcome:
    """Lets some calls of a job fail; if these are too many, the job is run again."""
    outcome = Outcome(f"{FAILING_SHARE:.0%} of calls fail or time out", "bucket")
    job = Job(f"{store}/failing", words, outcome, expected)
    process = job.start(draw.getrandbits(32))
    process.join()
    failed = sum(line == "failed call" for line in job.log.read_text().splitlines())
    outcome.note = f"{failed} calls; exit code {process.exitcode}"
    job.check()
    if process.exitcode == 0:
        job.end(process)
    else:
        job.finish()
    return outcome


def full(words: list[str], expected: Files) -> Outcome:
    """Runs a job on a disk with room for six tenths of its patches, then frees enough room for everything."""
    outcome = Outcome("the disk fills", "tmpfs")
    room, whole = (
        sum(4096 * (-(-len(content) // 4096)) for name, content in expected.items() if name.endswith(wanted))
        for wanted in (".tar", "")
    )
    with small_disk(6 * room // 10) as folder:
        job = Job(f"{folder}/full", words, outcome, expected)
        process = job.start()
        process.join()
        job.check()
        outcome.note = f"room for {6 * room // 10 >> 10} KiB of {whole >> 10}; exit code {process.exitcode}"
        subprocess.run(["mount", "-o", f"remount,size={4 * whole}", folder], check=True)
        job.finish()
    return outcome


@contextmanager
def small_disk(size: int) -> Iterator[str]:
    """Yields a folder on a disk of `size` bytes."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


def twice(store: str, words: list[str], expected: Files) -> Outcome:
    """Runs two copies of one job at the same time."""
    outcome = Outcome("two copies at once", "bucket")
    job = Job(f"{store}/twice", words, outcome, expected)
    job.end(job.start(), job.start())
    return outcome


def undisturbed(store: str, words: list[str]) -> tuple[Outcome, Files, float]:
    """Runs the job with which all others are compared; also returns its seconds."""
    outcome, begin = Outcome("none", "bucket"), time.monotonic()
    job = Job(f"{store}/undisturbed", words, outcome, {})
    process = job.start()
    process.join()
    seconds = time.monotonic() - begin
    job.end(process)
    assert outcome.completed
    return outcome, stored(job.out), seconds


def write_requests(file: Path, panoramas: int) -> None:
    """Writes requests for small panoramas of every format but one."""
    formats = (("png", "tif"), ("dzi",), ("jpg", "zarr"))
    requests = (
        RenderRequest(id=f"p{n:03}", seed=n, width_px=600 + 7 * n, height_px=200, formats=formats[n % 3])
        for n in range(panoramas)
    )
    file.write_text("".join(json.dumps(request.to_json()) + "\n" for request in requests))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--panoramas", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name, bucket() as store:
        processes.set_forkserver_preload(PRELOADED)
        write_requests(Path(name) / "requests.jsonl", arguments.panoramas)
        words = ["render", f"--requests={name}/requests.jsonl", f"--checkpoint={checkpoint('tiny', Path(name))}"]
        words += ["--tile=64", "--tiles-per-shard=4"]
        undisturbed(f"{store}/warm", words)  # the first run also does what happens only once
        outcome, expected, whole_s = undisturbed(store, words)
        outcome.note = f"{whole_s:.1f} s"
        outcomes = [outcome, killed(store, words, expected, whole_s, arguments.kills, draw)]
        outcomes += [failing(store, words, expected, draw)]
        outcomes += [full(words, expected)] if os.geteuid() == 0 else []
        outcomes += [twice(store, words, expected)]
    rows = [dataclasses.asdict(outcome) for outcome in outcomes]
    table = Table(*(name.replace("_", " ") for name in rows[0]), title=f"tiny, {arguments.panoramas} panoramas a job")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=160).print(table)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
