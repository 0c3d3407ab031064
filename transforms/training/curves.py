"""A training run's curves, as TensorBoard reads them."""

import io
from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def events(images: int, time_s: float, values: Mapping[str, float]) -> bytes:
    """Returns the file of one tick. TensorBoard reads all files of a folder by the order of their names.

    Args:
        images: seen so far; the step.
        time_s: since the epoch.
        values: by the names of their curves.
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
