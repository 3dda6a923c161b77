"""PyTorch's figures for tests/step/step_bench.cpp: time from exec to the first optimizer step done,
peak resident memory, and steps per second of an MLP 32-64-32-1 with BCE on one thread, data in
memory, at its best without compile (AdamW fused). The first two as JSON; with --startup only these."""
import json
import os
import sys
import time

import torch


def seconds_since_exec():
    with open("/proc/self/stat") as file:
        start = int(file.read().rsplit(")", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf("SC_CLK_TCK")


def peak_mb():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024


torch.set_num_threads(1)
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32),
                            torch.nn.ReLU(), torch.nn.Linear(32, 1))
loss_of = torch.nn.BCEWithLogitsLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def step(x, y):
    optimizer.zero_grad()
    loss = loss_of(model(x)[:, 0], y)
    loss.backward()
    optimizer.step()
    return loss


def batch(size):
    return torch.rand(size, 32) * 2 - 1, torch.randint(0, 2, (size,)).float()


step(*batch(256)).item()
print(json.dumps({"first_step_s": seconds_since_exec(), "peak_rss_mb": peak_mb()}))
if "--startup" in sys.argv:
    sys.exit()

for size in (64, 256, 1024):
    batches = [batch(size) for _ in range(8)]
    steps = max(100, 262144 // size)
    times = []
    for repeat in range(6):
        begin = time.perf_counter()
        for i in range(steps):
            step(*batches[i % 8])
        if repeat > 0:  # the first warms up
            times.append((time.perf_counter() - begin) / steps)
    t = sorted(times)[len(times) // 2]
    print(f"b{size:<5} {t * 1e6:7.1f} us/step  {1 / t:8.0f} steps/s  {size / t / 1e3:6.0f}k rows/s")
