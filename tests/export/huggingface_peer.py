"""Makes Hugging Face folders with transformers, and answers what their models compute.

huggingface_peer.py make KIND FOLDER ORACLE    save_pretrained to FOLDER; to ORACLE (safetensors) tokens, the logits
                                               of the inputs, grad.NAME of the mean loss, and of 100 steps of AdamW
                                               from there the batches and losses
huggingface_peer.py generate FOLDER PROMPT N   the greedy text, PROMPT and N new tokens, of a model of bytes
huggingface_peer.py logits FOLDER ORACLE OUT   the logits of FOLDER's model for the oracle's inputs, and its config
KINDs: see CONFIGS.
"""
import json
import sys

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig,
                          LlamaForCausalLM)
from transformers.utils import logging

logging.disable_progress_bar()
VOCABULARY, CONTEXT, STEPS, BATCH = 61, 24, 100, 4
GPT2 = dict(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4,
            initializer_range=0.15, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=0, eos_token_id=0)
LLAMA = dict(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, hidden_size=32,
             intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             initializer_range=0.15, bos_token_id=0, eos_token_id=0)
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
                   high_freq_factor=4.0, original_max_position_embeddings=16)
CONFIGS = {
    "gpt2": (GPT2Config, GPT2LMHeadModel, GPT2, {}),
    "gpt2_inner": (GPT2Config, GPT2LMHeadModel,
                   {**GPT2, "n_inner": 40, "activation_function": "gelu_pytorch_tanh",
                    "layer_norm_epsilon": 1e-3}, {"max_shard_size": "8KB"}),
    "gpt2_bytes": (GPT2Config, GPT2LMHeadModel, {**GPT2, "vocab_size": 257}, {}),
    "llama": (LlamaConfig, LlamaForCausalLM, LLAMA, {}),
    "llama_gqa": (LlamaConfig, LlamaForCausalLM,
                  {**LLAMA, "num_key_value_heads": 2, "rms_norm_eps": 1e-3},
                  {"max_shard_size": "8KB"}),
    "llama_with_bytes": (LlamaConfig, LlamaForCausalLM,
                         {**LLAMA, "vocab_size": 257, "num_key_value_heads": 2}, {}),
    "llama3": (LlamaConfig, LlamaForCausalLM,
               {**LLAMA, "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True,
                "rope_parameters": LLAMA3_ROPE}, {}),
}


def loss_of(model, tokens):
    logits = model(tokens[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def save_byte_tokenizer(folder):
    """A byte-level BPE without merges: 256 bytes and the end of a text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(f"{folder}/tokenizer.json")


def make(kind, folder, oracle):
    torch.manual_seed(sorted(CONFIGS).index(kind))
    config, model_class, values, options = CONFIGS[kind]
    model = model_class(config(**values))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:  # norms and biases start at 1 and 0, which hides that they are mixed up
                p += 0.1 * torch.randn_like(p)
    model.save_pretrained(folder, **options)
    if kind.endswith("_bytes"):
        save_byte_tokenizer(folder)
    tokens = torch.randint(VOCABULARY, (3, CONTEXT + 1))
    out = {"tokens": tokens}
    model.train()
    loss = loss_of(model, tokens)
    loss.backward()
    out["logits"] = model(tokens[:, :-1]).logits.detach().clone()
    out["loss"] = loss.detach()
    for name, p in model.named_parameters():
        out["grad." + name] = p.grad.clone()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                                   {"params": others, "weight_decay": 0.0}], lr=1e-3)
    batches = torch.randint(VOCABULARY, (8, BATCH, CONTEXT + 1))
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, batches[step % len(batches)])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    out["batches"], out["losses"] = batches, torch.tensor(losses, dtype=torch.float64)
    save_file(out, oracle)


def logits(folder, oracle, out):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = load_file(oracle)["tokens"]
    with torch.no_grad():
        save_file({"logits": model(tokens[:, :-1]).logits.contiguous()}, out)
    print(json.dumps(model.config.to_dict()))


def generate(folder, prompt, count):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    prompt = torch.tensor([tokenizer.encode(prompt).ids])
    # a model that ends its text would prove little
    ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, eos_token_id=None,
                         pad_token_id=0, max_new_tokens=int(count), min_new_tokens=int(count))[0]
    assert 256 not in ids, "the end of a text was drawn"
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's letters for bytes
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
    sys.stdout.buffer.write(bytes(byte_of[tokenizer.id_to_token(i)] for i in ids.tolist()))


{"make": make, "generate": generate, "logits": logits}[sys.argv[1]](*sys.argv[2:])
