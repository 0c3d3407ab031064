"""index.html: the manifest as a page, with a thumbnail of each panorama and links to its files."""

import html
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from transforms.manifest import DONE
from transforms.render_folder import thumbnail_path
from transforms.storage import join, write_bytes

INDEX = "index.html"
MOST_SHOWN = 10_000
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fafafa }
main { display: flex; flex-wrap: wrap; gap: 1.2em }
figure { margin: 0; max-width: 100%; background: #fff; border: 1px solid #ddd; padding: .6em; border-radius: 4px }
img { display: block; height: 96px; max-width: 100%; object-fit: cover; object-position: left; background: #ddd }
figcaption { margin-top: .4em; max-width: 48em; overflow-wrap: anywhere }
.failed { border-color: #b00 } .reason { color: #b00 }
"""


def write_index(out: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes the page of a manifest's rows."""
    rows = list(rows)
    write_bytes(join(out, INDEX), page(rows).encode())


def page(rows: list[Mapping[str, Any]]) -> str:
    """The page."""
    done = sum(row["state"] == DONE for row in rows)
    said = f"{done} of {len(rows)} panoramas are done"
    if len(rows) > MOST_SHOWN:
        said += f"; the first {MOST_SHOWN} are shown, all of them are in manifest.parquet"
    figures = "\n".join(figure(row) for row in islice(rows, MOST_SHOWN))
    head = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Panoramas</title>'
    return f"{head}\n<style>{STYLE}</style>\n<h1>Panoramas</h1>\n<p>{said}</p>\n<main>\n{figures}\n</main>\n</html>\n"


def figure(row: Mapping[str, Any]) -> str:
    """One panorama on the page."""
    name, done = html.escape(row["id"]), row["state"] == DONE
    asked = "" if row["plan"] is None else f" {row['width_px']} × {row['height_px']} px, seed {row['seed']}"
    about = f"<b>{name}</b>{asked}<br>"
    if not done:
        said = html.escape(row["reason"] or row["state"])
        return f'<figure class="failed"><figcaption>{about}<span class="reason">{said}</span></figcaption></figure>'
    links = " ".join(f'<a href="{html.escape(shown(file))}">{file.rsplit(".", 1)[1]}</a>' for file in row["files"])
    picture = f'<img loading="lazy" src="{html.escape(thumbnail_path("", row["id"]))}" alt="{name}">'
    first = html.escape(shown(row["files"][0]))
    return f'<figure><a href="{first}">{picture}</a><figcaption>{about}{links}</figcaption></figure>'


def shown(file: str) -> str:
    """What to open for a file: for a pyramid, the page that shows it."""
    return f"{file.removesuffix('.dzi')}.html" if file.endswith(".dzi") else file
