"""Loads artefacts in stock PyTorch, with nothing of Lehr's, and says how they answer.

artefact_check.py FOLDER... prints one JSON object by folder:
  share      largest share of the tolerance that replaying the golden samples uses (0: the same bits)
  frozen     the same after torch.jit.freeze
  classes    attributes that survive freezing
  batches    largest difference between the rows of one batch and each row alone
  generate   of a language model: tokens of generate() that are not what forward() says
  context    its attribute
  weights    parameters and buffers whose bits are not those of model.safetensors
"""
import json
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file


def share(model, inputs, wanted, atol, rtol):
    got = model(*inputs)
    assert isinstance(got, tuple) and len(got) == len(wanted), got
    worst = 0.0
    for g, w in zip(got, wanted):
        assert g.shape == w.shape and g.dtype == w.dtype, (g.shape, w.shape, g.dtype, w.dtype)
        if not torch.equal(g, w):
            g, w = g.double(), w.double()
            worst = max(worst, ((g - w).abs() / (atol + rtol * w.abs())).max().item())
    return worst


def generates(model, tokens):
    """Tokens of generate() that are not what forward() says, over several lengths; seeds that do not repeat."""
    wrong = 0
    for length in (1, 3, tokens.shape[1]):
        prompt = tokens[:, :length]
        text = model.generate(prompt, 20, 0.0)
        assert text.shape == (len(prompt), length + 20) and torch.equal(text[:, :length], prompt)
        for at in range(length, length + 20):
            logits, = model(text[:, max(0, at - model.context):at])
            wrong += (logits[:, -1].argmax(1) != text[:, at]).sum().item()
        sampled = model.generate(prompt, 9, temperature=0.9, top_k=7, top_p=0.95, seed=length)
        again = model.generate(prompt, 9, temperature=0.9, top_k=7, top_p=0.95, seed=length)
        wrong += (sampled != again).sum().item()
        assert sampled.shape == (len(prompt), length + 9)
    return wrong


def check(folder):
    model = torch.jit.load(f"{folder}/model.pt")
    with safe_open(f"{folder}/golden.safetensors", "pt") as file:
        meta = file.metadata()
        golden = {name: file.get_tensor(name) for name in file.keys()}
    wanted = [golden["output." + name] for name in meta["outputs"].split(",")]
    if "input.images" in golden:
        inputs = [golden["input.images"]]
    elif "input.tokens" in golden:
        inputs = [golden["input.tokens"]]
    else:
        inputs = [golden["input.numbers"], json.loads(golden["input.strings"].numpy().tobytes())]
    tolerance = float(meta["atol"]), float(meta["rtol"])
    lists = ["classes", "number_columns", "string_columns"]
    frozen = torch.jit.freeze(model.eval(), preserved_attrs=[n for n in lists if hasattr(model, n)])
    whole = model(*inputs)[-1]
    alone = torch.cat([model(*[i[k:k + 1] for i in inputs])[-1] for k in range(len(inputs[0]))])
    text = {}
    if "input.tokens" in golden:
        text = {"generate": generates(model, inputs[0]), "context": model.context}
    stored = load_file(f"{folder}/model.safetensors")
    scripted = {**dict(model.model.named_parameters()), **dict(model.model.named_buffers())}
    return {
        **text,
        "share": share(model, inputs, wanted, *tolerance),
        "frozen": share(frozen, inputs, wanted, *tolerance),
        "classes": list(frozen.classes) if hasattr(frozen, "classes") else [],
        "batches": (whole - alone).abs().max().item(),
        "weights": sorted(name for name in stored.keys() | scripted.keys()
                          if name not in stored or name not in scripted
                          or not torch.equal(stored[name], scripted[name])),
    }


assert "lehr" not in sys.modules
print(json.dumps({folder: check(folder) for folder in sys.argv[1:]}))
