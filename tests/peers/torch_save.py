"""The peer of bench_checkpoint: a blocking torch.save of the same state (a third weights, two thirds
optimizer state, float32 tensors of 4 MB) to the same kind of disk. Prints one JSON object.

    python tests/peers/torch_save.py [--megabytes N] [--saves N] [--folder DIR]
"""
import argparse
import json
import os
import statistics
import tempfile
import time

import torch

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--megabytes", type=int, default=50)
parser.add_argument("--saves", type=int, default=9)
parser.add_argument("--folder", default=".")
options = parser.parse_args()

count = max(3, options.megabytes // 4)
state = {"model": {}, "optimizer": {}}
for i in range(count):
    state["model" if i % 3 == 0 else "optimizer"][f"t{i}"] = torch.randn(1000, 1000)

seconds = []
with tempfile.TemporaryDirectory(dir=options.folder) as folder:
    for i in range(options.saves):
        start = time.perf_counter()
        torch.save(state, os.path.join(folder, f"{i}.pt"))
        seconds.append(time.perf_counter() - start)
        if i >= 2:
            os.remove(os.path.join(folder, f"{i - 2}.pt"))
print(json.dumps({"megabytes": count * 4, "saves": options.saves, "torch_save_s": statistics.median(seconds),
                  "torch_save_s_smallest": min(seconds), "torch_save_s_largest": max(seconds),
                  "torch": torch.__version__}))
