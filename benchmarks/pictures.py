"""Makes photographs for the benchmarks of ingest: any number of crops and enlargements of real ones."""

import io
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import Image

from transforms.storage.pictures import open_picture


def make_pictures(photographs: str, folder: Path, count: int, megapixels: tuple[float, float]) -> None:
    """Writes `count` JPEGs with sizes between two numbers of megapixels, unless they exist."""
    originals = sorted(path for path in Path(photographs).iterdir() if path.suffix in (".jpg", ".jpeg", ".png"))
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(originals[index % len(originals)], folder / f"{index:05d}.jpg", index) for index in range(count)]
    jobs = sorted(job for job in jobs if not job[1].exists())
    with ProcessPoolExecutor(2) as pool:
        for _ in pool.map(write_picture, jobs, [megapixels] * len(jobs), chunksize=-(-count // len(originals))):
            pass


@lru_cache(maxsize=1)
def open_photograph(path: Path) -> Image.Image:
    """Opens a photograph; it is cached, because the next jobs use the same one."""
    with open_picture(path.read_bytes()) as image:
        return image.convert("RGB")


def write_picture(job: tuple[Path, Path, int], megapixels: tuple[float, float]) -> None:
    """Writes a window of a photograph, randomly flipped and scaled."""
    original, path, number = job
    random = Random(number)
    opened = open_photograph(original)
    share = random.uniform(0.4, 0.9)
    width, height = (round(share * side) for side in opened.size)
    left, top = random.randint(0, opened.width - width), random.randint(0, opened.height - height)
    window = opened.crop((left, top, left + width, top + height))
    if random.random() < 0.5:
        window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = (random.uniform(*megapixels) * 1e6 / (width * height)) ** 0.5
    buffer = io.BytesIO()
    window.resize((round(scale * width), round(scale * height)), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=85
    )
    path.write_bytes(buffer.getvalue())
