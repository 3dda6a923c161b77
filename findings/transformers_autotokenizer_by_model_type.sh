#!/usr/bin/env bash
# transformers 4.57.6 and 5.24.0: AutoTokenizer gives other ids than the tokenizer.json of the folder that it loads.
# A folder of config.json and tokenizer.json, without tokenizer_config.json, is valid (weights were never looked at).
# Seen: 5.24.0 chooses GPT2Tokenizer by model_type gpt2, and that splits text by GPT-2's pattern, whatever pattern
# tokenizer.json has (here Llama 3's, which takes three digits as a word). 4.57.6 chooses LlamaTokenizerFast by model_type
# llama, and that puts <s> before every text, a token that tokenizer.json does not have: its id is beyond the model's last
# row, so generate() ends with an IndexError or reads another model's row. Neither says so. With
# {"tokenizer_class": "PreTrainedTokenizerFast"} as tokenizer_config.json both give tokenizer.json's ids.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for release in 4.57.6 5.24.0; do
  python3 -m venv "$work/$release"
  "$work/$release/bin/pip" install -q transformers==$release
  "$work/$release/bin/python" - "$work" <<'END'
import json
import os
import sys

import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, logging

logging.set_verbosity_error()
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
tokenizer.decoder = decoders.ByteLevel()
tokenizer.train_from_iterator(["23 23 23 23 202"] * 9, trainers.BpeTrainer(
    vocab_size=270, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
tokenizer.add_special_tokens(["<|endoftext|>"])
text = "in 2023"
wanted = tokenizer.encode(text).ids
print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__, "tokenizer.json:", wanted)
same = {}
for kind in ("gpt2", "llama"):
    for config in (None, {"tokenizer_class": "PreTrainedTokenizerFast"}):
        folder = os.path.join(sys.argv[1], f"{transformers.__version__}-{kind}-{config is not None}")
        os.makedirs(folder)
        tokenizer.save(os.path.join(folder, "tokenizer.json"))
        json.dump({"model_type": kind}, open(os.path.join(folder, "config.json"), "w"))
        if config:
            json.dump(config, open(os.path.join(folder, "tokenizer_config.json"), "w"))
        auto = AutoTokenizer.from_pretrained(folder)
        same[kind, config is not None] = auto(text)["input_ids"] == wanted
        print(f"  {kind}, tokenizer_config.json {config}: {type(auto).__name__} gives {auto(text)['input_ids']}")
other = "llama" if transformers.__version__.startswith("4.") else "gpt2"
assert not same[other, False], same
assert all(same[kind, True] for kind in ("gpt2", "llama")), same
print("  as described")
END
done
