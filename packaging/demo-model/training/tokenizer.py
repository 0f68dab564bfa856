"""The demo model's tokenizer: byte-level BPE in CLIP's file layout."""

import json
import os
import re
from collections import Counter

MERGES = 1536  # at most; a pair seen less than LEAST times is not merged
LEAST = 3
COLOURS = "red orange yellow green blue purple brown black white".split()
LEADS = "a an of the emoji picture drawing face".split()
END = "</w>"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
CONFIG = {
    "model_max_length": 77,
    "tokenizer_class": "CLIPTokenizer",
    "do_lower_case": True,
    "bos_token": BOS,
    "eos_token": EOS,
    "pad_token": EOS,
    "unk_token": EOS,
    "add_prefix_space": False,
    "errors": "replace",
}


def byte_characters():
    """The printable character that stands for each byte: itself, or one from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    codes = plain + [256 + i for i in range(len(others))]
    return {b: chr(code) for b, code in zip(plain + others, codes)}


def count_words(names, keywords, characters):
    """How often each word occurs, as {tuple of symbols: weight}; names weigh more."""
    words = Counter()
    for name, more in zip(names, keywords):
        for text, weight in [(name, 4)] + [(word, 1) for word in more]:
            for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower()):
                symbols = [characters[b] for b in word.encode()]
                words[(*symbols[:-1], symbols[-1] + END)] += weight
    for word in LEADS + COLOURS:
        words[(*word[:-1], word[-1] + END)] += 50
    return words


def merge(word, pair):
    """A word with every occurrence of a pair made one symbol, from the left."""
    merged, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return tuple(merged)


def learn_merges(words):
    """The most frequent pair first, ties to the greater pair, until MERGES or LEAST ends it."""
    rules = []
    while len(rules) < MERGES:
        pairs = Counter()
        for word, weight in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += weight
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        if pairs[best] < LEAST:
            break
        rules.append(best)
        merged = Counter()
        for word, weight in words.items():
            merged[merge(word, best)] += weight
        words = merged
    return rules


def make_tokenizer(path, names, keywords):
    """Writes vocab.json (bytes, bytes + </w>, merges, BOS, EOS), merges.txt and
    tokenizer_config.json into a folder; returns the number of entries."""
    characters = byte_characters()
    rules = learn_merges(count_words(names, keywords, characters))
    base = list(characters.values())
    entries = base + [c + END for c in base] + [a + b for a, b in rules] + [BOS, EOS]
    os.makedirs(path, exist_ok=True)
    with open(f"{path}/vocab.json", "w", encoding="utf-8") as f:
        json.dump({entry: i for i, entry in enumerate(entries)}, f, ensure_ascii=False)
    with open(f"{path}/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in rules))
    with open(f"{path}/tokenizer_config.json", "w", encoding="utf-8") as f:
        json.dump(CONFIG, f, indent=2)
    return len(entries)
