"""Outpaint: the world around a photograph, in as many variants as wanted (paper, Figures 9 and 21)."""

import sys

from model.world.definition import Box
from model.world.overlay import Overlay
from pipelines.invert import invert_all
from transforms.applications.invert import SUFFIX, InversionJob, load_generator, read_target
from transforms.panoramas.overlays import read_overlay


def box_of(job: InversionJob) -> Box:
    """Where a photograph, or an overlay in its place, lies in the world."""
    if job.photograph.endswith(SUFFIX):
        return read_overlay(job.photograph).box_px
    return read_target(job, load_generator(job.checkpoint).generator.config).box_px


def overlay_of(job: InversionJob) -> tuple[str, Overlay]:
    """The overlay of a photograph, which may be one already, and where it is."""
    if job.photograph.endswith(SUFFIX):
        return job.photograph, read_overlay(job.photograph)
    (overlay,) = invert_all([job])
    return job.out, overlay


if __name__ == "__main__":
    from pipelines.cli import main

    main(["outpaint", *sys.argv[1:]])
