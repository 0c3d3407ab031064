"""TensorBoard itself reads the curves."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transforms.training.curves import events


def test_tensorboard_reads_the_ticks_of_a_folder(tmp_path):
    for images, value in ((16, 1.5), (320, 0.25)):
        (tmp_path / f"events.out.tfevents.{images:010d}").write_bytes(events(images, 1e9 + images, {"r1": value}))
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert curves.Tags()["scalars"] == ["r1"]
    assert [(point.step, point.value) for point in curves.Scalars("r1")] == [(16, 1.5), (320, 0.25)]
    assert curves.Scalars("r1")[0].wall_time == pytest.approx(1e9 + 16)
