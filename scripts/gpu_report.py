"""Runs a folder that scripts/gpu packed and writes one Markdown report.

Parts: device, device tests, ranks that share the GPU, compute-sanitizer, copy bandwidth, kernel benchmarks, training
beside PyTorch.
A part that needs a GPU and has none is skipped by name. Each part has a time limit; all together stay within
20 minutes. Ends 1 when a part that ran failed.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

folder, report = Path(sys.argv[1]), Path(sys.argv[2])
try:
    import torch
    gpu = torch.cuda.is_available()
except ImportError:
    torch, gpu = None, False
lines, failed = [], []
begin = time.time()


def say(text=""):
    print(text, flush=True)
    lines.append(text)
    report.write_text("\n".join(lines) + "\n")


def call(words, limit, env=None):
    """(exit code, output); 124 when the time limit was reached."""
    try:
        done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=limit, cwd=folder, env={**os.environ, **(env or {})})
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as e:
        return 124, (e.stdout or b"").decode(errors="replace") if isinstance(e.stdout, bytes) else (e.stdout or "")


def part(title, needs_gpu=True):
    """Decorator: a section of the report."""
    def wrap(function):
        say(f"\n## {title}\n")
        if needs_gpu and not gpu:
            say("Skipped: no GPU on this machine.")
            return function
        started = time.time()
        try:
            ok = function()
        except Exception as error:  # a part must not take the others with it
            say(f"Failed: {error}")
            ok = False
        if ok is False:
            failed.append(title)
        say(f"\n({time.time() - started:.0f} s)")
        return function
    return wrap


def counts(output):
    """GoogleTest's closing lines."""
    return [line for line in output.splitlines() if re.match(r"\[ +(PASSED|FAILED|SKIPPED) +\]", line)][:40]


say(f"# GPU report, {time.strftime('%Y-%m-%d')}, build {(folder / 'build.txt').read_text().strip()}")


@part("Device and versions", needs_gpu=False)
def _device():
    say(f"- PyTorch {torch.__version__ if torch else 'none'}, CUDA {torch.version.cuda if torch else 'none'}")
    if gpu:
        code, text = call(["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit,memory.total",
                           "--format=csv"], 60)
        say("- " + text.strip().replace("\n", "\n- "))
    code, text = call([folder / "bin/lehr", "doctor"], 60)
    say("```\n" + text.strip() + "\n```")
    return code == 0


@part("Device tests", needs_gpu=False)
def _tests():
    code, text = call([folder / "bin/test_kernels"], 300, {"OMP_NUM_THREADS": "2"})
    say("```\n" + "\n".join(counts(text)) + "\n```")
    if not gpu:
        say("The tests ran on the CPU; those of a GPU skipped themselves.")
        return code == 0
    # steps of every precision, batch norm, language models, and checkpoints: what elsewhere runs on a stand-in device
    steps, text = call([folder / "bin/test_standin"], 300, {"LEHR_TEST_DEVICE": "cuda", "OMP_NUM_THREADS": "2"})
    failures = [line for line in text.splitlines() if "Failure" in line or "ranks" in line]
    say("```\n" + "\n".join(counts(text) + failures[:20]) + "\n```")
    return code == 0 and steps == 0


def last_losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name: value for row in rows for name, value in row.items() if name in ("train.loss", "validation.loss")}


@part("One rank, and two that share the GPU")
def _ranks():
    """What the stand-in device of the tests cannot show: streams, pinned memory and ranks of a real one. NCCL refuses
    two ranks on a GPU, so their sums cross to the host, over Gloo. Each run is cut after every few steps and resumed."""
    losses = {}
    with tempfile.TemporaryDirectory() as runs:
        for ranks in (1, 2):
            run = Path(runs, str(ranks))
            words = [folder / "bin/lehr", "launch", "-n", ranks, folder / "recipes/shakespeare_char.yaml", "--run", run]
            for override in ("training.device=cuda", "training.max_steps=60", "training.max_epochs=null",
                             "lr_scheduler.warmup_steps=2", "checkpoint.interval=20", "validation.interval=30",
                             "metrics.log_interval=1", "job.time_limit=3s", "job.max_restarts=0"):
                words += ["--set", override]
            for invocations in range(1, 31):
                code, text = call(words, 120, {"CUDA_VISIBLE_DEVICES": "0", "LEHR_TEST_RANKS_SHARE_GPU": "1"})
                if code != 75:
                    break
            if code:
                raise RuntimeError(f"{ranks} rank(s): exit {code}: {text[-400:]}")
            losses[ranks] = last_losses(run)
            say(f"- {ranks} rank(s), {invocations} invocation(s): {losses[ranks]}; "
                f"artefact {'written' if (run / 'artefact/MANIFEST.json').exists() else 'MISSING'}")
            if not (run / "artefact/MANIFEST.json").exists():
                return False
    return all(abs(losses[1][name] - losses[2][name]) < 0.02 for name in losses[1])


@part("compute-sanitizer")
def _sanitizer():
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        say("Skipped: no compute-sanitizer on this machine.")
        return None
    ok = True
    for check in ("memcheck", "racecheck", "initcheck", "synccheck"):
        code, text = call([tool, "--tool", check, "--error-exitcode", "9", folder / "bin/test_kernels",
                           "--gtest_filter=*cuda*"], 120)
        summary = [line for line in text.splitlines() if "ERROR SUMMARY" in line or "RACECHECK SUMMARY" in line]
        say(f"- {check}: exit {code}{' (time limit)' if code == 124 else ''}; {' '.join(summary) or 'no summary'}")
        ok = ok and code in (0, 124)
    return ok


bandwidth = None


@part("Copy bandwidth")
def _copy():
    global bandwidth
    rates = []
    for _ in range(5):
        a, b = torch.randn(1 << 28, device="cuda"), torch.empty(1 << 28, device="cuda")
        for _ in range(3):
            b.copy_(a)
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        for _ in range(20):
            b.copy_(a)
        last.record()
        torch.cuda.synchronize()
        rates.append(20 * 2 * a.nbytes / first.elapsed_time(last) / 1e6)
    bandwidth = statistics.median(rates)
    say(f"Device to device, read and written counted: {bandwidth:.0f} GB/s ({min(rates):.0f}-{max(rates):.0f})")


@part("Kernel benchmarks")
def _kernels():
    out = Path(tempfile.mkdtemp()) / "kernels.json"
    code, _ = call([folder / "bin/bench_kernels", "--benchmark_filter=cuda", f"--benchmark_out={out}",
                    "--benchmark_out_format=json"], 360)
    rows = {b["name"].split("/iterations")[0].replace("/manual_time", ""): b
            for b in json.loads(out.read_text())["benchmarks"] if "real_time" in b}
    say("| case | us | GB/s | share of copy | ATen ÷ ours |\n|---|---|---|---|---|")
    for name, row in rows.items():
        if not name.endswith("/lehr"):
            continue
        peer = rows.get(name[:-5] + "/aten")
        rate = row.get("bytes_per_second", 0) / 1e9
        say(f"| {name[:-5]} | {row['real_time']:.1f} | {rate:.0f} | "
            f"{f'{rate / bandwidth:.0%}' if bandwidth else ''} | "
            f"{f'''{peer['real_time'] / row['real_time']:.2f}''' if peer else ''} |")
    return code == 0


def lehr_tokens_per_s(overrides, steps):
    with tempfile.TemporaryDirectory() as run:
        words = [folder / "bin/lehr", "train", folder / "recipes/shakespeare_char.yaml", "--run", f"{run}/run"]
        for override in ("export.enabled=false", "validation.interval=0", "metrics.report_to=[]",
                         "lr_scheduler.warmup_steps=2", "metrics.log_interval=20", f"training.max_steps={steps + 20}",
                         *overrides):
            words += ["--set", override]
        code, text = call(words, 240)
        if code:
            raise RuntimeError(text[-400:])
        rows = [json.loads(line) for line in Path(run, "run/metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if "train.tokens_per_s" in row and row["step"] > 20]
        return statistics.median(row["train.tokens_per_s"] for row in rows), rows[-1]["train.loss"]


def peer_tokens_per_s(words, steps):
    code, text = call([sys.executable, folder / "peers/gpt.py", "--steps", steps, "--warm-up", 20, "--text",
                       folder / ".data/shakespeare/input.txt", *words], 300)
    if code:
        raise RuntimeError(text[-400:])
    figures = json.loads(text.strip().splitlines()[-1])
    return figures["tokens_per_s"], figures["loss"]


def compare(title, shape, overrides, words, steps, pairs):
    say(f"\n{title}\n\n| peer | Lehr tok/s | peer tok/s | ratio (min-max) | losses |\n|---|---|---|---|---|")
    for name, extra in (("eager", []), ("torch.compile", ["--compile"])):
        ours, theirs = [], []
        for _ in range(pairs):
            ours.append(lehr_tokens_per_s(shape + overrides, steps))
            theirs.append(peer_tokens_per_s(words + extra, steps))
        ratios = [a[0] / b[0] for a, b in zip(ours, theirs)]
        # the same mathematics: both are at about the same loss after the same steps, else the timing is void
        void = abs(ours[-1][1] - theirs[-1][1]) > 0.3
        say(f"| {name} | {statistics.median(a[0] for a in ours):.0f} | {statistics.median(b[0] for b in theirs):.0f} | "
            f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}-{max(ratios):.2f}) | "
            f"{ours[-1][1]:.2f}, {theirs[-1][1]:.2f}{' VOID: losses differ' if void else ''} |")
        if void:
            raise RuntimeError("losses differ")


@part("Training beside PyTorch")
def _training():
    layers = ["model.layers=6", "model.heads=6", "model.width=384", "data.context=256", "training.global_batch_size=64"]
    words = ["--layers", 6, "--heads", 6, "--width", 384, "--context", 256, "--batch", 64, "--device", "cuda", "--bf16"]
    compare("GPT of 6 layers, 384 wide, context 256, batch 64, bf16", layers,
            ["training.device=cuda", "training.precision=bf16-mixed", "training.kernels=custom"], words, 200, 3)
    layers = ["model.layers=12", "model.heads=12", "model.width=768", "data.context=1024",
              "training.global_batch_size=32", "model.pad_vocabulary_to=64"]
    words = ["--layers", 12, "--heads", 12, "--width", 768, "--context", 1024, "--batch", 32, "--device", "cuda", "--bf16"]
    compare("GPT-2's 124M shape with 65 characters, context 1024, batch 32, bf16", layers,
            ["training.device=cuda", "training.precision=bf16-mixed", "training.kernels=custom"], words, 40, 3)


@part("Training beside PyTorch, on the CPU", needs_gpu=False)
def _training_cpu():
    if gpu:
        say("Skipped: the GPU's time is for the GPU.")
        return None
    compare("The recipe's GPT of 4 layers, fp32, one pair: shows that the comparison works", [],
            ["training.device=cpu"], [], 40, 1)


say(f"\n{time.time() - begin:.0f} s in all; " + (f"FAILED: {', '.join(failed)}" if failed else "nothing that ran failed"))
sys.exit(1 if failed else 0)
