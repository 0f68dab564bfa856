"""Tokenizers in CLIP's layout, trained here on our own words."""

import collections
import itertools
import json
import os
import random
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import CLIPTokenizerFast
from transformers.models.clip.tokenization_clip import bytes_to_unicode

import words

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def corpus():
    """Text the merges are trained on: phrases, sentences in many scripts, names of characters."""
    rng = random.Random(1)
    for _ in range(4000):
        yield phrase(rng)
    for text in words.SCRIPTS.values():
        for _ in range(6):
            yield text
    for text in words.EMOJI:
        for _ in range(8):
            yield text
    for code in range(0x20, 0x3000):
        name = unicodedata.name(chr(code), "")
        yield name.lower()
        if name and unicodedata.category(chr(code))[0] in "LN":
            yield chr(code)


def phrase(rng):
    """A prompt of the usual kind."""
    parts = [rng.choice(words.SUBJECTS), rng.choice(words.PLACES)]
    parts[0] = " ".join(parts) if rng.random() < 0.7 else parts[0]
    return ", ".join(parts[:1] + rng.sample(words.STYLES, rng.randrange(4)))


def train_merges(count):
    """Plain byte pair encoding; the pair itself decides between equal counts: no chance in it."""
    norm = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True)
    to_char = bytes_to_unicode()
    pieces = collections.Counter()
    for text in corpus():
        pieces.update(p for p, _ in split.pre_tokenize_str(norm.normalize_str(text)))
    words_, counts = [], []
    for piece, n in sorted(pieces.items()):
        chars = [to_char[b] for b in piece.encode()]
        words_.append(chars[:-1] + [chars[-1] + "</w>"])
        counts.append(n)
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, word in enumerate(words_):
        for pair in zip(word, word[1:]):
            pairs[pair] += counts[i]
            where[pair].add(i)
    merges = []
    while len(merges) < count:
        best = max(pairs, key=lambda p: (pairs[p], p))
        if pairs[best] < 2:
            break
        merges.append(best)
        for i in sorted(where.pop(best)):
            old = words_[i]
            new = merge_pair(old, best)
            for pair in zip(old, old[1:]):
                pairs[pair] -= counts[i]
            for pair in zip(new, new[1:]):
                pairs[pair] += counts[i]
                where[pair].add(i)
            words_[i] = new
        pairs.pop(best)
    return merges


def merge_pair(word, pair):
    """The word with every occurrence of the pair merged, from the left."""
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def write_tokenizer(path, merges, style):
    """A tokenizer directory. style 0: as the demo's; 1: as SD 1.5's, vocabulary in ASCII."""
    os.makedirs(path, exist_ok=True)
    vocab = list(bytes_to_unicode().values())
    vocab += [c + "</w>" for c in vocab]
    vocab += [a + b for a, b in merges]
    vocab = list(dict.fromkeys(vocab)) + [BOS, EOS]
    with open(os.path.join(path, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({v: i for i, v in enumerate(vocab)}, f, ensure_ascii=style == 1)
    with open(os.path.join(path, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS}
    config = {
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        "pad_token": EOS,
    }
    if style == 1:
        flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        special = {k: {"content": v, **flags} for k, v in special.items()}
        typed = {k: {"__type": "AddedToken", **v} for k, v in special.items()}
        write_json(os.path.join(path, "special_tokens_map.json"), {**special, "pad_token": EOS})
        write_json(os.path.join(path, "tokenizer_config.json"), {**config, **typed})
    else:
        write_json(os.path.join(path, "tokenizer_config.json"), {**config, **special})
    return len(vocab)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, sort_keys=True)
        f.write("\n")


def load(path):
    return CLIPTokenizerFast.from_pretrained(path, local_files_only=True)


def encode(tokenizer, prompt):
    """BOS, at most 75 tokens, EOS, padding: 77 ids."""
    return tokenizer(prompt, padding="max_length", max_length=77, truncation=True)["input_ids"]
