"""TensorBoard's event file, written at once and by this process alone: a full disk is then an error like any other.

The format is that of TFRecord files: https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

import importlib.util
import io
from collections.abc import Iterable, Mapping

FILE = "events.out.tfevents.0"  # TensorBoard looks for this beginning


def installed() -> bool:
    """Whether TensorBoard is here, which has the format's code."""
    return importlib.util.find_spec("tensorboard") is not None


def records(rows: Iterable[tuple[int, Mapping[str, float]]], first: bool) -> bytes:
    """Return the bytes of scalars by step, for the beginning of a file or to append to one; no times stand in it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    writer = RecordWriter(content)
    if first:
        writer.write(Event(file_version="brain.Event:2").SerializeToString())
    for step, scalars in rows:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        writer.write(Event(step=step, wall_time=float(step), summary=Summary(value=values)).SerializeToString())
    return content.getvalue()
