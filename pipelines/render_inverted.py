"""Rendering panoramas of photographs that are inverted first, as outpaint and inbetween do."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

from apache_beam.options.pipeline_options import PipelineOptions

from model.world.overlay import Overlay
from pipelines.render import render_written
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner, check_all
from transforms.storage.files import join

Overlays: TypeAlias = Sequence[tuple[str, Overlay]]
"""The paths and contents of inverted photographs."""


def render_inverted(
    options: RenderOptions,
    requests: Callable[[Overlays], Sequence[RenderRequest]],
    invert: Callable[[], Overlays],
    name: str,
    flags: PipelineOptions,
) -> Sequence[RenderRequest]:
    """Inverts photographs and renders their panoramas; returns the requests.

    Args:
        options: The options of the render job; its own requests are replaced.
        requests: Makes the requests from overlays, or from none, so that they can be checked before the inversion.
        invert: Inverts the photographs.
        name: The name of the file in ``requests/`` that receives the requests.
        flags: Beam's options.

    Raises:
        InputError: A request is invalid. Nothing was inverted.
    """
    planner = Planner()
    check_all(dataclasses.replace(options, requests=tuple(requests([])), replace=True), planner)
    ready = requests(invert())
    options = dataclasses.replace(options, requests=tuple(ready))
    check_all(options, planner)
    render_written(options, planner, join(options.out, "requests", f"{name}.jsonl"), ready, flags)
    return ready
