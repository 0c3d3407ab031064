"""index.html: the manifest as a page, with a thumbnail of each panorama and links to its files."""

from collections.abc import Iterable

from transforms.panoramas.folder import thumbnail_path
from transforms.panoramas.manifest import DONE, ManifestRow, stream_manifest, version_of_manifest
from transforms.storage.files import join, write_bytes
from transforms.storage.retry import retried
from transforms.storage.templates import fill

INDEX = "index.html"
MOST_SHOWN = 10_000


def write_index(out: str) -> None:
    """Writes the page of a folder's manifest, again if other runs change it meanwhile."""
    shown = None
    while shown != (version := retried(version_of_manifest, out)):
        retried(write_bytes, join(out, INDEX), page(stream_manifest(out)).encode())
        shown = version


def page(rows: Iterable[ManifestRow]) -> str:
    """Renders the page of a manifest's rows."""
    figures: list[dict[str, object]] = []
    total = done = 0
    for total, row in enumerate(rows, start=1):
        done += row["state"] == DONE
        if total <= MOST_SHOWN:
            figures.append(figure(row))
    return fill("index.html", done=done, total=total, most_shown=MOST_SHOWN, figures=figures)


def figure(row: ManifestRow) -> dict[str, object]:
    """Returns the template's values for one panorama."""
    done = row["state"] == DONE
    return {
        "id": row["id"],
        "size": None if row["width_px"] is None else size(row),
        "reason": None if done else row["reason"] or row["state"],
        "thumbnail": thumbnail_path("", row["id"]),
        "links": [{"url": opened(file), "name": file.rsplit(".", 1)[1]} for file in row["files"]] if done else [],
    }


def size(row: ManifestRow) -> str:
    """Returns a panorama's size and seed in words, and its scale if it has one."""
    scale = "" if row["scale"] in (None, 1) else f", scale {row['scale']}"
    return f"{row['width_px']} × {row['height_px']} px{scale}, seed {row['seed']}"


def opened(file: str) -> str:
    """Returns the file to open for a link: for a pyramid, the page that shows it."""
    return f"{file.removesuffix('.dzi')}.html" if file.endswith(".dzi") else file
