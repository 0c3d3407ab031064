"""A training run's curves, in TensorBoard's format."""

import io
from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def events(images: int, time_s: float, values: Mapping[str, float]) -> bytes:
    """Returns one tick's event file. TensorBoard reads all files of a folder in the order of their names.

    Args:
        images: the number of images seen so far, which is the step.
        time_s: the time since the epoch.
        values: the values of the curves, by name.
    """
    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in (
        Event(wall_time=time_s, file_version="brain.Event:2"),
        Event(wall_time=time_s, step=images, summary=summary),
    ):
        writer.write(event.SerializeToString())
    return buffer.getvalue()
