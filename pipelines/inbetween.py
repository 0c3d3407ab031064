"""Inbetween: connects photographs along one panorama, cyclic if wanted (paper, Appendix H)."""

import dataclasses
import sys
from collections.abc import Sequence

from model.config import GeneratorConfig
from model.world.definition import Definition, check_definition
from pipelines.terminal.flags import base_px
from transforms.applications.arrange import spread
from transforms.applications.invert import InversionJob, load_generator, read_target


def placed(jobs: Sequence[InversionJob], width_px: int, cyclic: bool) -> tuple[list[InversionJob], int]:
    """Returns the jobs with their places along a panorama, and its height: that of the tallest photograph.

    Raises:
        InputError: the photographs do not fit a panorama of this width.
    """
    config: GeneratorConfig = load_generator(jobs[0].checkpoint).generator.config
    scale = jobs[0].scale
    width_px = base_px("--width", width_px, scale)
    turn_px = width_px if cyclic else None
    check_definition(Definition(0, turn_px), config, scale)
    boxes = [read_target(job, config).box_px for job in jobs]
    lefts = spread([box[2] for box in boxes], width_px, cyclic, config, scale)
    moved = [dataclasses.replace(job, x_px=x, cyclic_px=turn_px) for job, x in zip(jobs, lefts, strict=True)]
    return moved, max(box[3] for box in boxes) * scale


if __name__ == "__main__":
    from pipelines.cli import main

    main(["inbetween", *sys.argv[1:]])
