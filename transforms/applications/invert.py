"""Photographs to overlays: the files that an inversion reads and writes.

<out>.safetensors                 the overlay; written last
<out>.preview.jpg                 the photograph above the world's current picture of it
<out>.state.safetensors           the state from which a killed run resumes; removed at the end
"""

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import torch
from apache_beam.typehints.decorators import no_annotations
from PIL import Image

from model import checkpoint as safetensors
from model.bundled import resolve
from model.checkpoint import Checkpoint, load_checkpoint
from model.config import GeneratorConfig, check_tileable
from model.errors import DivergenceError, InputError, one_line
from model.inversion import LEAST_SIDE_PX, Inversion, InversionConfig, Target, check_sides
from model.kernels import exact_kernels
from model.memory import reuse_freed_memory
from model.quantise import quantise
from model.version import __version__
from model.world.definition import check_position
from model.world.overlay import Overlay, save_overlay
from model.world.scale import check_scale
from transforms.panoramas.overlays import read_overlay
from transforms.photographs.codec import decode
from transforms.sources.fetch import fetch_file
from transforms.sources.lists import LIST_SUFFIXES, PICTURE_SUFFIXES, read_list
from transforms.sources.manners import Manners
from transforms.storage.files import exists, filesystem, join, list_files, write_bytes
from transforms.storage.tally import Tally
from transforms.storage.tensor_files import read_tensors
from transforms.storage.urls import check_scheme, is_web, redact
from transforms.training_set.records import Reject, Rejection

SUFFIX = ".safetensors"
STATE = "inversion state"
SAVE_EVERY = 100
"""The number of steps between saved states and previews."""

STEPS_DONE = Tally("steps")
INVERTED_DONE = Tally("inverted")


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionJob:
    """A photograph to be inverted.

    Attributes:
        photograph: the path or URL of the photograph.
        out: the path of the overlay, a .safetensors file.
        checkpoint: the URL of the generator.
        config: the settings of the inversion.
        size_px: the width and height to which it is scaled and cropped; None for the network's full height at the
            scale, uncropped.
        x_px: the world pixel of its left edge, at scale 1.
        y_px: the world pixel of its top edge, at scale 1; None to lay its middle on the horizon.
        cyclic_px: the circumference, at scale 1, of the world that the overlay is for.
        scale: the scale at which the photograph is kept, of `SCALES`; it is inverted at scale 1.

    Raises:
        InputError: the file's name, the position or the scale is invalid.
    """

    photograph: str
    out: str
    checkpoint: str
    config: InversionConfig
    size_px: tuple[int, int] | None = None
    x_px: int = 0
    y_px: int | None = None
    cyclic_px: int | None = None
    scale: int = 1

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if not self.out.endswith(SUFFIX):
            raise InputError(f"--out {self.out}: an overlay's file must be named *{SUFFIX}")
        check_position("x", self.x_px)
        check_position("y", self.y_px or 0)

    @property
    def stem(self) -> str:
        """The overlay's path without its suffix."""
        return self.out.removesuffix(SUFFIX)


def photographs_at(places: Iterable[str]) -> list[str]:
    """Returns the photographs at some places, in order: files, files in folders, and those that lists name.

    Raises:
        InputError: a folder or list holds no photograph, or a list cannot be read.
    """
    found: list[str] = []
    for place in places:
        check_scheme(place)
        if is_folder(place):
            inside = [join(place, name) for name in list_files(place) if name.lower().endswith(PICTURE_SUFFIXES)]
        elif place.lower().endswith(LIST_SUFFIXES):
            inside = listed(place)
        else:
            inside = [place]
        if not inside:
            raise InputError(f"{place} holds no photographs; give files, folders or lists of them")
        found += inside
    return list(dict.fromkeys(found))


def is_folder(place: str) -> bool:
    """Returns whether there is a folder at a path or URL."""
    if is_web(place):
        return False
    fs, path = filesystem(place)
    return bool(fs.isdir(path))


def listed(url: str) -> list[str]:
    """Returns the photographs that a list names, read as ingest reads it.

    Raises:
        InputError: the list is missing or cannot be read, or one of its rows names no photograph.
    """
    try:
        content = read_file(url)
    except (InputError, Rejection) as error:
        raise InputError(f"list {redact(url)}: {getattr(error, 'message', error)}") from None
    found = []
    for item in read_list(url, content):
        if isinstance(item, Reject):
            raise InputError(f"{item.source}: {item.message}")
        found.append(item.url)
    return found


def invert(job: InversionJob) -> Overlay:
    """Inverts a photograph, or resumes a killed run; does nothing if the overlay exists.

    Raises:
        InputError: the photograph or the checkpoint cannot be used, or the existing overlay is that of another job.
    """
    checkpoint = load_generator(job.checkpoint)
    target = read_target(job, checkpoint.generator.config)
    identity = identity_of(job, target, checkpoint.sha256)
    if exists(job.out):
        return finished(job, identity)
    inversion = Inversion(checkpoint.generator, target, job.config)
    resume(inversion, job, identity)
    STEPS_DONE.add(inversion.step)
    while inversion.step < job.config.steps:
        inversion.advance()
        STEPS_DONE.add()
        if inversion.step % SAVE_EVERY == 0 and inversion.step < job.config.steps:
            if exists(job.out):  # another run has finished it
                return finished(job, identity)
            write_bytes(f"{job.stem}.state{SUFFIX}", safetensors.save(STATE, inversion.state(), {"job": identity}))
            write_bytes(f"{job.stem}.preview.jpg", preview(inversion))
    provenance = {"job": identity, **inversion.quality(), "version": __version__}
    overlay = inversion.overlay(checkpoint.sha256, provenance)
    if exists(job.out):
        return finished(job, identity)
    write_bytes(f"{job.stem}.preview.jpg", preview(inversion))
    write_bytes(job.out, save_overlay(overlay))
    fs, path = filesystem(f"{job.stem}.state{SUFFIX}")
    if fs.exists(path):
        fs.rm_file(path)
    return overlay


def finished(job: InversionJob, identity: dict[str, Any]) -> Overlay:
    """Returns the existing overlay, if it is this job's."""
    overlay = read_overlay(job.out)
    if overlay.provenance.get("job") != identity:
        raise InputError(
            f"{job.out} was made with another photograph, place, checkpoint or setting; remove it, or choose another"
        )
    return overlay


def resume(inversion: Inversion, job: InversionJob, identity: dict[str, Any]) -> None:
    """Resumes from the state of a killed run of this job, if there is one."""
    url = f"{job.stem}.state{SUFFIX}"
    if not exists(url):
        return
    header, tensors = safetensors.load(STATE, read_tensors(url, "the state"), url)
    if header.get("job") != identity:
        raise InputError(
            f"{url} was made with another photograph, place, checkpoint or setting; remove it, or choose another --out"
        )
    try:
        inversion.restore(tensors)
    except InputError as error:
        raise InputError(f"{url}: {error}; remove it") from None


def identity_of(job: InversionJob, target: Target, checkpoint_sha256: str) -> dict[str, Any]:
    """Returns all that decides the overlay, as JSON values."""
    return {
        "photograph_sha256": target.sha256,
        "checkpoint_sha256": checkpoint_sha256,
        "box_px": list(target.box_px),
        "cyclic_px": target.cyclic_px,
        **({} if target.scale == 1 else {"scale": target.scale}),
        **dataclasses.asdict(job.config),
        "network": "alex",  # older overlays could use LPIPS with VGG16
    }


def read_file(url: str) -> bytes:
    """Reads a file. One on the web is fetched within ingest's limits, because a list may name any server.

    Raises:
        Rejection: the file cannot be fetched from the web.
        InputError: there is no such file.
    """
    if is_web(url):
        return fetch_file(url, Manners())
    fs, path = filesystem(url)
    if not fs.isfile(path):
        raise InputError("there is no such file")
    return fs.cat_file(path)


def read_target(job: InversionJob, config: GeneratorConfig) -> Target:
    """Reads the photograph of a job, scaled and cropped.

    Raises:
        InputError: the photograph is missing or cannot be decoded.
    """
    try:
        content = read_file(job.photograph)
        pixels = fit(content, job.size_px, config.full_px, job.scale)
        y_px = -(pixels.shape[0] // job.scale // 2) if job.y_px is None else job.y_px
        levels = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
        return Target(levels, job.x_px, y_px, job.cyclic_px, hashlib.sha256(content).hexdigest(), job.scale)
    except Rejection as rejection:
        raise InputError(f"photograph {redact(job.photograph)} cannot be used: {rejection.message}") from None
    except InputError as error:
        raise InputError(f"photograph {redact(job.photograph)}: {error}") from None


def fit(content: bytes, size_px: tuple[int, int] | None, height_px: int, scale: int = 1) -> npt.NDArray[np.uint8]:
    """Scales a photograph to uint8 [h,w,3]: so that its middle fills a width and a height, or, uncropped, to a height.

    The kernel is Lanczos's. A photograph that has this size already keeps its pixels.

    Args:
        content: the photograph's file.
        size_px: the width and height of the result; None for the height alone.
        height_px: the height at scale 1.
        scale: the scale of the result.

    Raises:
        Rejection: the photograph cannot be decoded.
        InputError: the result would be too small or too large.
    """
    photograph = decode(content, max(size_px or (height_px * scale,)))
    image = photograph.image
    if min(photograph.width_px, photograph.height_px) < LEAST_SIDE_PX:
        raise InputError(
            f"the photograph has {photograph.width_px}×{photograph.height_px} px; give one with at least "
            f"{LEAST_SIDE_PX} px per side"
        )
    width_px = max(1, round(image.width * height_px / image.height))
    width, height = size_px or (width_px * scale, height_px * scale)
    check_sides(width, height, scale)
    zoom = max(width / image.width, height / image.height)
    # Rounding must not move the box beyond the picture, which Pillow refuses.
    cut_px = min(width / zoom, image.width), min(height / zoom, image.height)
    left, top = (image.width - cut_px[0]) / 2, (image.height - cut_px[1]) / 2
    box = (left, top, min(left + cut_px[0], image.width), min(top + cut_px[1], image.height))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=box))


def preview(inversion: Inversion) -> bytes:
    """Returns a JPEG of the photograph above the world's picture of it."""
    both = torch.cat([inversion.pixels, quantise(inversion.picture()).cpu()], dim=1)
    buffer = io.BytesIO()
    Image.fromarray(both.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@lru_cache(maxsize=2)
def load_generator(url: str) -> Checkpoint:
    """Loads a checkpoint on this process's device: the GPU if there is one."""
    reuse_freed_memory()  # otherwise a step takes up to twice as long
    exact_kernels()
    checkpoint = load_checkpoint(read_tensors(resolve(url)), url)
    check_tileable(checkpoint.generator.config, url)
    checkpoint.generator.to("cuda" if torch.cuda.is_available() else "cpu")
    return checkpoint


@dataclass(frozen=True, slots=True)
class Inverted:
    """The outcome of inverting a photograph.

    Attributes:
        photograph: the path or URL of the photograph.
        out: the path of its overlay.
        reason: the reason why there is no overlay; empty if there is one.
        psnr_db: the PSNR of the world's picture of it.
        lpips: the LPIPS distance of the world's picture of it.
    """

    photograph: str
    out: str
    reason: str = ""
    psnr_db: float | None = None
    lpips: float | None = None


@dataclass(eq=False)
class InvertPhotographs(beam.PTransform[beam.PCollection[InversionJob], beam.PCollection[Inverted]]):
    """Inverts the photographs of jobs; outputs an `Inverted` for each, whether it succeeded or not."""

    @no_annotations
    def expand(self, jobs: beam.PCollection[InversionJob]) -> beam.PCollection[Inverted]:
        """Applies the transform; called by Beam."""
        return jobs | "Invert" >> beam.FlatMap(inverted)


def inverted(job: InversionJob) -> Iterator[Inverted]:
    """Inverts a photograph; if it fails, the others go on."""
    try:
        quality = invert(job).provenance
    except (InputError, DivergenceError, OSError) as error:
        yield Inverted(redact(job.photograph), job.out, one_line(error))
    else:
        yield Inverted(redact(job.photograph), job.out, "", quality["psnr_db"], quality["lpips"])
    INVERTED_DONE.add()
