"""Outpaint: renders the world around a photograph, in any number of variants (paper, Figures 9 and 21)."""

import sys

from model.world.definition import Box
from model.world.overlay import Overlay
from pipelines.invert import invert_all
from transforms.applications.invert import SUFFIX, InversionJob, load_generator, read_target
from transforms.panoramas.overlays import read_overlay


def box_of(job: InversionJob) -> Box:
    """Returns the box of a photograph, or of an overlay given in its place, in the world at the job's scale."""
    if job.photograph.endswith(SUFFIX):
        box = read_overlay(job.photograph).box_px
    else:
        box = read_target(job, load_generator(job.checkpoint).generator.config).box_px
    x, y, width, height = (job.scale * n for n in box)
    return x, y, width, height


def overlay_of(job: InversionJob) -> tuple[str, Overlay]:
    """Returns the path and the content of a photograph's overlay; the photograph may itself be an overlay."""
    if job.photograph.endswith(SUFFIX):
        return job.photograph, read_overlay(job.photograph)
    (overlay,) = invert_all([job])
    return job.out, overlay


if __name__ == "__main__":
    from pipelines.cli import main

    main(["outpaint", *sys.argv[1:]])
