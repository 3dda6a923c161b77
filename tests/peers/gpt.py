"""A GPT in PyTorch at its best: fused attention, GELU and AdamW, one packed projection, tied head.

Prints one JSON line: tokens_per_s (median over intervals), loss of the last step, peak_rss_mb.
"""
import argparse
import json
import resource
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--heads", type=int, default=4)
parser.add_argument("--width", type=int, default=128)
parser.add_argument("--context", type=int, default=64)
parser.add_argument("--batch", type=int, default=12)
parser.add_argument("--vocabulary", type=int, default=65)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--interval", type=int, default=20)
parser.add_argument("--warm-up", type=int, default=20)
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--bf16", action="store_true")
parser.add_argument("--device", default="cpu")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--text", help="a file whose bytes are the tokens; random tokens without")
args = parser.parse_args()
if args.threads:
    torch.set_num_threads(args.threads)
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, time_, width = x.shape
        q, k, v = self.qkv(self.ln_1(x)).split(width, dim=2)
        q, k, v = (t.view(batch, time_, self.heads, width // self.heads).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, time_, width))
        return x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(args.vocabulary, args.width), nn.Embedding(args.context, args.width)
        self.blocks = nn.ModuleList(Block(args.width, args.heads) for _ in range(args.layers))
        self.ln_f = nn.LayerNorm(args.width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


model = Gpt().to(args.device)
decayed = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() <= 1]
optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                              lr=3e-3, betas=(0.9, 0.99), fused=True)
step_of = torch.compile(model) if args.compile else model
if args.text:
    text = open(args.text, "rb").read()
    kinds = {c: i for i, c in enumerate(sorted(set(text)))}
    tokens = torch.tensor([kinds[c] for c in text])
else:
    tokens = torch.randint(args.vocabulary, (max(100_000, 4 * args.batch * args.context),))

loss, begin, rates = None, time.perf_counter(), []
for step in range(args.warm_up + args.steps):
    starts = torch.randint(len(tokens) - args.context - 1, (args.batch,))
    ids = torch.stack([tokens[s : s + args.context] for s in starts]).to(args.device, non_blocking=True)
    targets = torch.stack([tokens[s + 1 : s + 1 + args.context] for s in starts]).to(args.device, non_blocking=True)
    with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
        loss = step_of(ids, targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if args.device == "cuda" and (step + 1 - args.warm_up) % args.interval == 0:
        torch.cuda.synchronize()
    if step + 1 > args.warm_up and (step + 1 - args.warm_up) % args.interval == 0:
        rates.append(args.interval * args.batch * args.context / (time.perf_counter() - begin))
    if (step + 1 - args.warm_up) % args.interval == 0:
        begin = time.perf_counter()
print(json.dumps({"tokens_per_s": statistics.median(rates), "loss": loss.item(),
                  "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
