"""Makes all pictures of the documentation that come from the bundled checkpoint.

python benchmarks/gallery.py --work DIR [--only NAME...] [--pictures docs/images]

Each picture is made by the commands above it in README.md and docs/, from photographs in samples/, scaled down and
arranged on one page. Results in DIR are reused; each checkpoint has its own folder there. The pictures are copied to
the documentation only when all of them are finished.
"""

import argparse
import dataclasses
import hashlib
import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from model.bundled import CHECKPOINT
from pipelines.cli import run
from transforms.panoramas.requests import RenderRequest, read_requests, write_requests
from transforms.storage.pictures import open_picture

ROOT = Path(__file__).parents[1]
SAMPLES, PICTURES = ROOT / "samples", ROOT / "docs" / "images"
GAP_PX = 8
GALLERY_SEEDS, GALLERY_COLUMNS = range(1, 13), 2
JOURNEY_ROWS = 4
INVERTED = ("dry-mountains", "mountain-lake", "wheat-field", "winter-coast")
INVERSION = ("--size", "256x128", "--steps", 200)


def command(*arguments: object) -> None:
    """Runs a command of the project; stops if it fails."""
    words = [str(argument) for argument in arguments]
    print("  infinitygan", *words, file=sys.stderr)
    if code := run(words):
        sys.exit(code)


def opened(path: Path) -> Image.Image:
    """Opens a picture in memory."""
    with open_picture(path.read_bytes()) as image:
        return image.convert("RGB")


def panoramas(folder: Path) -> list[Image.Image]:
    """Returns the panoramas of a render job, by name."""
    return [opened(path) for path in sorted((folder / "panoramas").glob("*.png"))]


def page(pictures: Sequence[Image.Image], columns: int = 1, gap_px: int = GAP_PX) -> Image.Image:
    """Arranges pictures of one size in rows, with white gaps."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + gap_px) - gap_px, rows * (height + gap_px) - gap_px), "white")
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % columns * (width + gap_px), place // columns * (height + gap_px)))
    return sheet


def rolled(picture: Image.Image) -> Image.Image:
    """Rolls a picture by half, so that its ends meet in the middle."""
    half = picture.width // 2
    turned = Image.new("RGB", picture.size)
    turned.paste(picture, (half - picture.width, 0))
    turned.paste(picture, (half, 0))
    return turned


def world_23(work: Path) -> Image.Image:
    """Makes README's picture."""
    command("render", "--seed", 23, "--scale", 4, "--width", 8192, "--height", 768, "--out", work)
    return panoramas(work)[0]


def gallery(work: Path) -> Image.Image:
    """Makes pictures of worlds with consecutive seeds."""
    requests = [RenderRequest(id=f"{seed:02}", seed=seed, width_px=1024, height_px=256) for seed in GALLERY_SEEDS]
    work.mkdir(parents=True, exist_ok=True)
    write_requests(str(work / "requests.jsonl"), requests)
    command("render", "--requests", work / "requests.jsonl", "--out", work)
    return page(panoramas(work), GALLERY_COLUMNS, gap_px=0)


def one_of_worlds(name: str) -> Callable[[Path], Image.Image]:
    """Returns a function that renders one of the requests of docs/worlds.jsonl."""

    def make(work: Path) -> Image.Image:
        (request,) = (one for one in read_requests(str(ROOT / "docs" / "worlds.jsonl")) if one.id == name)
        work.mkdir(parents=True, exist_ok=True)
        write_requests(str(work / "requests.jsonl"), [request])
        command("render", "--requests", work / "requests.jsonl", "--out", work)
        return panoramas(work)[0]

    return make


def journey(work: Path) -> Image.Image:
    """Makes a journey, and cuts it into rows."""
    whole = one_of_worlds("journey")(work)
    width = whole.width // JOURNEY_ROWS
    return page([whole.crop((x, 0, x + width, whole.height)) for x in range(0, whole.width, width)])


def two_of_worlds(upper: str, lower: str) -> Callable[[Path], Image.Image]:
    """Returns a function that makes one request of docs/worlds.jsonl above another."""

    def make(work: Path) -> Image.Image:
        return page([one_of_worlds(name)(work / name) for name in (upper, lower)])

    return make


def fused(width_px: int, height_px: int) -> Callable[[Path], Image.Image]:
    """Returns a function that renders four styles."""

    def make(work: Path) -> Image.Image:
        size = ("--width", width_px, "--height", height_px)
        command("fuse", "--styles", "5,9,10,6", "--seed", 5, *size, "--out", work)
        return panoramas(work)[0]

    return make


def edited(work: Path) -> Image.Image:
    """Makes a panorama before and after an edit."""
    command("render", "--seed", 10, "--width", 1280, "--height", 256, "--out", work, "--replace")
    before = panoramas(work)
    command("edit", work / "panoramas" / "seed-10_1280x256.json", "--box", "520,-96,240,128", "--seed", 4)
    return page(before + panoramas(work))


def inverted(work: Path) -> Image.Image:
    """Makes photographs above their reconstructions."""
    command("invert", *(SAMPLES / f"{name}.jpg" for name in INVERTED), *INVERSION, "--out", work)
    return page([opened(work / f"{name}.preview.jpg") for name in INVERTED], columns=len(INVERTED))


def outpainted(name: str, more_px: int) -> Callable[[Path], Image.Image]:
    """Returns a function that makes variants of an outpainted photograph."""

    def make(work: Path) -> Image.Image:
        sides = ("--left", more_px, "--right", more_px, "--variants", 3)
        command("outpaint", SAMPLES / f"{name}.jpg", *INVERSION, *sides, "--out", work)
        return page(panoramas(work))

    return make


def outpainted_at_scale(work: Path) -> Image.Image:
    """Makes an outpainted photograph at scale 4, and cuts out what lies around its left border."""
    size = ("--size", "1024x512", "--scale", 4, "--steps", 200)
    command("outpaint", SAMPLES / "mountain-lake.jpg", *size, "--left", 768, "--right", 768, "--out", work)
    return panoramas(work)[0].crop((256, 0, 1280, 512))


def joined(work: Path) -> Image.Image:
    """Makes a panorama from one photograph to the next."""
    both = (SAMPLES / "mountain-lake.jpg", SAMPLES / "wheat-field.jpg")
    command("inbetween", *both, *INVERSION, "--width", 1280, "--out", work)
    return panoramas(work)[0]


def closed(work: Path) -> Image.Image:
    """Makes a cyclic panorama from one photograph, and the same rolled by half a turn."""
    command("inbetween", SAMPLES / "winter-coast.jpg", *INVERSION, "--width", 1280, "--cyclic", "--out", work)
    (circle,) = panoramas(work)
    return page([circle, rolled(circle)])


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """A picture of the documentation.

    Attributes:
        make: Makes it at its full size, in its own folder.
        quality: The quality of the JPEG, 1 to 95.
        width_px: The width to which it is scaled down; None to keep its size.
    """

    make: Callable[[Path], Image.Image]
    quality: int
    width_px: int | None = None


SHOWN = {
    "world-23": Shown(world_23, 80),
    "worlds": Shown(gallery, 70),
    "world-plain": Shown(one_of_worlds("plain"), 80, 1024),
    "world-elsewhere": Shown(one_of_worlds("elsewhere"), 80, 1024),
    "world-four-styles": Shown(one_of_worlds("four-styles"), 80, 1280),
    "world-plane": Shown(one_of_worlds("plane"), 80, 768),
    "world-journey": Shown(journey, 75, 1024),
    "world-truncated": Shown(two_of_worlds("not-truncated", "truncated"), 75, 1024),
    "world-locally-truncated": Shown(two_of_worlds("not-locally-truncated", "locally-truncated"), 75, 1024),
    "world-cyclic-rolled": Shown(one_of_worlds("cyclic-rolled"), 80, 1024),
    "world-edited": Shown(one_of_worlds("edited"), 80, 1024),
    "fuse-row": Shown(fused(4096, 512), 85, 2048),
    "fuse-plane": Shown(fused(1280, 768), 85, 960),
    "edit": Shown(edited, 85),
    "invert": Shown(inverted, 85),
    "outpaint": Shown(outpainted("mountain-lake", 192), 85),
    "outpaint-scale": Shown(outpainted_at_scale, 80),
    "outpaint-variants": Shown(outpainted("wheat-field", 512), 85),
    "inbetween": Shown(joined, 85),
    "inbetween-cyclic": Shown(closed, 85),
}
"""The pictures by their names in docs/images."""


def save(shown: Shown, folder: Path, path: Path) -> None:
    """Makes a picture and writes it atomically as a JPEG."""
    picture = shown.make(folder)
    if shown.width_px is not None:
        size = shown.width_px, round(picture.height * shown.width_px / picture.width)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    part = path.with_suffix(".part")
    picture.save(part, "JPEG", quality=shown.quality, progressive=True, optimize=True)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SHOWN, default=list(SHOWN), metavar="NAME")
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.CRITICAL)  # as the command line does, because of Beam's warnings
    work = arguments.work / hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()[:12]
    made = {name: work / f"{name}.jpg" for name in arguments.only}
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for number, (name, path) in enumerate(made.items(), start=1):
        print(f"{number} of {len(made)}: {name}{', there already' * path.exists()}", file=sys.stderr)
        if not path.exists():
            save(SHOWN[name], work / name, path)
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    for path in made.values():
        shutil.copy(path, arguments.pictures)
    print(f"{len(made)} pictures in {arguments.pictures}, {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
