"""Models the time of a data-parallel step on 8 to 1,024 GPUs, and compares it with published scaling.

Prints the two tables of engine/dist/SCALING.md, which says what the terms are and where they come
from; with `--check PAGE` it fails unless the page holds them word for word.
"""
import math
import sys
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
LOCAL = 8  # GPUs of a node
BACKWARD = 2 / 3  # of a step's work
BUSY = 16 / 132  # of a GPU that a collective takes while it runs: 16 of its 132 multiprocessors
NODE_S = 20e-6  # of a collective within a node, however small
SMALL = 1000  # numbers in the sum that closes a step, beside one of each GPU: presence of gradients, statistics, counts
HOP_S = (47e-6 - NODE_S) / 2  # of a step between nodes: 47 us for two of them, there and back


@dataclass
class Links:
    nvlink: float  # bytes per second and GPU, as nccl-tests count them ("busbw")
    network: float


H100 = Links(370e9, 50e9)
A100 = Links(230e9, 25e9)


def collective(size, gpus, links, trips, hops):
    """Seconds of one: `trips` 2 for an all-reduce, 1 for a reduce-scatter or all-gather."""
    if gpus == 1:
        return 0
    local, nodes = min(gpus, LOCAL), math.ceil(gpus / LOCAL)
    inside = trips * (local - 1) / local * size / links.nvlink
    between = trips * (nodes - 1) / nodes * size / local / links.network
    return NODE_S + hops * HOP_S + max(inside, between)


def all_reduce(size, gpus, links):  # a tree over nodes
    return collective(size, gpus, links, 2, 2 * math.log2(max(1, gpus / LOCAL)))


def gather_or_scatter(size, gpus, links):  # a ring over nodes
    return collective(size, gpus, links, 1, max(0, gpus / LOCAL - 1))


def buckets_of(parameters, embedding, width, largest=25 * MIB):
    """Bytes as step/buckets sends them: of 1 MiB, then 25 MiB as float32; an embedding's is the last."""
    left, sizes = (parameters - embedding) * 4, []
    while left > 0:
        sizes.append(min(left, MIB if not sizes else largest))
        left -= sizes[-1]
    return [size * width / 4 for size in sizes + [embedding * 4] * (embedding > 0)]


def replicated(parameters, embedding, width, compute, gpus, links, micro=1):
    """(seconds of a step, of which nothing hides): the last backward sends bucket after bucket."""
    sizes = buckets_of(parameters, embedding, width)
    times = [all_reduce(size, gpus, links) for size in sizes]
    work = compute / micro  # of the micro-batch whose backward sends
    start = work * (1 - BACKWARD)
    # what the collectives take from the backward beside them
    end = work + BUSY * min(sum(times), work * BACKWARD)
    free, done = 0, 0
    for size, time in zip(sizes, times):
        done += size
        free = max(free, start + (end - start) * done / sum(sizes)) + time
    # losses, presence, statistics, what the ranks decide, and the next step's divisor: float64, behind the last bucket
    free = max(free, end) + all_reduce(8 * (SMALL + gpus), gpus, links)
    exposed = free - end
    return compute + (end - work) + exposed, exposed


def sharded(parameters, width, compute, gpus, links, layers, micro=1):
    """The same where weights are gathered per layer in both directions and gradients scattered."""
    time = gather_or_scatter(parameters * width / layers, gpus, links)
    work = compute / micro / layers
    step = BUSY * min(3 * layers * time, compute / micro)
    now, link = 0, 0
    for direction, share in (("forward", 1 - BACKWARD), ("backward", BACKWARD)):
        for _ in range(layers):
            link += time  # the next layer is gathered while this one works
            now = max(now, link) + work * share
            if direction == "backward":
                link += time  # of the layer before; in one queue with the gathers
    step += max(now, link)
    return micro * step, micro * max(0, step - compute / micro)


MODELS = [  # name, parameters and of those the embedding, batch of a GPU, seconds of its work, micro-batches
    ("ResNet-18, 224 px", 11.69e6, 0, "256 images", 256 / 16100, 1),
    ("GPT-2 124M", 124.4e6, 38.6e6, "65,536 tokens", 65536 / 468e3, 1),
    ("Llama 1B", 1.236e9, 262.7e6, "16,384 tokens", 16384 / 71.7e3, 1),
    ("GPT-2 1.5B", 1.558e9, 80.4e6, "131,072 tokens in 8", 131072 / 47.5e3, 8),
]


def forecast():
    rows = ["| model, each GPU | alone, ms | " + " | ".join(f"{n} GPUs" for n in (8, 64, 256, 1024)) + " |",
            "|---|---|---|---|---|---|"]
    for name, parameters, embedding, batch, compute, micro in MODELS:
        cells = []
        for gpus in (8, 64, 256, 1024):
            step, exposed = replicated(parameters, embedding, 4, compute, gpus, H100, micro)
            cells.append(f"{step * 1e3:.1f} ms, {compute / step:.1%}, {exposed * 1e3:.1f} bare")
        rows.append(f"| {name}, {batch} | {compute * 1e3:.1f} | " + " | ".join(cells) + " |")
    return rows


def efficiency(step, few, many):
    return step(few) / step(many)


def ddp(parameters, embedding, compute, links, micro=1):
    return lambda gpus: replicated(parameters, embedding, 2, compute, gpus, links, micro)[0]


def fsdp(parameters, compute, links, layers, micro=None):
    return lambda gpus: sharded(parameters, 2, compute, gpus, links, layers, micro(gpus) if micro else 1)[0]


def strong(gpus):  # MLPerf's batch of 3,200 images, at 7,150 a second and GPU whatever its share is
    return replicated(25.56e6, 0, 2, 3200 / gpus / 7150, gpus, H100)[0] * gpus


# what, from and to how many GPUs, the model, the published share of linear
PUBLISHED = [
    ("LLMQ, Qwen2.5 0.5B, H100", 1, 8, ddp(0.494e9, 136e6, 65536 / 149e3, H100, 2), 1175 / 8 / 149),
    ("LLMQ, Qwen2.5 1.5B, H100", 1, 8, ddp(1.544e9, 233e6, 65536 / 58.9e3, H100, 2), 457 / 8 / 58.9),
    ("MXNet, ResNet-50, A100", 1, 8, ddp(25.56e6, 0, 512 / 3410, A100), 26674 / 8 / 3410),
    ("PyTorch, ResNet-50, A100", 1, 8, ddp(25.56e6, 0, 256 / 2470, A100), 16621 / 8 / 2470),
    ("MLPerf, ResNet-50, H100, batch 3,200 in all", 8, 64, strong, 5.49 / 8),
    ("MPT-125M, A100", 16, 128, fsdp(125.3e6, 26 * 2048 / 136.3e3, A100, 12), 123936 / 130535),
    ("MPT-760M, A100", 8, 128, fsdp(760.5e6, 12 * 2048 / 30.17e3, A100, 24), 28940 / 30173),
    ("MPT-1.3B, A100", 16, 128, fsdp(1.316e9, 10 * 2048 / 19.27e3, A100, 24), 18647 / 19085),
    ("MPT-1.3B, H100", 16, 64, fsdp(1.316e9, 20 * 2048 / 46.04e3, H100, 24), 44402 / 46037),
    ("MPT-1.3B, H100, batch taken as in the row above", 8, 512, fsdp(1.316e9, 20 * 2048 / 46.04e3, H100, 24), 0.876),
    ("torchtitan, Llama 3.1 8B, eager, H100", 8, 128, fsdp(8.03e9, 16384 / 5762, H100, 32), 5605 / 5762),
    ("torchtitan, Llama 3.1 8B, compiled, H100", 8, 128, fsdp(8.03e9, 16384 / 6667, H100, 32), 6514 / 6667),
]


def comparison():
    rows = ["| run | GPUs | published | model | error, points |", "|---|---|---|---|---|"]
    for name, few, many, step, published in PUBLISHED:
        # in a strong run `step` is of all GPUs together, so that the ratio is one of work
        model = efficiency(step, few, many)
        rows.append(f"| {name} | {few} -> {many} | {published:.1%} | {model:.1%} | {100 * (model - published):+.1f} |")
    return rows


def main():
    tables = ["\n".join(forecast()), "\n".join(comparison())]
    if sys.argv[1:2] != ["--check"]:
        print("\n\n".join(tables))
        return
    page = Path(sys.argv[2]).read_text()
    if any(table not in page for table in tables):
        sys.exit(f"{sys.argv[2]} does not hold these tables; put them there:\n\n" + "\n\n".join(tables))


if __name__ == "__main__":
    main()
