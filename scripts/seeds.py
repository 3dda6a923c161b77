"""Trains each recipe with several seeds and prints what it reached beside what its head promises.

The recipe's head holds lines such as `# expect: test.accuracy >= 0.915 mean, >= 0.910 each; 60 s`.
"""
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
seeds = [int(s) for s in " ".join(sys.argv[1:]).split()] or [0, 1, 2]
failed = False
print("| recipe | figure | mean | min | max | training s | promised |")
print("|---|---|---|---|---|---|---|")
for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
    expectations = re.findall(r"^# expect: (\S+) (>=|<=) (\S+) mean(?:, (?:>=|<=) (\S+) each)?(?:; (\S+) s)?",
                              recipe.read_text(), re.M)
    if not expectations:
        continue
    results = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([ROOT / "build/lehr", "train", recipe, "--run", f"{folder}/run",
                            "--set", f"training.seed={seed}", "--set", "export.enabled=false"],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            results.append(json.loads(Path(folder, "run/metrics.json").read_text()))
    seconds = [r["train_seconds"] for r in results]
    for name, sign, mean, each, limit in expectations:
        split, key = name.split(".", 1)
        values = [r[split][key] for r in results]
        better = (lambda a, b: a >= b) if sign == ">=" else (lambda a, b: a <= b)
        worst = min(values) if sign == ">=" else max(values)
        good = better(statistics.mean(values), float(mean)) and (not each or better(worst, float(each))) \
            and (not limit or max(seconds) <= float(limit))
        failed |= not good
        print(f"| {recipe.stem} | {name} | {statistics.mean(values):.4f} | {min(values):.4f} | {max(values):.4f} | "
              f"{statistics.mean(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f}) | {sign} {mean}"
              f"{', each ' + sign + ' ' + each if each else ''}{', ' + limit + ' s' if limit else ''}"
              f"{'' if good else ' **missed**'} |", flush=True)
sys.exit(failed)
