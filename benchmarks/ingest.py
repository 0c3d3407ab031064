"""Measures the speed and memory of ingest, and of img2dataset on the same task.

    python benchmarks/ingest.py web PHOTOGRAPHS --img2dataset VENV/bin/img2dataset
    python benchmarks/ingest.py files PHOTOGRAPHS
    python benchmarks/ingest.py fifty-thousand PHOTOGRAPHS

PHOTOGRAPHS is a folder of real photographs; the files to fetch are crops and enlargements of them. Prints a table and
writes JSON to --work, along with all other files.
"""

import argparse
import asyncio
import dataclasses
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web
from pictures import make_pictures
from processes import Cost, measure

from transforms.photographs.codec import decode, encode, frame, store

FULL_PX, QUALITY = 197, 95


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Yields the URL of a server of a folder's files, which runs in its own process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(str(folder), theirs), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{ours.recv()}"
    process.terminate()
    process.join()


def serve(folder: str, pipe: "multiprocessing.connection.Connection") -> None:
    async def main() -> None:
        application = web.Application()
        application.router.add_static("/", folder)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        pipe.send(runner.addresses[0][1])
        await asyncio.sleep(1e9)

    asyncio.run(main())


def ours(urls: Path, out: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pipelines.cli", "ingest", str(urls), "--out", str(out), *flags),
        *("--full-size", str(FULL_PX), "--quality", str(QUALITY), "--allow-private", "--host-rate", "1000000"),
        *("--host-connections", "16", "--cap-mb", "100"),
    ]


def theirs(program: str, urls: Path, out: Path, processes: int) -> list[str]:
    return [
        *(program, f"--url_list={urls}", f"--output_folder={out}", "--output_format=webdataset"),
        *(f"--image_size={FULL_PX}", "--resize_mode=keep_ratio", f"--encode_quality={QUALITY}"),
        *(f"--processes_count={processes}", "--thread_count=16", "--number_sample_per_shard=500"),
    ]


def compare_on_the_web(arguments: argparse.Namespace) -> dict[str, object]:
    """Alternates runs on the same URLs; start-up is the time of a run on one URL."""
    work = Path(arguments.work)
    folder = work / "large"
    make_pictures(arguments.photographs, folder, arguments.count, (1, 12))
    cores = len(os.sched_getaffinity(0))
    costs: dict[str, list[Cost]] = {}
    with serving(folder) as url:
        lists = {"all": work / "all.txt", "one": work / "one.txt"}
        lists["all"].write_text("".join(f"{url}/{index:05d}.jpg\n" for index in range(arguments.count)))
        lists["one"].write_text(f"{url}/00000.jpg\n")
        for _ in range(arguments.runs):
            for name, urls in lists.items():
                for program in ("infinitygan", "img2dataset"):
                    out = work / "out"
                    shutil.rmtree(out, ignore_errors=True)
                    command = ours(urls, out, "--dedup", "off", "--no-filters")
                    if program == "img2dataset":
                        command = theirs(arguments.img2dataset, urls, out, cores)
                    cost = measure(command, work / f"{program}-{name}.log", {"OMP_NUM_THREADS": "1"})
                    costs.setdefault(f"{program} {name}", []).append(cost)
                    print(f"{program} {name}: {cost}; {count_made(out)} kept", flush=True)
    rates = {program: rates_of(arguments.count, costs, program) for program in ("infinitygan", "img2dataset")}
    ratios = {name: rates["infinitygan"][name] / rates["img2dataset"][name] for name in rates["infinitygan"]}
    for name, row in {**rates, "ratio": ratios}.items():
        print(f"{name}: " + ", ".join(f"{what} {value:.2f}" for what, value in row.items()))
    runs = {name: [dataclasses.asdict(cost) for cost in some] for name, some in costs.items()}
    return {"pictures": arguments.count, "cores": cores, "runs": runs, "rates": rates, "ratios": ratios}


def rates_of(count: int, costs: dict[str, list[Cost]], program: str) -> dict[str, float]:
    """Returns pictures per second as medians of the runs, and the peak memory."""
    runs, starts = costs[f"{program} all"], costs[f"{program} one"]
    wall_s, start_s = (statistics.median(cost.wall_s for cost in some) for some in (runs, starts))
    cpu_s, start_cpu_s = (statistics.median(cost.cpu_s for cost in some) for some in (runs, starts))
    return {
        "per_s": count / wall_s,
        "per_s_without_start": count / (wall_s - start_s),
        "per_cpu_s": count / cpu_s,
        "per_cpu_s_without_start": count / (cpu_s - start_cpu_s),
        "peak_mb": max(cost.peak_mb for cost in runs),
    }


def count_made(out: Path) -> int:
    if (out / "dataset.json").exists():
        return sum(json.loads((out / "dataset.json").read_text())["samples"].values())
    return sum(json.loads(path.read_text())["successes"] for path in out.glob("*_stats.json"))


def compare_with_a_bare_loop(arguments: argparse.Namespace) -> dict[str, object]:
    """Compares ingest of files with bare decoding, resizing and encoding, by processor time on one core."""
    work = Path(arguments.work)
    folder = work / "large"
    make_pictures(arguments.photographs, folder, arguments.count, (1, 12))
    paths = sorted(folder.glob("*.jpg"))[: arguments.count]
    (work / "files.txt").write_text("".join(f"{path.resolve()}\n" for path in paths))
    (work / "one.txt").write_text(f"{paths[0].resolve()}\n")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    shares = []
    for _ in range(arguments.runs):
        begin_s = time.process_time()
        for path in paths:
            picture = decode(path.read_bytes(), FULL_PX)
            encode(store(picture, frame(picture.width_px, picture.height_px, FULL_PX)), "jpg", QUALITY)
        bare_s = time.process_time() - begin_s
        costs = []
        for urls in (work / "files.txt", work / "one.txt"):
            shutil.rmtree(work / "out", ignore_errors=True)
            command = ours(urls, work / "out", "--dedup", "off")
            costs.append(measure(command, work / "files.log", {"OMP_NUM_THREADS": "1"}).cpu_s)
        shares.append((bare_s, *costs, bare_s / (costs[0] - costs[1])))
        print(
            "bare {:.1f} CPU s, ingest {:.1f}, of which start-up {:.1f}: share {:.2f}".format(*shares[-1]), flush=True
        )
    return {"pictures": len(paths), "runs": shares, "share": statistics.median(run[-1] for run in shares)}


def ingest_fifty_thousand(arguments: argparse.Namespace) -> dict[str, object]:
    """Ingests all of them end to end, dropping near-duplicates."""
    work = Path(arguments.work)
    folder = work / "small"
    make_pictures(arguments.photographs, folder, arguments.count, (0.1, 0.3))
    with serving(folder) as url:
        urls = work / "fifty.txt"
        urls.write_text("".join(f"{url}/{index:05d}.jpg\n" for index in range(arguments.count)))
        shutil.rmtree(work / "fifty", ignore_errors=True)
        cost = measure(ours(urls, work / "fifty"), work / "fifty.log", {"OMP_NUM_THREADS": "1"})
    dataset = json.loads((work / "fifty" / "dataset.json").read_text())
    made = {"samples": dataset["samples"], "rejects": dataset["rejects"]}
    print(f"{arguments.count} pictures: {cost}; {made}")
    return {"pictures": arguments.count, **dataclasses.asdict(cost), **made}


TASKS = {"web": compare_on_the_web, "files": compare_with_a_bare_loop, "fifty-thousand": ingest_fifty_thousand}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("photographs")
    parser.add_argument("--work", default="ingest-benchmark")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--img2dataset", default="img2dataset")
    parsed = parser.parse_args()
    result = TASKS[parsed.task](parsed)
    (Path(parsed.work) / f"{parsed.task}.json").write_text(json.dumps(result, indent=2))
