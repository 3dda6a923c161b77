#!/usr/bin/env bash
# TensorBoard's EventAccumulator sees a scalar under `Tags()["scalars"]` only where it was written as a simple_value (as
# torch.utils.tensorboard does). One written by tensorboard's own scalar plugin (`summary_v2.scalar_pb`, as tf.summary.scalar
# and Keras do) is listed under "tensors", and `Scalars(tag)` raises KeyError although the dashboard draws both alike as
# scalars. The file says "scalars" as its plugin name all the same. Seen with tensorboard 2.20.0.
# Why it matters: scripts that gather results of runs read `Scalars(tag)`; what writes event files decides whether they find
# anything, and the dashboard does not show which kind a file has.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q tensorboard==2.20.0 numpy==2.2.6 'setuptools==80.9.0'
cat > see.py <<'P'
import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar import summary_v2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

def accumulated(folder, summary):
    writer = EventFileWriter(folder)
    writer.add_event(Event(step=3, wall_time=1.0, summary=summary))
    writer.close()
    events = EventAccumulator(folder)
    events.Reload()
    tags = events.Tags()
    try:
        found = [event.value for event in events.Scalars("loss")]
    except KeyError:
        found = "KeyError"
    return tags["scalars"], tags["tensors"], found, events

simple = accumulated("simple", Summary(value=[Summary.Value(tag="loss", simple_value=0.5)]))
plugin = accumulated("plugin", summary_v2.scalar_pb("loss", 0.5))
print("tensorboard", tensorboard.__version__)
print("simple_value:", simple[:3])
print("scalar_pb:   ", plugin[:3], "plugin", plugin[3].SummaryMetadata("loss").plugin_data.plugin_name)
assert simple[:3] == (["loss"], [], [0.5])
assert plugin[:3] == ([], ["loss"], "KeyError")
assert plugin[3].SummaryMetadata("loss").plugin_data.plugin_name == "scalars"
P
venv/bin/python see.py
