"""recipes/bike_sharing_mlp.yaml in PyTorch as far as its first optimizer step: read the CSV file, standardise
numbers, one-hot strings, hold out rows, an MLP with AdamW (fused), one batch of 256; under torchrun one of each rank, by
DistributedDataParallel. Prints seconds from exec to the step done, when that was, and peak resident memory, as JSON."""
import csv
import json
import os
import time
from pathlib import Path

import numpy
import torch

FILE = Path(__file__).resolve().parent.parent.parent / ".data/bike_sharing/hour.csv"
NUMBERS = ["yr", "holiday", "workingday", "temp", "atemp", "hum", "windspeed"]
STRINGS = ["season", "mnth", "hr", "weekday", "weathersit"]

torch.set_num_threads(1)
torch.manual_seed(1)
with open(FILE, newline="") as file:
    rows = csv.reader(file)
    header = next(rows)
    columns = dict(zip(header, zip(*rows)))
target = torch.from_numpy(numpy.array(columns["cnt"], dtype=numpy.float32))
split = torch.rand(len(target))
train = (split >= 0.3).nonzero()[:, 0]
x = torch.from_numpy(numpy.array([columns[name] for name in NUMBERS], dtype=numpy.float64)).T
x = ((x - x[train].mean(0)) / x[train].std(0)).float()
hot = [torch.nn.functional.one_hot(torch.from_numpy(numpy.unique(columns[name], return_inverse=True)[1]))
       for name in STRINGS]
x = torch.cat([x, *hot], 1)

model = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, 64),
                            torch.nn.ReLU(), torch.nn.Linear(64, 1))
if "WORLD_SIZE" in os.environ:
    torch.distributed.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
batch = train[torch.randperm(len(train))[:256]]
torch.nn.functional.mse_loss(model(x[batch])[:, 0], target[batch]).backward()
optimizer.step()

done = time.time()
with open("/proc/self/stat") as file:
    start = int(file.read().rsplit(")", 1)[1].split()[19])
seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf("SC_CLK_TCK")
with open("/proc/self/status") as file:
    peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
if os.environ.get("RANK", "0") == "0":
    print(json.dumps({"first_step_s": seconds, "done": done, "peak_rss_mb": peak / 1024}))
