"""Writes cases (scores, targets) and what scikit-learn makes of them to a JSON file. null: undefined."""
import json
import sys
import warnings

import numpy as np
from sklearn import metrics as sk

warnings.simplefilter("ignore")
rng = np.random.default_rng(20240611)


def number(value):
    return float(value) if np.isfinite(value) else None


def calibration_error(scores, targets, bins):
    guess = scores.argmax(1)
    confidence = scores[np.arange(len(guess)), guess]
    which = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    error = 0.0
    for b in np.unique(which):
        inside = which == b
        right = (guess[inside] == targets[inside]).mean()
        error += inside.mean() * abs(right - confidence[inside].mean())
    return error


def class_case(name, scores, targets, positive=1, bins=15):
    single = scores.dtype == np.float32
    scores = scores.astype(np.float64)
    targets = np.asarray(targets)
    count, classes = scores.shape
    guess = scores.argmax(1)
    labels = list(range(classes))
    expected = {"accuracy": sk.accuracy_score(targets, guess)}
    for average in ("macro", "micro"):
        for metric in ("precision", "recall", "f1"):
            score = getattr(sk, metric + "_score")
            expected[f"{metric}_{average}"] = score(targets, guess, average=average, zero_division=0)
    if classes == 2:
        truth, said = (targets == positive).astype(int), (guess == positive).astype(int)
        nan = {"zero_division": np.nan}
        expected["precision"] = sk.precision_score(truth, said, **nan)
        expected["recall"] = expected["sensitivity"] = sk.recall_score(truth, said, **nan)
        expected["f1"] = sk.f1_score(truth, said, **nan)
        expected["specificity"] = sk.recall_score(1 - truth, 1 - said, **nan)
    else:
        for k in (1, 3, 5):
            expected[f"top_{k}_accuracy"] = sk.top_k_accuracy_score(targets, scores, k=k, labels=labels)
    roc, area = [], []
    for c in [positive] if classes == 2 else labels:
        truth = targets == c
        both = truth.any() and not truth.all()
        roc.append(sk.roc_auc_score(truth, scores[:, c]) if both else np.nan)
        area.append(sk.average_precision_score(truth, scores[:, c]) if truth.any() else np.nan)
    expected["roc_auc"], expected["pr_auc"] = np.mean(roc), np.mean(area)
    if classes > 2 and np.isfinite(expected["roc_auc"]) and np.allclose(scores.sum(1), 1, atol=1e-12):
        whole = sk.roc_auc_score(targets, scores, multi_class="ovr", labels=labels)
        assert abs(whole - expected["roc_auc"]) < 1e-12
    expected["log_loss"] = sk.log_loss(targets, y_proba=scores, labels=labels)
    expected["calibration_error"] = calibration_error(scores, targets, bins)
    return {
        "name": name, "classes": classes, "positive": positive, "bins": bins, "float32": bool(single),
        "scores": scores.tolist(), "targets": targets.tolist(),
        "expected": {key: number(value) for key, value in expected.items()},
        "matrix": sk.confusion_matrix(targets, guess, labels=labels).tolist(),
    }


def value_case(name, scores, targets):
    scores, targets = np.asarray(scores, float), np.asarray(targets, float)
    expected = {
        "rmse": sk.root_mean_squared_error(targets, scores),
        "mae": sk.mean_absolute_error(targets, scores),
        "r2": sk.r2_score(targets, scores, force_finite=False) if len(targets) > 1 else np.nan,
    }
    return {
        "name": name, "classes": 0, "positive": 1, "bins": 15, "float32": False,
        "scores": scores.tolist(), "targets": targets.tolist(),
        "expected": {key: number(value) for key, value in expected.items()}, "matrix": [],
    }


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def two(p):
    p = np.asarray(p)
    return np.stack([1 - p, p], 1)


cases = []
for n in (1, 2, 3, 17, 1000):
    cases.append(class_case(f"random binary, {n}", two(rng.random(n)), rng.integers(0, 2, n)))
    for c in (3, 10):
        cases.append(class_case(f"random {c} classes, {n}", softmax(rng.normal(size=(n, c))), rng.integers(0, c, n)))
n = 400
y = rng.integers(0, 2, n)
cases += [
    class_case("skilled", two(1 / (1 + np.exp(-(2.0 * y - 1 + rng.normal(size=n))))), y),
    class_case("float32", two(1 / (1 + np.exp(-(2.0 * y - 1 + rng.normal(size=n))))).astype(np.float32), y),
    class_case("positive is class 0", two(rng.random(n)), y, positive=0),
    class_case("7 bins", softmax(rng.normal(size=(n, 4))), rng.integers(0, 4, n), bins=7),
    class_case("one bin", softmax(rng.normal(size=(n, 4))), rng.integers(0, 4, n), bins=1),
    class_case("ties", two(np.round(rng.random(n), 1)), y),
    class_case("all the same score", two(np.full(n, 0.5)), y),
    class_case("all the same low score", two(np.full(n, 0.25)), y),
    class_case("only negatives", two(rng.random(n)), np.zeros(n, int)),
    class_case("only positives", two(rng.random(n)), np.ones(n, int)),
    class_case("only positives, all found", two(np.full(n, 0.9)), np.ones(n, int)),
    class_case("only negatives, all found", two(np.full(n, 0.1)), np.zeros(n, int)),
    class_case("certain and right", two(y.astype(float)), y),
    class_case("certain and wrong", two(1.0 - y), y),
    class_case("certain, at random", two(rng.integers(0, 2, n).astype(float)), y),
    class_case("one positive in many", two(rng.random(n)), (np.arange(n) == 77).astype(int)),
    class_case("bin edges", two(np.arange(31) / 30), rng.integers(0, 2, 31)),
    class_case("neighbouring doubles", two(np.nextafter(0.7, rng.integers(0, 2, n))), y),
    class_case("tiny scores", np.stack([np.ones(n), 5e-324 * rng.integers(0, 4, n)], 1), y),
    class_case("saturated float32", softmax(200 * rng.normal(size=(n, 10)).astype(np.float32)), rng.integers(0, 10, n)),
    class_case("ties in classes", np.round(softmax(2 * rng.normal(size=(n, 8))), 1), rng.integers(0, 8, n)),
    class_case("uniform classes", np.full((n, 6), 1 / 6), rng.integers(0, 6, n)),
    class_case("absent classes", softmax(rng.normal(size=(n, 20))), rng.integers(0, 7, n)),
    class_case("one of many classes", softmax(rng.normal(size=(n, 5))), np.full(n, 3)),
]
for n in (1, 2, 3, 1000):
    t = rng.normal(size=(n, 1))
    cases.append(value_case(f"values, {n}", t + 0.3 * rng.normal(size=(n, 1)), t))
t = rng.normal(size=(500, 3)) * [1, 10, 1000]
big = 1e9 + rng.normal(size=(500, 1))
cases += [
    value_case("three outputs", t + rng.normal(size=t.shape), t),
    value_case("far from zero", big + 0.1 * rng.normal(size=big.shape), big),
    value_case("worse than the mean", 100 + rng.normal(size=(500, 1)), rng.normal(size=(500, 1))),
    value_case("equal true values", rng.normal(size=(50, 1)), np.full((50, 1), 0.25)),
    value_case("perfect", t, t),
    value_case("tiny", 1e-140 * t, 1.1e-140 * t),
    value_case("large", 1e140 * t, 1.1e140 * t),
]
with open(sys.argv[1], "w") as file:
    json.dump({"cases": cases}, file)
