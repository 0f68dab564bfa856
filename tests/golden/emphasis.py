"""The attention syntax, chunks and weights of AUTOMATIC1111's web UI, from its documented rules.

Written from the behaviour of web UI 1.10 (modules/prompt_parser.py, sd_hijack_clip.py, sd_emphasis.py,
"Original" emphasis, comma padding 20), independently of the C side: regular expressions and lists
here, one walk over code points there. One rule differs on purpose, here and there: a BREAK within
brackets is a BREAK.
"""

import random
import re

import torch

BACKTRACK = 20  # tokens between the last comma and the end of a chunk that may move on
BREAK = object()

NUMBER = re.compile(r":\s*([+-]?[.0-9]+)\s*\)")
PLAIN = re.compile(r"[^\\()\[\]:]+")
STOP = re.compile(r"\s*\bBREAK\b\s*")


def split_breaks(text):
    """Text and BREAKs between."""
    pieces = STOP.split(text)
    out = [(pieces[0], 1.0)]
    for piece in pieces[1:]:
        out += [(BREAK, 1.0), (piece, 1.0)]
    return out


def parse(text, brackets=True, breaks=True):
    """[(text or BREAK, weight)]"""
    parts, opened = [], {"(": [], "[": []}

    def plain(piece):
        parts.extend([p, w] for p, w in (split_breaks(piece) if breaks else [(piece, 1.0)]))

    def close(start, factor):
        for part in parts[start:]:
            part[1] *= factor

    i = 0 if brackets else len(text)
    if not brackets:
        plain(text)
    while i < len(text):
        c, number, run = text[i], NUMBER.match(text, i), PLAIN.match(text, i)
        step = 1
        if c == "\\":
            escaped = text[i + 1 : i + 2]
            escaped = escaped if escaped and escaped in "()[]\\" else ""
            parts.append([escaped, 1.0])
            step += len(escaped)
        elif c in "([":
            opened[c].append(len(parts))
        elif number and opened["("]:
            close(opened["("].pop(), float(number[1]))
            step = len(number[0])
        elif c == ")" and opened["("]:
            close(opened["("].pop(), 1.1)
        elif c == "]" and opened["["]:
            close(opened["["].pop(), 1 / 1.1)
        elif number or run:
            plain((number or run)[0])
            step = len((number or run)[0])
        else:
            plain(c)
        i += step
    for start in opened["("]:
        close(start, 1.1)
    for start in opened["["]:
        close(start, 1 / 1.1)
    joined = [["", 1.0]] if not parts else parts[:1]
    for piece, weight in parts[1:]:
        last = joined[-1]
        if BREAK not in (piece, last[0]) and last[1] == weight:
            last[0] += piece
        else:
            joined.append([piece, weight])
    return joined


def tokens_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]


def chunks(tokenizer, prompt, syntax, long_prompt, limit=77):
    """[(ids, weights)] of each chunk, framed and padded."""
    size = limit - 2
    comma = tokenizer.get_vocab().get(",</w>")
    done, ids, weights, last_comma = [], [], [], None

    def finish():
        nonlocal ids, weights, last_comma
        rest = size - len(ids)
        done.append(
            (
                [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
                + [tokenizer.pad_token_id] * rest,
                [1.0, *weights, 1.0] + [1.0] * rest,
            )
        )
        ids, weights, last_comma = [], [], None

    cut = long_prompt == "truncate"
    dropping = False
    parsed = parse(prompt, syntax == "weighted", syntax == "weighted" or not cut)
    for text, weight in parsed:
        if text is BREAK:
            finish()
            dropping = False
            continue
        for token in [] if dropping else tokens_of(tokenizer, text):
            if cut and len(ids) == size:
                dropping = True
                break
            if token == comma:
                last_comma = len(ids)
            elif (
                len(ids) == size and last_comma is not None and len(ids) - last_comma <= BACKTRACK
            ):
                moved = ids[last_comma + 1 :], weights[last_comma + 1 :]
                ids, weights = ids[: last_comma + 1], weights[: last_comma + 1]
                finish()
                ids, weights = moved
            if len(ids) == size:
                finish()
            ids.append(token)
            weights.append(weight)
    if ids or not done:
        finish()
    return done


def pad(tokenizer, sides):
    """All sides with as many chunks as the longest."""
    empty = chunks(tokenizer, "", "plain", "truncate")
    most = max(len(s) for s in sides)
    return [s + empty * (most - len(s)) for s in sides]


def encode(model, sides, skip=0):
    """tokens [R, 77 * chunks], text [R, 77 * chunks, C] of padded sides."""
    rows = []
    for side in sides:
        parts = []
        for ids, weights in side:
            out = model.text(torch.tensor([ids]), output_hidden_states=True)
            z = model.text.text_model.final_layer_norm(out.hidden_states[-1 - skip]) if skip else out[0]
            before = z.double().mean()
            z = z * torch.tensor(weights)[None, :, None]
            parts.append((z.double() * (before / z.double().mean())).float())
        rows.append(torch.cat(parts, 1))
    tokens = [[i for ids, _ in side for i in ids] for side in sides]
    return torch.tensor(tokens).int(), torch.cat(rows)


# fmt: off
PROMPTS = [
    "", "a red fox", "a (red) fox", "a (red:1.3) fox", "a [red] fox", "((a)) (((b))) [[c]]", "(a (b:1.5) c:0.5)",
    "(a [b (c:2) d] e)", r"a \(red\) fox", r"a \[red\] \\ fox", r"a \red fox\\", "(a", "[a", "a)", "a]", "(a (b [c",
    "a:1.2)", "a :1.2", "(a:1.2", "(a: 1.2 )", "(a:+1.5)", "(a:-0.5)", "(a:.5)", "(a:2.)", "(a:b)", "(a:1.2 b)", "(a::1.2)",
    "()", "(:1.2)", "[]", "(())", "([a])", "([a:1.2])", "[(a]b)", "(a[b)c]", "x(y)z", "foo(bar:1.1)baz", "(fox)(fox)", "(fox)[fox]",
    "a BREAK b", "BREAK", "BREAK BREAK", "a BREAK", "BREAK a", "a break b", "aBREAK b", "a BREAKb", "a_BREAK", "a,BREAK,b", "éBREAK",
    "BREAKé", "1BREAK", "a\nBREAK\tb", "(a BREAK b:1.2)", "(BREAK)", "(a)BREAK(b)", r"a\BREAK b", "a:BREAK:b", "[x BREAK (y:1.4)]",
    "(a:0)", "(a:1)", "(a:1.0) b", "(red fox:1.2), (snow:0.8), [night], oil painting", "(ΣΊΣΥΦΟΣ:1.2) (狐) [🦊]", "(a　:　1.2　)",
    "(masterpiece), (best quality:1.4), [[blurry]], a \\(tiny\\) dragon", "a) (b", "a] [b", "((a:1.2)", "(a:1.2))", ":", "::)", "(:)",
]
WORDS = ["fox", "moon", "red", "a", "snow,", "sea", ",", "(", ")", "[", "]", ":1.2)", ":0.7)", " ", " ", "\\(", "\\", " BREAK ", "tree", ":"]
# fmt: on


def prompts():
    rng = random.Random(5)
    out = list(PROMPTS)
    for _ in range(120):
        out.append("".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 24))))
    for n in (53, 54, 55, 56, 74, 75):  # a comma 22 … 19, 1, 0 places before the end of a chunk
        out.append("fox " * n + ", " + "moon " * 30)
    for n in (74, 75, 76, 80, 150, 151, 230):
        for comma in (0, 9, 40):
            out.append(" ".join("fox," if comma and i % comma == comma - 1 else "fox" for i in range(n)))
        out.append("a BREAK (" + "moon " * n + ":1.2) BREAK " + "sea, " * (n // 2))
    return out


def rows(tokenizer):
    """What the C side must make of each prompt: parts, and chunks of every mode."""
    for text in prompts():
        row = {"p": text, "parts": [[None if p is BREAK else p, w] for p, w in parse(text)]}
        for syntax in ("plain", "weighted"):
            for long_prompt in ("truncate", "chunk"):
                done = chunks(tokenizer, text, syntax, long_prompt)
                # ids without their padding; weights in runs
                made = [[strip(ids), runs(weights)] for ids, weights in done]
                if made != row.get("plain.truncate"):  # as that, where it is missing
                    row[f"{syntax}.{long_prompt}"] = made
        yield row


def strip(ids):
    while len(ids) > 2 and ids[-1] == ids[-2]:
        ids = ids[:-1]
    return ids


def runs(weights):
    out = []
    for w in weights:
        if out and out[-1][1] == w:
            out[-1][0] += 1
        else:
            out.append([1, w])
    return out
