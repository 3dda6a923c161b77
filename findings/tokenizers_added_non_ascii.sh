#!/usr/bin/env bash
# tokenizers 0.23.3: an added token outside ASCII is confused with the letters by which a byte-level BPE writes bytes.
# Seen: add_tokens(["é"]) answers 1, but no token is added: "é" gets the id of the byte 0xE9, whose letter it is. From then
# on "café" encodes to other ids, of a byte that is no UTF-8, and decodes to "caf\ufffd". add_tokens(["café"]) does get an
# id of its own, and decodes to "caf\ufffd" as well. Who adds words of another language to GPT-2's or Llama 3's tokenizer
# trains on one id for two things, and reads text back that is damaged. No warning is given.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q tokenizers==0.23.3
"$work/venv/bin/python" - <<'END'
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

print("tokenizers", tokenizers.__version__)


def byte_level():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


seen = []
for added in ([], ["é"], ["café"], ["cafe"]):
    tokenizer = byte_level()
    answer = tokenizer.add_tokens(added)
    text = "cafe" if added == ["cafe"] else "café"
    ids = tokenizer.encode(text).ids
    seen.append((answer, tokenizer.get_vocab_size(), len(ids), tokenizer.decode(ids) == text))
    print(f"added {added}: add_tokens says {answer}, size {tokenizer.get_vocab_size()}, {text} -> {ids} -> {tokenizer.decode(ids)!r}")
assert seen == [(0, 256, 5, True), (1, 256, 4, False), (1, 257, 1, False), (1, 257, 1, True)], seen
print("as described")
END
