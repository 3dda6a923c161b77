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
# without AVX-512 PyTorch multiplies bf16 in plain loops, some fifteen times slower than float32
FAST_BF16 = "avx512" in Path("/proc/cpuinfo").read_text()
BEFORE = os.environ.get("LEHR_BEFORE")  # another build's program, e.g. of `cmake --install build --prefix DIR`
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


def train(recipe, *overrides, lehr=LEHR):
    """Trains and returns (metrics.jsonl rows, seconds to the first step's row, peak resident bytes)."""
    with tempfile.TemporaryDirectory() as folder:
        words = [lehr, "train", ROOT / "recipes" / recipe, "--run", f"{folder}/run"]
        for override in ("export.enabled=false", "validation.interval=0", "metrics.report_to=[]", *overrides):
            words += ["--set", override]
        begin = time.time()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"training {recipe} failed: {status}")
        rows = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
        return rows, rows[0]["time"] - begin, usage.ru_maxrss * 1024


def images_per_s(precision, steps, lehr=LEHR):
    warm_up = 20
    rows, _, _ = train("fashion_mnist_cnn.yaml", f"training.precision={precision}",
                       f"training.max_steps={warm_up + steps}", "data.augment.flip=0", "metrics.log_interval=10",
                       "checkpoint.interval=100000", lehr=lehr)
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
    for precision, option, steps in (("fp32", [], 300), ("bf16-mixed", ["--bf16"], 300 if FAST_BF16 else 20)):
        for script, goal in (("tuned", "≥ 0.98"), ("plain", "≥ 1.25")):
            row(f"CNN recipe ÷ {script} script, {precision}", lambda: images_per_s(precision, max(steps, 60)),
                lambda: peer(f"cnn_{script}.py", "--steps", steps, *option)["images_per_s"], goal, "images/s")


def beside_a_busy_process(work):
    """What `work()` gives while another process wants one core all the time."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        return work()
    finally:
        busy.kill()
        busy.wait()


def bench_busy():
    alone = lambda: images_per_s("fp32", 600)
    row("CNN recipe beside a process that keeps one core busy ÷ alone", lambda: beside_a_busy_process(alone), alone,
        "≥ 0.55", "images/s")


CPU_RECIPES = {"fashion_mnist_cnn.yaml": 600, "pneumonia_cnn.yaml": 200, "bike_sharing_mlp.yaml": 3000,
               "shakespeare_char.yaml": 200}


def bench_before():
    """Rates of the shipped recipes for CPUs, and that their losses are the same, beside the build in LEHR_BEFORE."""
    if not BEFORE:
        raise SystemExit("set LEHR_BEFORE to the program of the build to compare with")
    losses = {}

    def rate(recipe, lehr):
        rows, _, _ = train(recipe, f"training.max_steps={CPU_RECIPES[recipe]}", "checkpoint.interval=100000", lehr=lehr)
        losses.setdefault(recipe, set()).add(tuple(row["train.loss"] for row in rows))
        return statistics.median(row["train.samples_per_s"] for row in rows[len(rows) // 4:])

    for recipe in CPU_RECIPES:
        row(f"{recipe} ÷ the build before", lambda: rate(recipe, LEHR), lambda: rate(recipe, BEFORE), "≥ 0.98",
            "samples/s")
        print(f"{recipe}: {'the same' if len(losses[recipe]) == 1 else 'OTHER'} losses", file=sys.stderr)


def two_at_a_time(begin):
    """Steps of the CNN recipe by two processes of one thread: images/s of both."""
    with tempfile.TemporaryDirectory() as folder:
        processes = begin(folder)
        if any(process.wait() for process in processes):
            raise SystemExit("a rank failed")
        rates = []
        for log in Path(folder).glob("*/metrics.jsonl"):
            rows = [json.loads(line) for line in log.read_text().splitlines()]
            rates.append(statistics.median(row["train.samples_per_s"] for row in rows if row["step"] > 20))
        return sum(rates)


def step_ratio(*more):
    """Of two ranks: the time of a step ÷ that of the same step without communication."""
    words = ["--set", "training.threads=1", "--set", "training.max_steps=220", "--set", "checkpoint.interval=100000",
             "--set", "metrics.log_interval=10", "--set", "validation.interval=0", "--set", "export.enabled=false",
             "--set", "metrics.report_to=[]"]
    recipe = ROOT / "recipes/fashion_mnist_cnn.yaml"

    def start(verb, folder, name, batch, *further):
        return subprocess.Popen([LEHR, *verb, recipe, "--run", f"{folder}/{name}", *words, "--set",
                                 f"training.global_batch_size={batch}", *further],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    together = two_at_a_time(lambda folder: [start(["launch", "-n", "2"], folder, "both", 128, *more)])
    alone = two_at_a_time(lambda folder: [start(["train"], folder, name, 64) for name in ("one", "two")])
    return alone / together


def start_of_ranks():
    """Seconds from `lehr launch -n 4` to the first step's row."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.time()
        subprocess.run([LEHR, "launch", "-n", "4", ROOT / "recipes/bike_sharing_mlp.yaml", "--run", f"{folder}/run",
                        "--set", "training.max_steps=1", "--set", "metrics.log_interval=1", "--set",
                        "export.enabled=false", "--set", "metrics.report_to=[]"], check=True, capture_output=True)
        return json.loads(Path(folder, "run/metrics.jsonl").read_text().splitlines()[0])["time"] - begin


def start_of_torchrun():
    begin = time.time()
    out = subprocess.run([Path(sys.executable).parent / "torchrun", "--standalone", "--nproc-per-node", "4",
                          PEERS / "table_first_step.py"], check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])["done"] - begin


def bench_ranks():
    row("launch → first MLP step of 4 ranks done ÷ torchrun", start_of_ranks, start_of_torchrun, "≤ 0.1", "s", 5)
    row("CNN step of 2 ranks ÷ without communication, beside DistributedDataParallel", step_ratio,
        lambda: peer("ddp.py")["ratio"], "≤ 1.03", "", 5)
    row("the same in fixed order of 2 shards ÷ plain", lambda: step_ratio(
        "--set", "parallelism.reduction=fixed_order", "--set", "parallelism.logical_shards=2"), step_ratio, "≤ 1.1", "",
        5)


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


def tokens_per_s(steps, *overrides):
    """Of the character recipe with overrides: (tokens/s, peak resident bytes)."""
    warm_up = 20 if steps > 50 else 3
    interval = 20 if steps > 50 else 2
    rows, _, peak = train("shakespeare_char.yaml", f"training.max_steps={warm_up + steps}", "lr_scheduler.warmup_steps=2",
                          f"metrics.log_interval={interval}", "checkpoint.interval=100000", "validation.batch_size=8",
                          "data.validation_fraction=0.01", *overrides)
    return statistics.median(row["train.tokens_per_s"] for row in rows
                             if row["step"] > warm_up and "train.tokens_per_s" in row), peak


def gpt(steps, *words):
    small = steps > 50
    return peer("gpt.py", "--steps", steps, "--warm-up", 20 if small else 3, "--interval", 20 if small else 2, *words)


def bench_language():
    text = ROOT / ".data/shakespeare/input.txt"
    for name, option, goal in (("eager", [], "≥ 1.3"), ("torch.compile", ["--compile"], "≥ 1.0")):
        row(f"GPT of 4 layers, 128 wide, context 64, batch 12, fp32 ÷ {name}", lambda: tokens_per_s(200)[0],
            lambda: gpt(200, "--text", text, *option)["tokens_per_s"], goal, "tokens/s")
    # a vocabulary of 50,257: GPT-2's tokens
    shape = ["data.tokenizer=bpe", f"data.tokenizer_file={ROOT}/.data/gpt2_tokenizer/gpt2.tiktoken.gz",
             "data.context=256", "model.layers=6", "model.heads=6", "model.width=384", "training.global_batch_size=4"]
    words = ["--layers", 6, "--heads", 6, "--width", 384, "--context", 256, "--batch", 4, "--vocabulary", 50257]
    ours, theirs = [], []

    def mine():
        rate, peak = tokens_per_s(8, *shape)
        ours.append(peak / 1e6)
        return rate

    def python():
        figures = gpt(8, *words)
        theirs.append(figures["peak_rss_mb"] * 1.048576)
        return figures["tokens_per_s"]

    pairs = 3
    row("GPT of 6 layers, 384 wide, context 256, batch 4, vocabulary 50,257, fp32 ÷ eager", mine, python, "", "tokens/s",
        pairs)
    both = list(zip(ours, theirs))
    row("peak resident memory of that process", lambda: both[0][0], lambda: both.pop(0)[1], "≤ 0.5", "MB", pairs)
    bf16 = "training.precision=bf16-mixed"
    row("the same GPT in bf16 ÷ own fp32", lambda: tokens_per_s(8, *shape, bf16)[0],
        lambda: tokens_per_s(8, *shape)[0], "≥ 1.3", "tokens/s", pairs)
    # where PyTorch multiplies bf16 in loops, one of its steps is minutes: one step, one pair
    once = [] if FAST_BF16 else ["--warm-up", 0, "--interval", 1]
    for name, option, goal in (("eager", [], "≥ 1.3"), ("torch.compile", ["--compile"], "≥ 0.9")):
        row(f"the same GPT in bf16 ÷ {name} bf16", lambda: tokens_per_s(8, *shape, bf16)[0],
            lambda: gpt(8 if FAST_BF16 else 1, *words, "--bf16", *once, *option)["tokens_per_s"], goal, "tokens/s",
            pairs if FAST_BF16 else 1)


chosen = sys.argv[1:] or ["train", "start", "loader", "checkpoint", "language", "ranks", "busy"]
model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), platform.processor())
print(f"{os.cpu_count()} x {model}, {time.strftime('%Y-%m-%d')}; {PAIRS} interleaved pairs unless fewer are enough\n")
print("| what | Lehr | peer | unit | ratio (min-max) | goal |\n|---|---|---|---|---|---|", flush=True)
for name in chosen:
    globals()[f"bench_{name}"]()
