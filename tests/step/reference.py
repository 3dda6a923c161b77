"""PyTorch's own numbers for tests/step/reference_test.cpp: losses with gradients, schedules, and
what its optimizers make of a small network in 100 steps. Usage: reference.py OUT.json"""
import json
import sys

import torch
import torch.nn.functional as F

torch.manual_seed(7)
torch.set_num_threads(1)


def losses():
    b, c, k = 6, 4, 2
    logits = torch.randn(b, c) * 3
    logits[0, 1] = 60.0  # far from the others: exercises the stable forms
    labels = torch.tensor([1, 0, 3, 2, 1, 3])
    binary, truth = torch.randn(b, 1) * 4, torch.tensor([1, 0, 0, 1, 1, 0])
    values, wanted = torch.randn(b, k) * 3, torch.randn(b, k)
    weights = [0.2, 1.0, 3.5, 0.7]
    w = torch.tensor(weights)
    cases = []

    def add(name, fields, outputs, targets, function):
        x = outputs.clone().requires_grad_()
        loss = function(x)
        loss.backward()
        cases.append(dict(name=name, fields=fields, outputs=outputs.tolist(), targets=targets.tolist(),
                          loss=loss.item(), gradient=x.grad.tolist()))

    for weighted in (False, True):
        for smoothing in (0.0, 0.1):
            add("cross_entropy",
                dict(class_weights=weights if weighted else [], label_smoothing=smoothing), logits, labels,
                lambda x: F.cross_entropy(x, labels, weight=w if weighted else None, label_smoothing=smoothing))
    for pos_weight in (1.0, 2.5):
        add("binary_cross_entropy", dict(pos_weight=pos_weight), binary, truth,
            lambda x: F.binary_cross_entropy_with_logits(x[:, 0], truth.float(),
                                                         pos_weight=torch.tensor(pos_weight)))
    add("mse", {}, values, wanted, lambda x: F.mse_loss(x, wanted))
    add("mae", {}, values, wanted, lambda x: F.l1_loss(x, wanted))
    for delta in (1.0, 0.3):
        add("huber", dict(delta=delta), values, wanted, lambda x: F.huber_loss(x, wanted, delta=delta))
    return cases


def schedules():
    def run(make, steps):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
        schedule = make(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    s = torch.optim.lr_scheduler
    return dict(
        one_cycle=run(lambda o: s.OneCycleLR(o, max_lr=0.4, total_steps=50, cycle_momentum=False), 50),
        one_cycle_late=run(lambda o: s.OneCycleLR(o, max_lr=0.4, total_steps=37, pct_start=0.6, div_factor=10,
                                                  final_div_factor=100, cycle_momentum=False), 37),
        cosine=run(lambda o: s.CosineAnnealingLR(o, T_max=50, eta_min=0.04), 50),
        linear=run(lambda o: s.LinearLR(o, start_factor=1.0, end_factor=0.1, total_iters=50), 50),
        step=run(lambda o: s.StepLR(o, step_size=12, gamma=0.5), 50),
        milestones=run(lambda o: s.MultiStepLR(o, milestones=[5, 20, 21], gamma=0.3), 50))


def optimizers():
    torch.manual_seed(11)
    batches = [(torch.randn(8, 5), torch.randint(0, 3, (8,))) for _ in range(10)]
    start = {"fc1.weight": torch.randn(7, 5) * 0.4, "fc1.bias": torch.randn(7) * 0.4,
             "fc2.weight": torch.randn(3, 7) * 0.4, "fc2.bias": torch.randn(3) * 0.4}
    plain = dict(foreach=False, fused=False)
    all_names = list(start)
    weights, biases = ["fc1.weight", "fc2.weight"], ["fc1.bias", "fc2.bias"]

    def adamw(groups, **kw):
        return torch.optim.AdamW(groups, **kw, **plain)

    def sgd(groups, **kw):
        return torch.optim.SGD(groups, **kw, **plain)

    # name, groups of (names, options), optimizer, clip, fields of the recipe
    cases = [
        ("adamw", [(weights, {}), (biases, dict(weight_decay=0))], lambda g: adamw(g, lr=0.01, weight_decay=0.1), 0,
         {"optimizer.name": "adamw", "optimizer.lr": 0.01, "optimizer.weight_decay": 0.1}),
        ("adamw_default_decay", [(weights, {}), (biases, dict(weight_decay=0))], lambda g: adamw(g, lr=0.01), 0,
         {"optimizer.name": "adamw", "optimizer.lr": 0.01}),
        ("adamw_betas_groups", [(["fc1.weight"], dict(lr=0.002, weight_decay=0.3)),
                                (["fc1.bias"], dict(lr=0.002)), (["fc2.weight", "fc2.bias"], {})],
         lambda g: adamw(g, lr=0.02, weight_decay=0.05, betas=(0.8, 0.95), eps=1e-6), 0,
         {"optimizer.name": "adamw", "optimizer.lr": 0.02, "optimizer.weight_decay": 0.05,
          "optimizer.betas": [0.8, 0.95], "optimizer.eps": 1e-6, "optimizer.no_decay": [],
          "optimizer.lr_factors": {"^fc1\\.": 0.1}, "optimizer.weight_decays": {"fc1.weight": 0.3}}),
        ("adamw_clipped", [(all_names, {})], lambda g: adamw(g, lr=0.01, weight_decay=0.01), 0.2,
         {"optimizer.name": "adamw", "optimizer.lr": 0.01, "optimizer.weight_decay": 0.01,
          "optimizer.no_decay": [], "training.max_grad_norm": 0.2}),
        ("sgd", [(all_names, {})], lambda g: sgd(g, lr=0.1), 0,
         {"optimizer.name": "sgd", "optimizer.lr": 0.1, "optimizer.momentum": 0.0}),
        ("sgd_momentum", [(weights, dict(weight_decay=5e-3)), (biases, {})], lambda g: sgd(g, lr=0.05, momentum=0.9), 0,
         {"optimizer.name": "sgd", "optimizer.lr": 0.05, "optimizer.momentum": 0.9, "optimizer.weight_decay": 5e-3}),
        ("sgd_nesterov_clipped", [(weights, dict(weight_decay=5e-3)), (biases, {})],
         lambda g: sgd(g, lr=0.05, momentum=0.9, nesterov=True), 0.3,
         {"optimizer.name": "sgd", "optimizer.lr": 0.05, "optimizer.momentum": 0.9, "optimizer.nesterov": True,
          "optimizer.weight_decay": 5e-3, "training.max_grad_norm": 0.3}),
    ]
    results = []
    for name, groups, make, clip, fields in cases:
        p = {k: v.clone().requires_grad_() for k, v in start.items()}
        optimizer = make([dict(params=[p[n] for n in names], **options) for names, options in groups])
        norms, values = [], []
        for step in range(100):
            x, y = batches[step % len(batches)]
            hidden = torch.tanh(F.linear(x, p["fc1.weight"], p["fc1.bias"]))
            loss = F.cross_entropy(F.linear(hidden, p["fc2.weight"], p["fc2.bias"]), y)
            optimizer.zero_grad()
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(p.values(), clip if clip else 1e30).item())
            optimizer.step()
            values.append(loss.item())
        results.append(dict(name=name, fields=fields, norms=norms, losses=values,
                            end={k: v.tolist() for k, v in p.items()}))
    return dict(batches=[dict(x=x.tolist(), y=y.tolist()) for x, y in batches],
                start={k: v.tolist() for k, v in start.items()}, cases=results)


with open(sys.argv[1], "w") as file:
    json.dump(dict(losses=losses(), schedules=schedules(), optimizers=optimizers()), file)
