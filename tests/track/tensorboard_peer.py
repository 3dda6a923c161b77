"""Reads event folders as users do: {folder: {tag: [[step, value], ...]}} on stdout.

Through `EventAccumulator.Scalars`, which scripts of PyTorch's users call, and through TensorBoard's own
reader, which must see the same. A folder with a subfolder `later` is read twice with one reader: as it
is, and after the files of `later` have replaced its own (a TensorBoard that was running while training
resumed)."""
import json
import math
import os
import shutil
import sys

from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.util import tensor_util
from torch.utils.tensorboard.summary import scalar


def listed(points):
    return [[step, value if math.isfinite(value) else str(value)] for step, value in points]


out = {}
root = sys.argv[1]
for name in sorted(os.listdir(root)):
    folder = os.path.join(root, name)
    later = os.path.join(root, name, "later")
    readers = [event_accumulator.EventAccumulator(folder, size_guidance={"scalars": 0}),
               plugin_event_accumulator.EventAccumulator(folder, size_guidance={"tensors": 0})]
    for reader in readers:
        reader.Reload()
    if os.path.isdir(later):
        for file in sorted(os.listdir(later)):
            shutil.move(os.path.join(later, file), os.path.join(folder, file))
        os.rmdir(later)
        for reader in readers:
            reader.Reload()
    plain, plugins = readers
    out[name] = {tag: listed((p.step, p.value) for p in plain.Scalars(tag))
                 for tag in plain.Tags()["scalars"]}
    tensors = {}
    for tag in plugins.Tags()["tensors"]:
        assert plugins.SummaryMetadata(tag).plugin_data.plugin_name == "scalars", tag
        tensors[tag] = listed((p.step, tensor_util.make_ndarray(p.tensor_proto).item())
                              for p in plugins.Tensors(tag))
    assert tensors == out[name], (name, tensors, out[name])
    for file in os.listdir(folder):
        for record in RawEventFileLoader(os.path.join(folder, file)).Load():
            for value in Event.FromString(record).summary.value:
                theirs = scalar(value.tag, value.simple_value).value[0]
                assert value.SerializeToString() == theirs.SerializeToString(), value
json.dump(out, sys.stdout)
