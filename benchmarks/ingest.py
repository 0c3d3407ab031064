"""The speed and memory of ingest, side by side with img2dataset's where that has the same task.

    python benchmarks/ingest.py web PHOTOGRAPHS --img2dataset VENV/bin/img2dataset
    python benchmarks/ingest.py files PHOTOGRAPHS
    python benchmarks/ingest.py fifty-thousand PHOTOGRAPHS

PHOTOGRAPHS is a folder of real ones; the files that are fetched are crops and enlargements of these. Prints a table and
writes JSON to --work, where all else goes too.
"""

import argparse
import asyncio
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
from processes import measure

from transforms.photographs import decode, encode, frame, store

FULL_PX, QUALITY = 197, 95


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server of a folder's files, in a process of its own; its URL."""
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
        pipe.send(site._server.sockets[0].getsockname()[1])
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
    """Alternating runs on the same URLs; start-up is what a run of one URL takes."""
    work = Path(arguments.work)
    folder = work / "large"
    make_pictures(arguments.photographs, folder, arguments.count, (1, 12))
    cores = len(os.sched_getaffinity(0))
    times: dict[str, list[tuple[float, float]]] = {}
    with serving(folder) as url:
        lists = {"all": work / "all.txt", "one": work / "one.txt"}
        lists["all"].write_text("".join(f"{url}/{index:05d}.jpg\n" for index in range(arguments.count)))
        lists["one"].write_text(f"{url}/00000.jpg\n")
        for _ in range(arguments.runs):
            for name, urls in lists.items():
                for program in ("infinitygan", "img2dataset"):
                    out = work / "out"
                    shutil.rmtree(out, ignore_errors=True)
                    command = ours(urls, out, "--dedup", "off")
                    if program == "img2dataset":
                        command = theirs(arguments.img2dataset, urls, out, cores)
                    measured = measure(command, work / f"{program}-{name}.log", {"OMP_NUM_THREADS": "1"})
                    times.setdefault(f"{program} {name}", []).append(measured)
                    print(
                        f"{program} {name}: {measured[0]:.1f} s, {measured[1]:.0f} MB, {count_made(out)} kept",
                        flush=True,
                    )
    result: dict[str, object] = {"pictures": arguments.count, "runs": times, "cores": cores}
    rates = {}
    for program in ("infinitygan", "img2dataset"):
        wall_s = statistics.median(second for second, _ in times[f"{program} all"])
        start_s = statistics.median(second for second, _ in times[f"{program} one"])
        peak_mb = max(peak for _, peak in times[f"{program} all"])
        rates[program] = (arguments.count / wall_s, arguments.count / (wall_s - start_s), peak_mb)
        print(f"{program}: {rates[program][0]:.1f}/s, without start-up {rates[program][1]:.1f}/s, {peak_mb:.0f} MB")
    ratios = [mine / other for mine, other in zip(rates["infinitygan"], rates["img2dataset"], strict=True)]
    print("ratios: with start-up {:.2f}, without {:.2f}, memory {:.2f}".format(*ratios))
    return {**result, "rates": rates, "ratios": ratios}


def count_made(out: Path) -> int:
    if (out / "dataset.json").exists():
        return sum(json.loads((out / "dataset.json").read_text())["samples"].values())
    return sum(json.loads(path.read_text())["successes"] for path in out.glob("*_stats.json"))


def compare_with_a_bare_loop(arguments: argparse.Namespace) -> dict[str, object]:
    """Pictures a second on one core: ingest of local files against draft decode, resize and encode alone."""
    work = Path(arguments.work)
    folder = work / "large"
    make_pictures(arguments.photographs, folder, arguments.count, (1, 12))
    paths = sorted(folder.glob("*.jpg"))[: arguments.count]
    (work / "files.txt").write_text("".join(f"{path.resolve()}\n" for path in paths))
    (work / "one.txt").write_text(f"{paths[0].resolve()}\n")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    shares = []
    for _ in range(arguments.runs):
        begin = time.perf_counter()
        for path in paths:
            picture = decode(path.read_bytes(), FULL_PX)
            encode(store(picture, frame(picture.width_px, picture.height_px, FULL_PX)), "jpg", QUALITY)
        bare_s = time.perf_counter() - begin
        runs_s = []
        for urls in (work / "files.txt", work / "one.txt"):
            shutil.rmtree(work / "out", ignore_errors=True)
            command = ours(urls, work / "out", "--dedup", "off")
            runs_s.append(measure(command, work / "files.log", {"OMP_NUM_THREADS": "1"})[0])
        shares.append((bare_s, *runs_s, bare_s / (runs_s[0] - runs_s[1])))
        print("bare {:.1f} s, ingest {:.1f} s of which start-up {:.1f} s: share {:.2f}".format(*shares[-1]), flush=True)
    return {"pictures": len(paths), "runs": shares, "share": statistics.median(run[-1] for run in shares)}


def ingest_fifty_thousand(arguments: argparse.Namespace) -> dict[str, object]:
    """All of it end to end, near-duplicates dropped."""
    work = Path(arguments.work)
    folder = work / "small"
    make_pictures(arguments.photographs, folder, arguments.count, (0.1, 0.3))
    with serving(folder) as url:
        urls = work / "fifty.txt"
        urls.write_text("".join(f"{url}/{index:05d}.jpg\n" for index in range(arguments.count)))
        shutil.rmtree(work / "fifty", ignore_errors=True)
        wall_s, peak_mb = measure(ours(urls, work / "fifty"), work / "fifty.log", {"OMP_NUM_THREADS": "1"})
    dataset = json.loads((work / "fifty" / "dataset.json").read_text())
    made = {"samples": dataset["samples"], "rejects": dataset["rejects"]}
    print(
        f"{arguments.count} pictures: {wall_s:.0f} s, {arguments.count / wall_s:.0f}/s, peak {peak_mb:.0f} MB; {made}"
    )
    return {"pictures": arguments.count, "wall_s": wall_s, "peak_mb": peak_mb, **made}


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
