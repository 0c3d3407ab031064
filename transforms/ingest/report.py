"""``report.html``: what is in a training set and what is not, to be looked at. One file; it needs no network."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from transforms.storage.byte_ranges import Piece, read_each
from transforms.storage.files import join, write_bytes
from transforms.storage.pictures import STORED_FORMATS, open_picture
from transforms.training_set.dataset import REPORT, TrainingSet
from transforms.training_set.records import Reject
from transforms.training_set.samples import SPLITS

LOOKED_AT: Final = 240
"""So many pictures, spread evenly over the index, are opened; half of them are shown."""

THUMBNAIL_PX: Final = 72
BANDS: Final = 24
EXAMPLES: Final = 5
LICENCES: Final = 40
BINS: Final = 24

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #667085; --line: #d9dee7; --page: #fbfcfe; --bar: #3b76b5 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #323a47; --page: #14181f; --bar: #6ea3dc } }
body { margin: 2rem auto; max-width: 68rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--page) }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
p, figcaption, th { color: var(--soft) } th { text-align: left; font-weight: 500 }
table { border-collapse: collapse } td, th { padding: .25rem .75rem .25rem 0; vertical-align: top }
td { border-top: 1px solid var(--line); overflow-wrap: anywhere } td.n { text-align: right; white-space: nowrap }
td code { white-space: nowrap; overflow-wrap: normal }
.sheet { display: flex; flex-wrap: wrap; gap: 3px } .sheet img { height: 72px; display: block }
.sheet .unreadable { line-height: 70px; padding: 0 .5rem; color: var(--soft); border: 1px solid var(--line) }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1.5rem }
figure { margin: 0 } svg { width: 100%; height: auto } svg text { font: 11px system-ui; fill: var(--soft) }
svg .bar { fill: var(--bar) } svg .axis { stroke: var(--line) } small { color: var(--soft) }
"""


def write_report(out: str, training_set: TrainingSet) -> None:
    """Writes the report of the training set in a folder."""
    write_bytes(join(out, REPORT), build_report(out, training_set).encode())


def build_report(out: str, training_set: TrainingSet) -> str:
    """The report as HTML."""
    rows = training_set.rows
    looked_at = rows[:: -(-len(rows) // LOOKED_AT) or 1]
    pieces = (Piece(join(out, row["shard"]), row["offset"], row["size"]) for row in looked_at)
    images = [_open(content) for content in read_each(pieces)]
    opened = [image for image in images if image is not None]
    body = [
        _counts(training_set),
        *(["<h2>Pictures</h2>", _contact_sheet(looked_at[::2], images[::2])] if rows else []),
        *([_unreadable(looked_at, images)] if len(opened) < len(images) else []),
        *(["<h2>Sizes and light</h2>", _figures(rows, opened)] if rows else []),
        "<h2>Rejected</h2>",
        _rejects(training_set.rejects),
        "<h2>Licences</h2>",
        _table(("licence", "samples"), _most_common((row["licence"] or "unstated" for row in rows), LICENCES)),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Training set</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex, noai">'
        f"<style>{_STYLE}</style></head><body>\n<h1>Training set</h1>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _open(content: bytes | Exception) -> Image.Image | None:
    """A stored picture; nothing if it cannot be read, which the report says and goes on."""
    try:
        if isinstance(content, Exception):
            return None
        with open_picture(content, STORED_FORMATS) as image:
            return image.convert("RGB")
    except Exception:  # Pillow's decoders raise almost anything on broken bytes
        return None


def _counts(training_set: TrainingSet) -> str:
    dataset = training_set.dataset
    shards = Counter(name.split("-")[0] for name in dataset["shards"])
    megabytes = sum(shard["size_bytes"] for shard in dataset["shards"].values()) / 1e6
    rows = [(split, dataset["samples"][split], shards[split]) for split in SPLITS]
    size = f"{dataset['full_size_px']} px high, for patches of {dataset['patch_size_px']} px; {megabytes:.1f} MB"
    return f"<p>{size}.</p>" + _table(("split", "samples", "shards"), rows)


def _contact_sheet(rows: Sequence[dict[str, Any]], images: Sequence[Image.Image | None]) -> str:
    cells = []
    for row, image in zip(rows, images, strict=True):
        if image is None:
            place = escape(f"{row['shard']}, {row['key']}: {row['source']}", quote=True)
            cells.append(f'<span class="unreadable" title="{place}">unreadable</span>')
            continue
        width_px = max(1, round(image.width * THUMBNAIL_PX / image.height))
        buffer = io.BytesIO()
        image.resize((width_px, THUMBNAIL_PX), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=80)
        words = [row["title"], row["author"], row["licence"], row["source"]]
        text = escape(" · ".join(word for word in words if word), quote=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        cells.append(f'<img src="data:image/jpeg;base64,{data}" alt="{text}" title="{text}">')
    return f"<p>{len(cells)} of them, in the order of the index.</p>" + f'<div class="sheet">{"".join(cells)}</div>'


def _unreadable(rows: Sequence[dict[str, Any]], images: Sequence[Image.Image | None]) -> str:
    broken = [row for row, image in zip(rows, images, strict=True) if image is None]
    such = "; ".join(f"{row['source']}, in {row['shard']}" for row in broken[:EXAMPLES])
    cure = "copy the shards again, or ingest the photographs again"
    return f"<p>{len(broken)} of the {len(rows)} pictures that were opened cannot be read ({escape(such)}): {cure}.</p>"


def _figures(rows: Sequence[dict[str, Any]], images: Sequence[Image.Image]) -> str:
    sides = np.array([(row["original_width_px"], row["original_height_px"]) for row in rows], dtype=np.float64)
    aspects = sides[:, 0] / sides[:, 1]
    figures = [
        _histogram("Short side of the originals, px", sides.min(axis=1)),
        _histogram("Width of the originals over their height", aspects),
    ]
    if images:
        light = np.array([np.asarray(image.convert("L")).mean() for image in images])
        figures += [_histogram(f"Brightness, mean level of 255, of {len(images)} pictures", light), _profile(images)]
    return f'<div class="figures">{"".join(figures)}</div>'


def _histogram(caption: str, values: npt.NDArray[np.float64]) -> str:
    """Bars from the 1st to the 99th percentile; what lies beyond is in the outermost ones."""
    low, high = np.percentile(values, (1, 99))
    high = high if high > low else low + max(1.0, abs(low))
    counts, edges = np.histogram(values.clip(low, high), bins=BINS, range=(low, high))
    wide = 300 / BINS
    bars = "".join(
        f'<rect class="bar" x="{index * wide + 0.5:.1f}" y="{110 - 100 * count / counts.max():.1f}" '
        f'width="{wide - 1:.1f}" height="{100 * count / counts.max():.1f}">'
        f"<title>{_number(edges[index])} to {_number(edges[index + 1])}: {count}</title></rect>"
        for index, count in enumerate(counts)
    )
    middle = f'<text x="150" y="126" text-anchor="middle">{_number((low + high) / 2)}</text>'
    ends = f'<text x="0" y="126">{_number(low)}</text><text x="300" y="126" text-anchor="end">{_number(high)}</text>'
    axis = '<line class="axis" x1="0" x2="300" y1="110.5" y2="110.5"/>'
    most = f'<text x="300" y="9" text-anchor="end">at most {counts.max()} a bar</text>'
    return _figure(caption, f'<svg viewBox="0 0 300 130" role="img">{axis}{bars}{ends}{middle}{most}</svg>')


def _profile(images: Sequence[Image.Image]) -> str:
    """The mean colour at each height, and how light it is."""
    columns = [np.asarray(image.resize((1, BANDS), Image.Resampling.BOX), dtype=np.float64)[:, 0] for image in images]
    colours = np.mean(columns, axis=0)  # [BANDS, 3]
    high = 110 / BANDS
    parts = []
    for band, (red, green, blue) in enumerate(colours):
        level = 0.299 * red + 0.587 * green + 0.114 * blue
        y = band * high
        colour = f"rgb({red:.0f},{green:.0f},{blue:.0f})"
        parts.append(f'<rect x="0" y="{y:.2f}" width="90" height="{high + 0.3:.2f}" fill="{colour}"/>')
        parts.append(
            f'<rect class="bar" x="100" y="{y + 0.5:.2f}" width="{200 * level / 255:.1f}" height="{high - 1:.2f}">'
            f"<title>{level:.0f} of 255</title></rect>"
        )
    labels = '<text x="0" y="126">mean colour</text><text x="100" y="126">mean level, 0 to 255</text>'
    drawing = f'<svg viewBox="0 0 300 130" role="img">{"".join(parts)}{labels}</svg>'
    return _figure("From the top of the pictures to their bottom", drawing)


def _rejects(rejects: Sequence[Reject]) -> str:
    if not rejects:
        return "<p>Nothing.</p>"
    by_reason: dict[str, list[Reject]] = {}
    for reject in rejects:
        by_reason.setdefault(reject.reason, []).append(reject)
    rows = []
    for reason, some in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])):
        examples = "<br>".join(
            f"{escape(reject.source)} <small>{escape(reject.message)}</small>" for reject in some[:EXAMPLES]
        )
        rows.append(f'<tr><td><code>{escape(reason)}</code></td><td class="n">{len(some)}</td><td>{examples}</td></tr>')
    head = "<tr><th>reason</th><th>sources</th><th>such as</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _most_common(values: Iterable[str], most: int) -> list[tuple[str, int]]:
    counts = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in counts[most:])
    return counts[:most] + ([(f"{len(counts) - most} others", rest)] if rest else [])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = []
    for first, *rest in rows:
        numbers = "".join(f"<td>{value}</td>" for value in rest)
        cells.append(f"<tr><td>{escape(str(first))}</td>{numbers}</tr>")
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(cells)}</table>"


def _figure(caption: str, drawing: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{drawing}</figure>"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.1f}"
