"""Reads event folders as TensorBoard does: {folder: {tag: [[step, value], ...]}} on stdout.

A folder with a subfolder `later` is read twice with one reader: as it is, and after the files of
`later` have replaced its own (a TensorBoard that was running while training resumed)."""
import json
import math
import os
import shutil
import sys

from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

out = {}
root = sys.argv[1]
for name in sorted(os.listdir(root)):
    folder = os.path.join(root, name)
    later = os.path.join(root, name, "later")
    reader = EventAccumulator(folder, size_guidance={"tensors": 0})
    reader.Reload()
    if os.path.isdir(later):
        for file in sorted(os.listdir(later)):
            shutil.move(os.path.join(later, file), os.path.join(folder, file))
        os.rmdir(later)
        reader.Reload()
    out[name] = {}
    for tag in reader.Tags()["tensors"]:
        assert reader.SummaryMetadata(tag).plugin_data.plugin_name == "scalars", tag
        points = reader.Tensors(tag)
        values = [tensor_util.make_ndarray(p.tensor_proto).item() for p in points]
        out[name][tag] = [[p.step, v if math.isfinite(v) else str(v)] for p, v in zip(points, values)]
json.dump(out, sys.stdout)
