"""The peer of bench_checkpoint: a blocking torch.save of the same state (a third weights, two thirds
optimizer state, float32 tensors of 4 MB) to the same disk. Prints one JSON object.

    python tests/peers/torch_save.py [MEGABYTES [SAVES]]
"""
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 50
saves = int(sys.argv[2]) if len(sys.argv) > 2 else 9
build = Path(__file__).resolve().parent.parent.parent / "build"

count = max(3, megabytes // 4)
state = {"model": {}, "optimizer": {}}
for i in range(count):
    state["model" if i % 3 == 0 else "optimizer"][f"t{i}"] = torch.randn(1000, 1000)

seconds = []
with tempfile.TemporaryDirectory(dir=build) as folder:
    for i in range(saves):
        start = time.perf_counter()
        torch.save(state, Path(folder, f"{i}.pt"))
        seconds.append(time.perf_counter() - start)
        Path(folder, f"{i - 2}.pt").unlink(missing_ok=True)
print(json.dumps({"megabytes": count * 4, "saves": saves, "blocked_s": statistics.median(seconds),
                  "blocked_s_smallest": min(seconds), "blocked_s_largest": max(seconds)}))
