"""Makes Hugging Face folders with transformers, and answers what their models compute.

huggingface_peer.py make KIND FOLDER ORACLE    save_pretrained to FOLDER; to ORACLE (safetensors) tokens, the logits
                                               of the inputs, grad.NAME of the mean loss, and of 100 steps of AdamW
                                               from there the batches and losses
huggingface_peer.py folders KIND...            folders named KIND, without an oracle
huggingface_peer.py logits FOLDER ORACLE OUT   the logits of FOLDER's model for the oracle's inputs, and its config
huggingface_peer.py auto N FOLDER... -- PROMPT...   as JSON, a line for each folder and prompt: the ids of AutoTokenizer
                                               (which must be those of tokenizer.json), and the bytes, as Latin-1, of
                                               what AutoModelForCausalLM greedily generates after it, N tokens at most
KINDs: see CONFIGS.
"""
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig,
                          LlamaForCausalLM, PreTrainedTokenizerFast)
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
    "gpt2_words": (GPT2Config, GPT2LMHeadModel, {**GPT2, "vocab_size": 320}, {}),
    "llama_words": (LlamaConfig, LlamaForCausalLM,
                    {**LLAMA, "vocab_size": 384, "bos_token_id": 0, "eos_token_id": 2}, {}),
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


def save_word_tokenizer(kind, folder):
    """A byte-level BPE with few merges and added tokens of every sort, fewer than the model has rows."""
    corpus = ["the kilns cool by night, the lehr anneals the panes of glass 2023 2024 12345"] * 9
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama_words"))
    names = ["<|endoftext|>"]
    if kind == "llama_words":  # special ones come first, as a trainer puts them, and one begins every text
        names = ["<s>", "<pad>", "<|endoftext|>"]
        split = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=300, special_tokens=names if kind == "llama_words" else [],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens(names)
    if kind == "llama_words":
        tokenizer.post_processor = processors.Sequence(
            [processors.ByteLevel(trim_offsets=False),
             processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])])
    tokenizer.add_tokens([AddedToken("<mol>", rstrip=True), AddedToken("gramme", single_word=True), AddedToken("[lehr]", lstrip=True)])
    tokenizer.save(f"{folder}/tokenizer.json")


def save_folder(kind, folder):
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
    if kind.endswith("_words"):
        save_word_tokenizer(kind, folder)
    return model


def folders(*kinds):
    for kind in kinds:
        save_folder(kind, kind)


def make(kind, folder, oracle):
    model = save_folder(kind, folder)
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


def bytes_of(tokenizer, ids):
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's letters for bytes
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
    added = {token["id"]: token["content"] for token in json.loads(tokenizer.to_str())["added_tokens"]}
    return b"".join(added[i].encode() if i in added else bytes(byte_of[c] for c in tokenizer.id_to_token(i)) for i in ids)


def answer(folder, count, prompts):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    own = Tokenizer.from_file(f"{folder}/tokenizer.json")
    if os.path.exists(f"{folder}/tokenizer_config.json"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    else:  # of the peer's own making: AutoTokenizer would guess
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", eos_token="<|endoftext|>")
    assert len(tokenizer) == own.get_vocab_size(), (len(tokenizer), own.get_vocab_size())
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        ids = inputs["input_ids"][0].tolist()
        assert ids == own.encode(prompt).ids, (ids, own.encode(prompt).ids)
        # our folders say themselves which rows are no token
        none = model.generation_config.suppress_tokens or list(range(len(tokenizer), model.config.vocab_size))
        new = model.generate(**inputs, do_sample=False, suppress_tokens=none or None, max_new_tokens=count)
        new = new[0].tolist()[len(ids):]
        if tokenizer.eos_token_id in new:
            new = new[:new.index(tokenizer.eos_token_id)]
        print(json.dumps({"folder": folder, "prompt": prompt, "ids": ids, "text": bytes_of(own, new).decode("latin-1")}))


def auto(count, *words):
    middle = words.index("--")
    for folder in words[:middle]:
        answer(folder, int(count), words[middle + 1:])


{"make": make, "folders": folders, "logits": logits, "auto": auto}[sys.argv[1]](*sys.argv[2:])
