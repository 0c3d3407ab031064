"""Shows the plan, the progress and the result of an ingest job."""

import time
from collections import Counter
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from transforms.ingest.batches import read_staged
from transforms.ingest.crawler import PHOTOGRAPHS_DONE
from transforms.ingest.plan import Plan, planned_rejects, read_share, web_host
from transforms.ingest.runs import merge_runs
from transforms.sources.manners import Manners
from transforms.training_set.dataset import Dataset
from transforms.training_set.samples import SPLITS

HOSTS_SHOWN = 12


def details() -> Callable[[], str]:
    """Returns a function that describes progress: photographs kept and rejected, with reasons, and download speed."""
    start_s = time.monotonic()

    def say() -> str:
        counts = PHOTOGRAPHS_DONE.named()
        megabytes_a_second = counts.pop("bytes", 0) / 1e6 / (time.monotonic() - start_s)
        kept = counts.pop("kept", 0)
        rejected = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
        return f"{kept} good, {megabytes_a_second:.1f} MB/s" + (f"; rejected: {rejected}" if rejected else "")

    return say


def show_plan(out: str, where: str, plan: Plan, manners: Manners) -> None:
    """Prints what a run would do.

    Args:
        out: the folder of the set.
        where: the folder that holds the plan.
        plan: how much there is in it.
        manners: the limits for requests to servers.
    """
    hosts: Counter[str] = Counter()
    finished = 0
    for share in range(plan.shares):
        done = {source for staged in read_staged(where, share) for source in staged.sources}
        finished += len(done)
        hosts.update(web_host(photo) for photo in read_share(where, share) if photo.source not in done)
    files = hosts.pop("", 0)
    table = Table(title=f"Plan for {out}", title_justify="left")
    table.add_column("what")
    table.add_column("photographs", justify="right")
    table.add_column("at least", justify="right")
    if finished:
        table.add_row("fetched by the interrupted run", str(finished), "")
    table.add_row("from files", str(files), "")
    for host, count in hosts.most_common(HOSTS_SHOWN):
        table.add_row(f"from {host}", str(count), f"{count / manners.host_rate:.0f} s")
    if len(hosts) > HOSTS_SHOWN:
        others = hosts.most_common()[HOSTS_SHOWN:]
        slowest_s = others[0][1] / manners.host_rate
        table.add_row(f"from {len(others)} other hosts", str(sum(count for _, count in others)), f"{slowest_s:.0f} s")
    reasons = Counter(reject.reason for reject in merge_runs(where, planned_rejects(where)))
    for reason, count in sorted(reasons.items()):
        table.add_row(f"rejected: {reason}", str(count), "")
    Console(stderr=True).print(table)


def show_summary(out: str, dataset: Dataset) -> None:
    """Prints how many samples and shards each split has, and how many photographs were rejected for which reason."""
    table = Table(title=f"Training set {out}", title_justify="left")
    table.add_column("what")
    table.add_column("samples", justify="right")
    table.add_column("files", justify="right")
    for split in SPLITS:
        shards = sum(name.startswith(f"{split}-") for name in dataset["shards"])
        table.add_row(split, str(dataset["samples"][split]), str(shards))
    table.add_section()
    for reason, count in dataset["rejects"].items():
        table.add_row(f"rejected: {reason}", str(count), "")
    Console(stderr=True).print(table)
