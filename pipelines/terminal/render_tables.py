"""Output of a render job: next to the progress bar, before the job and at its end."""

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transforms.panoramas.manifest import DONE, MANIFEST, ManifestRow
from transforms.render.assemble import PANORAMAS_DONE, PANORAMAS_FAILED
from transforms.render.estimate import Estimate
from transforms.render.index_page import INDEX
from transforms.render.intake import DONE_BEFORE, TAKEN
from transforms.render.synthesize import PATCHES_DONE, PIXELS
from transforms.storage.files import join
from transforms.storage.text import printable

MOST_ROWS_SHOWN = 20


class JobNote:
    """The note next to the progress bar: panoramas done, what one takes, failures, and speed since the first call."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self) -> str:
        """Returns the note."""
        parts = [f"{PANORAMAS_DONE.count}/{TAKEN.count} panoramas"]
        took_s = max(time.monotonic() - self.start, 1e-9)
        made = PANORAMAS_DONE.count - TAKEN.named().get(DONE_BEFORE, 0)
        if made > 0:
            parts.append(f"{took_s / made:.3g} s each")
        if PANORAMAS_FAILED.count:
            parts.append(f"{PANORAMAS_FAILED.count} failed")
        pixels = PATCHES_DONE.named().get(PIXELS)
        if pixels:
            parts.append(f"{pixels / 1e6 / took_s:.2f} Mpx/s")
        return ", ".join(parts)


def show_cautions(cautions: Mapping[str, int]) -> None:
    """Prints warnings about the requested files, with the number of panoramas that each concerns."""
    for caution, count in cautions.items():
        print(f"{count} panorama{'s' * (count > 1)}: {caution}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Summary:
    """The rows of a job's panoramas, of which the first few are kept.

    Attributes:
        count: the number of rows.
        done: the number of those that are done.
        shown: the first rows, failures before others.
    """

    count: int
    done: int
    shown: tuple[ManifestRow, ...]

    @classmethod
    def of(cls, rows: Iterable[ManifestRow]) -> "Summary":
        """Counts rows, and keeps some."""
        count, done = 0, 0
        first: dict[bool, list[ManifestRow]] = {False: [], True: []}
        for row in rows:
            is_done = row["state"] == DONE
            count, done = count + 1, done + is_done
            if len(first[is_done]) < MOST_ROWS_SHOWN:
                first[is_done].append(row)
        return cls(count, done, (*first[False], *first[True])[:MOST_ROWS_SHOWN])


def show_summary(out: str, summary: Summary) -> None:
    """Prints the state of each panorama, failures first, and where the files are."""
    table = Table(title=Text(f"Panoramas in {out}"), title_justify="left")
    for name in ("id", "size, px", "state", "seams, of 255"):
        table.add_column(name, overflow="fold")
    lines = []
    for row in summary.shown:
        name, size = printable(row["id"]), "" if row["width_px"] is None else f"{row['width_px']}×{row['height_px']}"
        table.add_row(Text(name), size, row["state"], str(row["seam_max_difference"] if size else ""))
        made = [join(out, file) for file in row["files"]]
        lines += made if row["state"] == DONE else [f"{name}: {printable(row['reason'] or '')}"]
    if summary.count > len(summary.shown):
        rest = summary.count - len(summary.shown)
        lines.append(f"and {rest} more; the full list is in {join(out, MANIFEST)}")
    Console(stderr=True).print(table)
    lines.append(f"Thumbnails: {join(out, INDEX)}")
    print(*lines, sep="\n", file=sys.stderr)


def show_refused(name: str, reason: str) -> None:
    """Prints that a request cannot be rendered, and why."""
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
