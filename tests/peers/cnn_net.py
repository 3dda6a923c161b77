"""What cnn_plain.py and cnn_tuned.py share: the network of recipes/fashion_mnist_cnn.yaml (models/cnn.cpp
with channels [16, 32], hidden 128), its data, and how its speed is taken. Without augmentation, which
the benchmark turns off in the recipe too."""
import argparse
import gzip
import json
import time
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.nn import functional

DATA = Path(__file__).resolve().parent.parent.parent / ".data/fashion_mnist"
MEAN, STD = 0.2860, 0.3530
WARM_UP = 20  # steps


class Cnn(nn.Module):
    """Parameter names as in Lehr. A stage is convolution, max-pool, norm, ReLU."""

    def __init__(self, channels=(16, 32), hidden=128, size=28, inputs=1, outputs=10):
        super().__init__()
        self.stages = len(channels)
        for i, out in enumerate(channels, 1):
            setattr(self, f"conv{i}", nn.Conv2d(inputs, out, 3, padding=1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(out))
            inputs, size = out, size // 2
        self.fc = nn.Linear(inputs * size * size, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x):
        for i in range(1, self.stages + 1):
            x = functional.max_pool2d(getattr(self, f"conv{i}")(x), 2)
            x = functional.relu(getattr(self, f"bn{i}")(x), inplace=True)
        x = functional.relu(self.fc(x.flatten(1)), inplace=True)
        return self.output(x)


def arguments(text):
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--data", default=DATA, help="folder of the IDX files")
    parser.add_argument("--steps", type=int, default=200, help="measured steps, after the warm-up")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return args


def read_idx(path):
    raw = gzip.open(path).read()
    sizes = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(raw[3])]
    return torch.from_numpy(numpy.frombuffer(raw, numpy.uint8, offset=4 + 4 * len(sizes)).reshape(sizes).copy())


def read_training_data(folder):
    """uint8 images [N, 28, 28] and int64 labels [N]."""
    folder = Path(folder)
    return (read_idx(folder / "train-images-idx3-ubyte.gz"), read_idx(folder / "train-labels-idx1-ubyte.gz").long())


def measure(args, model, optimizer, batches):
    """Trains on (images, labels) of `batches` and prints images per second after the warm-up as JSON."""
    total = args.steps + WARM_UP
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=total, cycle_momentum=False)
    images, begin = 0, 0.0
    model.train()
    for step, (x, y) in enumerate(batches):
        if step == WARM_UP:
            images, begin = 0, time.perf_counter()
        if step == total:
            break
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            outputs = model(x)
        loss = functional.cross_entropy(outputs.float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        images += len(y)
    seconds = time.perf_counter() - begin
    print(json.dumps({"images_per_s": images / seconds, "steps": args.steps, "final_loss": loss.item(),
                      "precision": "bf16-mixed" if args.bf16 else "fp32", "threads": torch.get_num_threads()}))
