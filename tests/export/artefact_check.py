"""Loads artefacts in stock PyTorch, with nothing of Lehr's, and says how they answer.

artefact_check.py FOLDER... prints one JSON object by folder:
  share      largest share of the tolerance that replaying the golden samples uses (0: the same bits)
  frozen     the same after torch.jit.freeze
  classes    attributes that survive freezing
  batches    largest difference between the rows of one batch and each row alone
  generate   of a language model: tokens of generate() that are not what forward() says
  context    its attribute
  weights    parameters and buffers whose bits are not those of model.safetensors
  gradients  parameters and answers that ask for gradients
  promises   inputs that are not answered or refused as FORMAT.md says, as loaded and after freezing, optimizing, saving
             again, copying and in threads
"""
import copy
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor

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


def cases(inputs, attributes):
    """(arguments of forward, a word that the refusal says, or None: they are answered)"""
    x = inputs[0]
    if x.dtype == torch.uint8:
        size = ", ".join(map(str, x.shape[1:]))
        yield [x.long()], None
        yield [x[:0]], None
        yield [x.float() / 255], "(x * 255).round()"
        yield [x > 0], "not bool"
        yield [x[0]], "x.unsqueeze(0)"
        yield [x.long() + 255], "stored as 0 to 255"
        yield [x.to(torch.int8) | -128], "stored as 0 to 255"
        for other in (x[:, 1:], x[:, :, :, None, None], x.reshape(-1), torch.tensor(1, dtype=torch.uint8)):
            yield [other], f"[N, {size}] is wanted, not uint8 ["
        if x.dim() == 4:
            yield [x.permute(0, 3, 1, 2)], "x.permute(0, 2, 3, 1)"
            yield [x[..., 0]], "is wanted"
            yield [torch.cat([x, x[..., :1]], 3)], "is wanted"
        else:
            yield [x[..., None]], None
            yield [x[0, ..., None]], "is wanted"
    elif x.dtype == torch.int64:
        vocabulary, longest = attributes
        yield [x.int()], None
        yield [x[:0]], None
        yield [x[:, :0]], "T at least 1"
        yield [x[0]], "T at least 1, not int64 ["
        for other in (x.float(), x > 0, x.to(torch.uint8)):
            yield [other], "int64 or int32 [N, T] is wanted"
        yield [x - x.max() - 1], "the vocabulary has 0 to"
        yield [x + vocabulary - x.max()], f"the vocabulary has 0 to {vocabulary - 1}"
        yield [x.repeat(1, longest)], f"at most {longest}"
    else:
        strings = inputs[1]
        yield [x.float(), strings], None
        yield [x[:0], []], None
        yield [x[1:], strings], "rows beside"
        yield [x, []], "rows beside"
        yield [x, [[]] + strings[1:]], "row 0 has 0 instead of 1 (town"
        yield [x, strings[:-1] + [["a", "b"]]], f"row {len(x) - 1} has 2 instead of 1 (town"
        for other in (x[0], x[:, :1], x[:, :, None], x.long(), x.half(), torch.tensor(1.0)):
            yield [other, strings], "float64 or float32 [N, 2] is wanted (age, height; missing: NaN)"
        for value, shown in ((float("inf"), "inf"), (-float("inf"), "-inf"), (1e300, "e+300")):
            wild = x.clone()
            wild[3, 1] = value
            yield [wild, strings], f"row 3, column 1 (height) is {shown}" if shown != "e+300" else shown


def said(model, arguments):
    try:
        return None, model(*arguments)
    except Exception as e:  # of Python's, where LibTorch's own operators refuse
        return str(e).strip().splitlines()[-1], None


def broken(path, inputs, wanted, keep):
    """Promises of FORMAT.md that one of the model's forms does not keep."""
    again, model = io.BytesIO(), torch.jit.load(path)
    torch.jit.save(model, again)
    again.seek(0)
    forms = {"loaded": model, "frozen": torch.jit.freeze(torch.jit.load(path).eval(), preserved_attrs=keep),
             "optimized": torch.jit.optimize_for_inference(torch.jit.load(path).eval()),
             "saved": torch.jit.load(again), "copied": copy.deepcopy(model)}
    attributes = [wanted[0].shape[-1], longest(model, inputs[0])] if inputs[0].dtype == torch.int64 else None
    wrong = []
    for form, model in forms.items():
        for arguments, word in cases(inputs, attributes):
            refusal, answer = said(model, arguments)
            shape = [str(tuple(a.shape)) for a in arguments if isinstance(a, torch.Tensor)]
            name = f"{form} {arguments[0].dtype} {shape}: {refusal}"
            if word is None and refusal is None:
                short = arguments[0].shape[0] == 0
                ok = all(a.shape[1:] == w.shape[1:] and a.dtype == w.dtype and len(a) == (0 if short else len(w))
                         and not a.requires_grad and (short or torch.allclose(a.double(), w.double(), atol=1e-4))
                         for a, w in zip(answer, wanted))
            else:
                ok = word is not None and refusal is not None and "ValueError: " in refusal and word in refusal
            if not ok:
                wrong.append(name)
    with ThreadPoolExecutor(4) as threads:
        for answer in threads.map(lambda i: forms["loaded"](*inputs)[-1], range(16)):
            if not torch.allclose(answer, wanted[-1], atol=1e-4):
                wrong.append("threads")
    return wrong


def longest(model, x):
    """tokens that one forward takes"""
    length = 1
    while said(model, [x[:1, :1].repeat(1, length + 1)])[0] is None:
        length += 1
    return length


def refuses_arguments(model, tokens):
    """Arguments of generate() that are answered though they are none, or not named."""
    wrong = []
    for name, value in (("new_tokens", -1), ("temperature", -1.0), ("temperature", float("nan")),
                        ("temperature", float("inf")), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.5),
                        ("top_p", float("nan")), ("tokens", tokens + 10**6), ("tokens", tokens[:, :0])):
        arguments = {"tokens": tokens, "new_tokens": 2, name: value}
        try:
            model.generate(**arguments)
            wrong.append(f"generate: {name} {value}")
        except Exception as e:
            if f"ValueError: {name}: " not in str(e).strip().splitlines()[-1]:
                wrong.append(f"generate: {name} {value}: {e}")
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
        lists += ["generate", "context"]
    stored = load_file(f"{folder}/model.safetensors")
    scripted = {**dict(model.model.named_parameters()), **dict(model.model.named_buffers())}
    wrong = broken(f"{folder}/model.pt", inputs, wanted, [n for n in lists if hasattr(model, n)])
    if text:
        wrong += refuses_arguments(model, inputs[0])
    return {
        **text,
        "promises": wrong,
        "gradients": [name for name, p in model.named_parameters() if p.requires_grad]
                     + [i for i, answer in enumerate(model(*inputs)) if answer.requires_grad],
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
