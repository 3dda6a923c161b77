"""Judges of the tokenizers: what tiktoken and Hugging Face's tokenizers make of random text.

    tokenizer_peer.py RANKS FOLDER COUNT [SEED]      with a SEED tiktoken alone judges
    tokenizer_peer.py added FOLDER make | check      tokenizers 0.json to 5.json with added tokens of random flags, and
                                                     the ids N_plain.bin, N_special.bin that they give strings.bin, names
                                                     of special tokens taken as text or not; check: ours_N.json gives them too

RANKS is GPT-2's .tiktoken.gz; FOLDER holds ours_gpt2.json and ours_llama3.json, as Lehr wrote them.
Writes there strings.bin, and for each judge the ids of every string: records of a little-endian
uint32 length, then so many bytes (strings) or uint32 ids; and theirs_*.json, as Hugging Face writes
its own tokenizer of the same ranks. Characters are those that Unicode 14 knows, as PCRE2 10.42 does.
"""
import array
import base64
import gzip
import os
import random
import sys
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
          r"""|\s*[\r\n]+|\s+(?!\S)|\s+""")
SPECIAL = "<|endoftext|>"


def characters():
    by_category = {}
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        if category not in ("Cs", "Cn", "Co"):
            by_category.setdefault(category, []).append(chr(code))
    return by_category


def random_strings(count, draw):
    known = characters()
    categories = sorted(known)
    scripts = [range(*r) for r in ((0x61, 0x7b), (0x41, 0x5b), (0x3b1, 0x3ca), (0x430, 0x450), (0x5d0, 0x5eb),
                                   (0x627, 0x64b), (0x905, 0x93a), (0x3041, 0x3097), (0x4e00, 0x9fa6),
                                   (0xac00, 0xd7a4), (0x1f600, 0x1f650), (0x30, 0x3a))]
    spaces = " \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u180e\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
    words = ["the", " of", "don't", "I'LL", "we've", "it'S", "o'clock", "'\u017f", "\u212a'd", "'re", "''m", "1234567",
             "3.14", "\u0661\u0662\u0663\u0664", "x\u00b2", "\u2167", "e\u0301\u0302", "\U0001f469\u200d\U0001f4bb",
             "\U0001f1e9\U0001f1ea", "\ufffd", "\ufffe", "\ue000", "\u0000", "...", "--", "=>", "\r\n", "\n\n", "  ",
             "\t\t", "http://a.b/c?d=e", SPECIAL, "<|endof", "|>"]

    def piece():
        kind = draw.randrange(10)
        if kind < 3:
            script = draw.choice(scripts)
            return "".join(chr(draw.choice(script)) for _ in range(draw.randrange(1, 9)))
        if kind < 5:
            return draw.choice(words)
        if kind < 6:
            return "".join(draw.choice(spaces) for _ in range(draw.randrange(1, 6)))
        if kind < 7:
            return " " * draw.randrange(1, 5)
        if kind < 8:
            return "".join(draw.choice(known[draw.choice(categories)]) for _ in range(draw.randrange(1, 5)))
        if kind < 9:
            return draw.choice("'.,;:!?()[]{}<>@#$%^&*-_=+|/\\\"`~") * draw.randrange(1, 4)
        return draw.choice(" \n") + "".join(chr(draw.randrange(97, 123)) for _ in range(draw.randrange(1, 12)))

    for _ in range(count):
        yield "".join(piece() for _ in range(draw.randrange(0, 14)))
    for letters, length in (("ab", 5000), ("a", 20000), (" ", 5000), ("\n", 5000), (" \n", 5000), ("7", 5000),
                            ("-=", 5000), ("\u4e00\u4e01", 3000), ("a\u0301", 3000)):
        yield "".join(draw.choice(letters) for _ in range(length))


def merges_of(ranks):
    """the merge that makes each token, in order: the last one of merging its bytes by lower ranks"""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], 1 << 30))
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            merges.append(tuple(parts))
    return merges


def hugging_face(ranks, merges, pattern):
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letter = {b: chr(b) for b in visible}
    letter.update({b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in visible)})
    spell = lambda token: "".join(letter[b] for b in token)
    tokenizer = Tokenizer(models.BPE({spell(t): r for t, r in ranks.items()},
                                     [(spell(a), spell(b)) for a, b in merges]))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tokenizer.pre_tokenizer = byte_level if pattern is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(SPECIAL, normalized=False)])
    return tokenizer


def write(path, records):
    with open(path, "wb") as file:
        for record in records:
            data = record if isinstance(record, bytes) else array.array("I", record).tobytes()
            file.write(len(record).to_bytes(4, "little") + data)


def main(ranks_file, folder, count, seed=None):
    ranks = {}
    for line in gzip.open(ranks_file):
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    merges = merges_of(ranks) if seed is None else []
    strings = list(random_strings(count, random.Random(seed or 1)))
    write(folder + "/strings.bin", [s.encode() for s in strings])
    for name, pattern in (("gpt2", GPT2), ("llama3", LLAMA3)):
        judge = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={SPECIAL: len(ranks)})
        write(f"{folder}/tiktoken_{name}.bin", (judge.encode(s, allowed_special="all") for s in strings))
        if name == "gpt2":
            write(f"{folder}/tiktoken_plain.bin", (judge.encode_ordinary(s) for s in strings))
        if seed is not None:
            continue
        theirs = hugging_face(ranks, merges, None if name == "gpt2" else pattern)
        theirs.save(f"{folder}/theirs_{name}.json")
        ours = Tokenizer.from_file(f"{folder}/ours_{name}.json")
        for owner, tokenizer in (("theirs", theirs), ("ours", ours)):
            encoded = tokenizer.encode_batch_fast(strings, add_special_tokens=False)
            write(f"{folder}/{owner}_{name}.bin", (e.ids for e in encoded))
            for s, e in list(zip(strings, encoded))[:500]:
                assert tokenizer.decode(e.ids, skip_special_tokens=False) == s, s


def added_strings(draw):
    words = ["the", "lehr", "lehrs", "mol", "<mol>", "<mol>s", "gram", "gramme", "[x]", "<s>", "</s>", "<|end|>", "_", "9",
             " ", "  ", "\n", "\u00a0", "\u3000", "\u0301", "\u00e9", "\u4e00", ",", "-", "\u200d"]
    for _ in range(1500):
        yield "".join(draw.choice(words) for _ in range(draw.randrange(0, 9)))


def added(folder, mode):
    draw = random.Random(7)
    strings = list(added_strings(draw))
    if mode == "make":
        write(folder + "/strings.bin", [s.encode() for s in strings])
    for kind in range(6):
        if mode == "make":
            tokenizer = Tokenizer(models.BPE(ignore_merges=kind % 2 == 1))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            if kind % 2:
                tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                    [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
            tokenizer.decoder = decoders.ByteLevel()
            special = ["<s>", "</s>", "<|end|>"]
            tokenizer.train_from_iterator(["the lehr the gramme the mol lehrs"] * 5, trainers.BpeTrainer(
                vocab_size=290, special_tokens=special if kind < 3 else [], show_progress=False,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
            flags = lambda: dict(single_word=draw.random() < .4, lstrip=draw.random() < .4, rstrip=draw.random() < .4,
                                 normalized=draw.random() < .5)
            tokenizer.add_special_tokens([AddedToken(name, **flags()) for name in special])
            tokenizer.add_tokens([AddedToken(name, **flags()) for name in
                                  draw.sample(["<mol>", "<mol>s", "gramme", "gram", "[x]", "lehr", " the", "\u00e9"], 5)])
            if kind in (1, 4):
                tokenizer.post_processor = processors.TemplateProcessing(
                    single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
            tokenizer.save(f"{folder}/{kind}.json")
        names = [kind] if mode == "make" else [kind, f"ours_{kind}"]
        tokenizers = [Tokenizer.from_file(f"{folder}/{name}.json") for name in names]
        for as_text in (True, False):
            answers = []
            for tokenizer in tokenizers:
                tokenizer.encode_special_tokens = as_text
                answers.append([tokenizer.encode(s).ids for s in strings])
            if mode == "make":
                write(f"{folder}/{kind}_{'plain' if as_text else 'special'}.bin", answers[0])
            else:
                assert answers[0] == answers[1], (kind, as_text)


if sys.argv[1] == "added":
    added(*sys.argv[2:])
else:
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
