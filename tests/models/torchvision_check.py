"""Loads the weights that torchvision_test.cpp wrote into torchvision's ResNets and into the Python CNN of
tests/peers, under the same names, and writes what differs as JSON. Usage: torchvision_check.py FOLDER OUT"""
import json
import sys
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "peers"))
import cnn_net  # noqa: E402

MODELS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "resnet50": lambda: torchvision.models.resnet50(num_classes=10),
    "cnn": lambda: cnn_net.Cnn(),
}


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def check(name, folder):
    tensors = load_file(folder / f"{name}.safetensors")
    given = {k.removeprefix("test."): v for k, v in tensors.items() if k.startswith("test.")}
    weights = {k: v for k, v in tensors.items() if not k.startswith("test.")}
    torch.manual_seed(1)
    model = MODELS[name]()
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    result = {
        "missing": sorted(set(fresh) - set(weights)),
        "extra": sorted(set(weights) - set(fresh)),
        # standard deviations of large weights, ours to theirs as each was drawn
        "deviations": {k: (given["initial." + k].std() / v.std()).item()
                       for k, v in fresh.items() if v.numel() > 10000},
    }
    model.load_state_dict(weights, strict=False)
    # the layout that ours computes in; another one rounds differently
    model = model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        result["eval"] = relative(given["eval"], model.eval()(given["x"]))
    outputs = model.train()(given["x"])
    result["train"] = relative(given["train"], outputs.detach())
    outputs.square().sum().backward()
    named = dict(model.named_parameters())
    result["gradients"] = {k.removeprefix("gradient."): relative(v, named[k.removeprefix("gradient.")].grad)
                           for k, v in given.items() if k.startswith("gradient.")}
    buffers = dict(model.named_buffers())
    result["buffers"] = {k.removeprefix("moved."): relative(v.float(), buffers[k.removeprefix("moved.")].float())
                         for k, v in given.items() if k.startswith("moved.")}
    return result


folder = Path(sys.argv[1])
Path(sys.argv[2]).write_text(json.dumps({name: check(name, folder) for name in MODELS}))
