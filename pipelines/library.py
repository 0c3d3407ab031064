"""The names to use from Python; ``docs/python.md`` shows examples."""

import numpy as np
import numpy.typing as npt

from model.bundled import BUNDLED
from model.errors import InputError
from model.networks.generator import Generator
from model.quantise import quantise
from model.world.definition import Definition
from model.world.world import World
from pipelines.ingest import ingest
from pipelines.render import RenderPanoramas, render
from transforms.applications.invert import load_generator as load_checkpoint
from transforms.ingest.options import IngestOptions
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions

__all__ = [
    "Definition",
    "IngestOptions",
    "RenderOptions",
    "RenderPanoramas",
    "RenderRequest",
    "World",
    "ingest",
    "load_generator",
    "render",
    "render_window",
]


def load_generator(url: str = BUNDLED) -> Generator:
    """Loads the generator of a checkpoint, to a GPU if torch finds one.

    Args:
        url: The path or URL of a checkpoint, or "bundled" for that of the package.

    Raises:
        InputError: There is no such checkpoint, it is damaged, or its network has no endless world.
    """
    return load_checkpoint(url).generator


def render_window(world: World, left_px: int, top_px: int, width_px: int, height_px: int) -> npt.NDArray[np.uint8]:
    """Renders a window of a world: RGB pixels [height_px,width_px,3].

    Row 0 of a world is at its horizon, and rows are counted downwards. The whole window is held in memory; use `render`
    for large ones.

    Raises:
        InputError: The window is empty, or leaves the world.
    """
    if width_px < 1 or height_px < 1:
        raise InputError(f"the window has {width_px}×{height_px} px; give at least 1 each way")
    picture = world.render((top_px, top_px + height_px - 1), (left_px, left_px + width_px - 1))
    return quantise(picture).permute(1, 2, 0).contiguous().cpu().numpy()
