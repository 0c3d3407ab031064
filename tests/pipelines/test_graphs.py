"""The graphs of jobs over many photographs or panoramas do not grow with their number."""

import apache_beam as beam
import pytest

from model.inversion import InversionConfig
from pipelines import assemble, invert
from transforms.applications.invert import InversionJob
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import RenderRequest


def inversion(pipeline, count, folder):
    jobs = [
        InversionJob(
            photograph=f"in/{n:06d}.jpg", out=f"out/{n:06d}.safetensors", checkpoint="bundled", config=InversionConfig()
        )
        for n in range(count)
    ]
    invert.build(pipeline, jobs, "out", str(folder), remote=True, detached=False)


def assembly(pipeline, count, folder):
    plans = [
        Plan(RenderRequest(id=f"{n:06d}", seed=n, width_px=64, height_px=64), "c", "0" * 64, 64) for n in range(count)
    ]
    assemble.build(pipeline, "out", ["png"], plans, str(folder), remote=True, detached=False)


@pytest.mark.parametrize("build", [inversion, assembly])
def test_the_graph_has_one_size_for_any_number(build, tmp_path):
    sizes = []
    for count in (10, 20_000):
        pipeline = beam.Pipeline()
        build(pipeline, count, tmp_path / f"{count:06d}")
        sizes.append(len(pipeline.to_runner_api().SerializeToString()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)
