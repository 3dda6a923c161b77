"""Runs Lehr and its peers in turn (A B A B ...) and prints one Markdown table of ratios.

Every row: what is compared, medians of both sides, the ratio pair by pair (median, min-max), the goal.
"""
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LEHR = ROOT / "build/lehr"
PEERS = ROOT / "tests/peers"
PAIRS = int(os.environ.get("LEHR_BENCH_PAIRS", "7"))


def peer(script, *words):
    """Last line of the peer's output, which is JSON."""
    out = subprocess.run([sys.executable, PEERS / script, *map(str, words)], check=True, cwd=ROOT,
                         capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def program(name, *words):
    out = subprocess.run([ROOT / "build/tests" / name, *map(str, words)], check=True, cwd=ROOT,
                         capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def train(recipe, *overrides):
    """Trains and returns (metrics.jsonl rows, seconds to the first step's row, peak resident bytes)."""
    with tempfile.TemporaryDirectory() as folder:
        words = [LEHR, "train", ROOT / "recipes" / recipe, "--run", f"{folder}/run"]
        for override in ("export.enabled=false", "validation.interval=0", "metrics.report_to=[]", *overrides):
            words += ["--set", override]
        begin = time.time()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"training {recipe} failed: {status}")
        rows = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
        return rows, rows[0]["time"] - begin, usage.ru_maxrss * 1024


def images_per_s(precision, steps):
    warm_up = 20
    rows, _, _ = train("fashion_mnist_cnn.yaml", f"training.precision={precision}",
                       f"training.max_steps={warm_up + steps}", "data.augment.flip=0", "metrics.log_interval=10",
                       "checkpoint.interval=100000")
    return statistics.median(row["train.samples_per_s"] for row in rows if row["step"] > warm_up)


table = []


def row(what, ours, theirs, goal, unit, pairs=PAIRS):
    a, b = [], []
    for _ in range(pairs):
        a.append(ours())
        b.append(theirs())
    ratios = [x / y for x, y in zip(a, b)]
    line = (f"| {what} | {statistics.median(a):.4g} | {statistics.median(b):.4g} | {unit} | "
            f"**{statistics.median(ratios):.3g}** ({min(ratios):.3g}-{max(ratios):.3g}) | {goal} |")
    table.append(line)
    print(line, flush=True)


def bench_train():
    # a CPU without AVX-512 emulates bf16, some fifteen times slower
    fast_bf16 = "avx512" in Path("/proc/cpuinfo").read_text()
    for precision, option, steps in (("fp32", [], 300), ("bf16-mixed", ["--bf16"], 300 if fast_bf16 else 20)):
        for script, goal in (("tuned", "≥ 0.98"), ("plain", "≥ 1.25")):
            row(f"CNN recipe ÷ {script} script, {precision}", lambda: images_per_s(precision, steps),
                lambda: peer(f"cnn_{script}.py", "--steps", steps, *option)["images_per_s"], goal, "images/s")


def bench_start():
    ours, theirs = [], []

    def mine():
        _, first, peak = train("bike_sharing_mlp.yaml", "training.max_steps=1", "metrics.log_interval=1")
        ours.append(peak / 1e6)
        return first

    def python():
        figures = peer("table_first_step.py")
        theirs.append(figures["peak_rss_mb"] * 1.048576)
        return figures["first_step_s"]

    row("exec → first MLP step done", mine, python, "≤ 0.10", "s")
    pairs = list(zip(ours, theirs))
    row("peak resident memory of that process", lambda: pairs[0][0], lambda: pairs.pop(0)[1], "≤ 0.35", "MB",
        len(pairs))


def bench_loader():
    row("loader ÷ DataLoader over a per-sample data set", lambda: program("bench_loader")["samples_per_s"],
        lambda: peer("dataloader.py", "--mode", "samples")["samples_per_s"], "≥ 10", "samples/s", 3)
    row("loader ÷ DataLoader with a batch sampler over tensors", lambda: program("bench_loader")["samples_per_s"],
        lambda: peer("dataloader.py", "--mode", "tensors")["samples_per_s"], "≥ 2", "samples/s", 3)


def bench_checkpoint():
    for size in (50, 500):
        row(f"loop blocked per checkpoint of {size} MB ÷ blocking torch.save",
            lambda: program("bench_checkpoint", size)["blocked_s"],
            lambda: peer("torch_save.py", size)["blocked_s"], "≤ 0.05", "s", 5)


chosen = sys.argv[1:] or ["train", "start", "loader", "checkpoint"]
model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), platform.processor())
print(f"{os.cpu_count()} x {model}, {time.strftime('%Y-%m-%d')}; {PAIRS} interleaved pairs unless fewer are enough\n")
print("| what | Lehr | peer | unit | ratio (min-max) | goal |\n|---|---|---|---|---|---|", flush=True)
for name in chosen:
    globals()[f"bench_{name}"]()
