"""Measures the speed of the training stream, compared with bare decoding on the same cores and with worker processes.

python benchmarks/stream.py DATA [--out FILE.json]

DATA is a training set of 197 px photographs. The three methods take turns; each figure is the best of its turns,
because others may be using the machine.
"""

import json
import os
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random

import webdataset as wds
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from transforms.storage.files import filesystem, join
from transforms.storage.pictures import open_picture
from transforms.training.shard_reader import Shards
from transforms.training.stream import PatchStream, crop
from transforms.training_set.dataset import read_dataset

PATCH_PX, FULL_PX, BATCH = 101, 197, 16
PATCHES, TURNS = 1600, 5
BOUND = 0.8


def bare(data: str) -> float:
    """Returns images per second of reading tars and decoding pictures, with as many threads as there are cores."""
    shards = [name for name in read_dataset(data)["shards"] if name.startswith("train-")]
    samples = read_dataset(data)["samples"]["train"]
    paths = [filesystem(join(data, name))[1] for name in shards] * -(-PATCHES // samples)

    def decode(path: str) -> int:
        decoded = 0
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member).read()
                if member.name.endswith(".jpg"):
                    open_picture(content).load()
                    decoded += 1
        return decoded

    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = sum(pool.map(decode, paths))
    return decoded / (time.perf_counter() - start)


def streamed(data: str) -> float:
    """Returns patches per second of the training stream, in batches."""
    return rate(PatchStream(Shards(data, read_dataset(data)["shards"]), PATCH_PX, FULL_PX).batches(BATCH))


def in_workers(data: str) -> float:
    """Returns patches per second of webdataset in torch's worker processes, with the same windows in any order."""
    urls = [filesystem(join(data, name))[1] for name in read_dataset(data)["shards"] if name.startswith("train-")]
    dataset = wds.WebDataset(urls, resampled=True, shardshuffle=False).map(patch)
    return rate(iter(DataLoader(dataset, batch_size=BATCH, num_workers=os.cpu_count() or 1)))


def patch(raw: dict) -> tuple:
    window, t = crop(raw, PATCH_PX, Random())
    return window.transpose(2, 0, 1).astype("float32") / 127.5 - 1, t


def rate(batches) -> float:
    """Returns patches per second, from the second batch on."""
    next(batches)
    start = time.perf_counter()
    for _ in range(PATCHES // BATCH):
        next(batches)
    return PATCHES // BATCH * BATCH / (time.perf_counter() - start)


def main() -> None:
    data = sys.argv[1]
    ways: dict[str, Callable[[str], float]] = {
        "bare tar read and decode": bare,
        "stream": streamed,
        "webdataset in worker processes": in_workers,
    }
    turns = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, measure in ways.items():
            turns[name].append(measure(data))
    best = {name: max(rates) for name, rates in turns.items()}
    table = Table("way", "patches/s", "of bare", title=f"Patches from shards, {os.cpu_count()} cores")
    for name, value in best.items():
        table.add_row(name, f"{value:.0f}", f"{value / best['bare tar read and decode']:.2f}")
    Console().print(table)
    print(f"The stream is to reach {BOUND} of bare reading and decoding.")
    if len(sys.argv) == 4 and sys.argv[2] == "--out":
        with open(sys.argv[3], "w") as file:
            json.dump({"cores": os.cpu_count(), "bound": BOUND, "patches_per_s": best, "turns": turns}, file, indent=2)


if __name__ == "__main__":
    main()
