"""PyTorch's DataLoader on the work of tests/data/loader_bench.cpp: 60,000 uint8 images of 28 x 28,
shuffled, in batches of 128 normalised floats. One JSON object.
  --mode samples: a data set that normalises one sample at a time, best of 0 and 2 workers
  --mode tensors: a batch sampler over tensors, so that a whole batch is indexed and normalised at once,
                  best of 0 and 2 workers"""
import argparse
import json
import time

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

parser = argparse.ArgumentParser()
parser.add_argument("--mode", choices=["samples", "tensors"], required=True)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--epochs", type=int, default=2)
arguments = parser.parse_args()

torch.manual_seed(1)
images = torch.randint(0, 256, (60000, 28, 28), dtype=torch.uint8)
labels = torch.randint(0, 10, (60000,))
SCALE, SHIFT = 1 / (255 * 0.3530), -0.2860 / 0.3530


class Images(Dataset):
    """One normalised image at a time."""

    def __len__(self):
        return len(images)

    def __getitem__(self, index):
        return images[index].unsqueeze(-3).float().mul_(SCALE).add_(SHIFT), labels[index]


class Tensors(Images):
    def __getitem__(self, index):
        return images[index].unsqueeze(1).float().mul_(SCALE).add_(SHIFT), labels[index]


def loader(workers):
    more = dict(num_workers=workers, persistent_workers=workers > 0)
    if arguments.mode == "samples":
        return DataLoader(Images(), batch_size=arguments.batch, shuffle=True, **more)
    data = Tensors()
    return DataLoader(data, batch_size=None, sampler=BatchSampler(RandomSampler(data), arguments.batch, False), **more)


def rate(workers):
    batches = loader(workers)
    best = 0.0
    for epoch in range(arguments.epochs + 1):
        start, count = time.perf_counter(), 0
        for inputs, targets in batches:
            count += len(targets)
        if epoch > 0:  # the first warms up
            best = max(best, count / (time.perf_counter() - start))
    return best


rates = {workers: rate(workers) for workers in (0, 2)}
print(json.dumps({"samples_per_s": max(rates.values()), "mode": arguments.mode, "batch": arguments.batch,
                  "by_workers": rates}))
