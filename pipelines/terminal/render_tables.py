"""Output of a render job: next to the progress bar, before the job and at its end."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transforms.formats.registry import caution
from transforms.panoramas.manifest import DONE, MANIFEST, ManifestRow
from transforms.panoramas.plan import Plan
from transforms.render.assemble import PANORAMAS_DONE, PANORAMAS_FAILED
from transforms.render.estimate import Estimate
from transforms.render.index_page import INDEX
from transforms.render.synthesize import PATCHES_DONE, PIXELS
from transforms.storage.files import join
from transforms.storage.text import printable

MOST_ROWS_SHOWN = 20


class JobNote:
    """The note next to the progress bar: panoramas done, what one takes, failures, and speed since the first call.

    Args:
        panoramas: The number of panoramas in the job.
        done: The number of those that were done before.
    """

    def __init__(self, panoramas: int, done: int = 0):
        self.panoramas, self.done, self.start = panoramas, done, time.monotonic()

    def __call__(self) -> str:
        """Returns the note."""
        parts = [f"{PANORAMAS_DONE.count}/{self.panoramas} panoramas"]
        took_s = max(time.monotonic() - self.start, 1e-9)
        if PANORAMAS_DONE.count > self.done:
            parts.append(f"{took_s / (PANORAMAS_DONE.count - self.done):.3g} s each")
        if PANORAMAS_FAILED.count:
            parts.append(f"{PANORAMAS_FAILED.count} failed")
        pixels = PATCHES_DONE.named().get(PIXELS)
        if pixels:
            parts.append(f"{pixels / 1e6 / took_s:.2f} Mpx/s")
        return ", ".join(parts)


def show_cautions(plans: Iterable[Plan]) -> None:
    """Prints warnings about the requested files, each once, with the panoramas it concerns."""
    about: dict[str, list[str]] = {}
    for plan in plans:
        for name in plan.request.formats:
            remark = caution(name, plan.request.width_px, plan.request.height_px)
            if remark:
                about.setdefault(remark, []).append(plan.request.id)
    for remark, ids in about.items():
        others = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        print(f"{ids[0]}{others}: {remark}", file=sys.stderr)


def show_summary(out: str, rows: Sequence[ManifestRow]) -> None:
    """Prints the state of each panorama, failures first, and where the files are."""
    table = Table(title=Text(f"Panoramas in {out}"), title_justify="left")
    for name in ("id", "size, px", "state", "seams, of 255"):
        table.add_column(name, overflow="fold")
    lines = []
    for row in sorted(rows, key=lambda row: row["state"] == DONE)[:MOST_ROWS_SHOWN]:
        name, size = printable(row["id"]), "" if row["width_px"] is None else f"{row['width_px']}×{row['height_px']}"
        table.add_row(Text(name), size, row["state"], str(row["seam_max_difference"] if size else ""))
        made = [join(out, file) for file in row["files"]]
        lines += made if row["state"] == DONE else [f"{name}: {printable(row['reason'] or '')}"]
    if len(rows) > MOST_ROWS_SHOWN:
        lines.append(f"and {len(rows) - MOST_ROWS_SHOWN} more; the full list is in {join(out, MANIFEST)}")
    Console(stderr=True).print(table)
    lines.append(f"Thumbnails: {join(out, INDEX)}")
    print(*lines, sep="\n", file=sys.stderr)


def show_refused(refused: Mapping[str, str]) -> None:
    """Prints which requests cannot be rendered, and why."""
    for name, reason in refused.items():
        print(f"{printable(name)}: {' '.join(reason.split())}", file=sys.stderr)


def show_estimate(out: str, cost: Estimate, tile_s: float, scales: Iterable[int]) -> None:
    """Prints what a job would do, at which scales, and how long it would take at `tile_s` seconds per tile."""
    table = Table(title=Text(f"Nothing has been written to {out}"), title_justify="left", show_header=False)
    lines: tuple[tuple[str, str], ...] = (
        ("panoramas", f"{cost.requests:,}, of which {cost.complete:,} are done"),
        ("scale", ", ".join(map(str, sorted(set(scales))))),
        ("shards to make", f"{cost.shards:,}"),
        ("tiles to compute", f"{cost.tiles:,}"),
        ("pixels of all panoramas", f"{cost.pixels / 1e6:,.1f} million"),
        ("multiply-adds", f"{cost.multiply_adds / 1e12:,.1f} T"),
        ("patch shards, about", f"{cost.shard_bytes / 1e6:,.0f} MB"),
        ("panoramas, about", f"{cost.panorama_bytes / 1e6:,.0f} MB"),
    )
    if cost.tiles:
        lines = (*lines, ("time to compute on this machine", f"{cost.tiles * tile_s:,.0f} s, {tile_s:.2f} s per tile"))
    for line in lines:
        table.add_row(*line)
    Console(stderr=True).print(table)
