"""Whole small runs of what prompts can be: lists, weights, chunks, clip_skip, learned words.

tokens and text as the reference makes them (emphasis.py for weights and chunks, diffusers 0.31.0
for clip_skip and learned words), then two steps of 0.6.0 with that text.
"""

import os

import torch
from safetensors.torch import save_file

import emphasis
import models
import text031
import tokens

WORDS_MODEL = "odd"  # has embeddings/

# fmt: off
DIGITS = "1234567890"
COMMAS = "a fox, " * 5 + DIGITS * 5 + ", over the long wall, " + DIGITS * 4

# rows of the ticket beside size, steps and seed; "model" is no row. Texts hold no "|".
CASES = {
    "weighted": {"model": "four", "prompt": "the (old lighthouse:1.3) under [heavy rain], ((ink on paper))",
        "negative_prompt": "(blurry:0.5), text", "prompt_syntax": "weighted"},
    "weighted-break": {"model": "four", "prompt": "(a fox BREAK:1.2) the (sea:0.6) BREAK [rain]",
        "prompt_syntax": "weighted"},
    "weighted-long": {"model": "two", "prompt": "(" + COMMAS + ":1.15), night",
        "negative_prompt": r"a \(small\) [frame:2], (low quality:1.4)", "prompt_syntax": "weighted",
        "long_prompt": "chunk"},
    "chunk": {"model": "odd", "prompt": COMMAS, "negative_prompt": "dull", "long_prompt": "chunk"},
    "chunk-break": {"model": "two", "prompt": "two swans", "negative_prompt": "a BREAK b, c BREAK d",
        "long_prompt": "chunk"},
    "chunk-alone": {"model": "two", "prompt": DIGITS * 9, "guidance_scale": 1, "long_prompt": "chunk"},
    "compat": {"model": "four", "prompt": DIGITS * 8, "negative_prompt": DIGITS * 9, "compat": "0.6"},
    "list": {"model": "four", "prompts": ["an owl", "", "seven candles"], "count": 2,
        "negative_prompt": "text"},
    "list-negatives": {"model": "odd", "prompts": ["an owl", "a paper crane"],
        "negative_prompts": ["red", "one candle, " + DIGITS * 9], "long_prompt": "chunk"},
    "skip-1": {"model": "three-layers", "prompt": "a wooden bridge", "negative_prompt": "an owl",
        "clip_skip": 1},
    "skip-3": {"model": "three-layers", "prompt": "a wooden bridge", "guidance_scale": 1, "clip_skip": 3},
    "skip-weighted": {"model": "four", "prompt": "a (wooden:1.4) bridge", "negative_prompt": "[an owl]",
        "clip_skip": 2, "prompt_syntax": "weighted"},
    "words": {"model": "odd", "prompt": "a <cat-toy> in a dull-hands frame, <OLD map>",
        "negative_prompt": "dull-hands, swirls"},
    "words-skip": {"model": "odd", "prompt": "Dull-Hands_1 <cat-toy><cat-toy>fox", "clip_skip": 1},
}
# fmt: on


def write_words(path, width):
    """MODEL/embeddings: every way a file may name its word."""
    g = torch.Generator().manual_seed(77)

    def draw(*shape):
        return (0.5 * torch.randn(shape, generator=g)).half()

    os.makedirs(path, exist_ok=True)
    for name, state in (
        ("cat-toy", {"<cat-toy>": draw(width).float()}),
        ("dull-hands", {"emb_params": draw(3, width)}),
        ("map", {"<OLD map>": draw(width).bfloat16()}),
        ("swirl", {"string_to_param.*": draw(2, width), "string_to_token.*": torch.tensor([265])}),
    ):
        save_file(state, os.path.join(path, name + ".safetensors"), metadata={"format": "pt"})
    with open(os.path.join(path, "README.txt"), "w", encoding="utf-8") as f:
        f.write("Words for tests/golden/texts.py.\n")


def sides(case, i):
    """The texts of prompt i, negative first, as far as they are needed."""
    prompt = case["prompts"][i] if "prompts" in case else case["prompt"]
    negative = case["negative_prompts"][i] if "negative_prompts" in case else None
    if case.get("guidance_scale", 2) <= 1:
        return [prompt]
    return [negative if negative is not None else case.get("negative_prompt", ""), prompt]


def chunked(model, case, texts):
    """By the rules of the web UI, or of 0.6.0."""
    modes = case.get("prompt_syntax", "plain"), case.get("long_prompt", "truncate")
    done = [emphasis.chunks(model.tokenizer, t, *modes) for t in texts]
    if case.get("compat") == "0.6":
        long = emphasis.tokens_of(model.tokenizer, texts[-1])
        if len(long) > 75:
            done[-1] = [([model.tokenizer.bos_token_id, *long[:76]], [1.0] * 77)]
    return done


def encode(model, path, site, case):
    """[(tokens, text)] of each prompt."""
    count = len(case.get("prompts", [0]))
    if path.endswith(WORDS_MODEL) and "<cat-toy>" in case.get("prompt", ""):
        jobs = [{"prompts": sides(case, 0), "skip": case.get("clip_skip", 0), "words": True}]
    elif "clip_skip" in case and "prompt_syntax" not in case:
        jobs = [{"prompts": sides(case, 0), "skip": case["clip_skip"], "words": False}]
    else:
        every = [chunked(model, case, sides(case, i)) for i in range(count)]
        rows = len(every[0])
        flat = emphasis.pad(model.tokenizer, [side for both in every for side in both])
        skips = [0] * (rows - 1) + [case.get("clip_skip", 0)]
        out = []
        for i in range(count):
            parts = [
                emphasis.encode(model, [side], skip)
                for side, skip in zip(flat[i * rows : (i + 1) * rows], skips)
            ]
            out.append(tuple(torch.cat(p) for p in zip(*parts)))
        return out
    return [
        (torch.from_numpy(t), torch.from_numpy(x)) for t, x in text031.encode(site, path, jobs)
    ]


def run(model, scheduler, path, site, case):
    """As cases.run, with a context for each prompt."""
    out, count, guidance = {}, case.get("count", 1), case.get("guidance_scale", 2)
    encoded = encode(model, path, site, case)
    for k in range(count * len(encoded)):
        prefix = f"{k}." if k else ""
        ids, text = encoded[k // count]
        if k % count == 0:
            out[prefix + "tokens"], out[prefix + "text"] = ids, text
        g = torch.Generator().manual_seed(9 + k)
        x = torch.randn((1, 4, 16 // model.factor, 24 // model.factor), generator=g)
        scheduler.set_timesteps(2)
        for i, t in enumerate(scheduler.timesteps):
            e = model.unet(torch.cat([x] * len(text)), t, encoder_hidden_states=text).sample
            if guidance > 1:
                e = e[:1] + guidance * (e[1:] - e[:1])
            x = scheduler.step(e, t, x).prev_sample
            out[prefix + f"latents.{i:03}"] = x[0].clone()
        image = model.vae.decode(1 / models.VAE_SCALE * x).sample
        out[prefix + "image"] = (image / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0)
    return {k: v.float().contiguous() if v.is_floating_point() else v for k, v in out.items()}


def ticket(case):
    rows = {"width": 24, "height": 16, "steps": 2, "guidance_scale": 2, "seed": 9}
    rows.update(scheduler="ddim", **case)
    del rows["model"]
    lines = []
    for key, value in rows.items():
        text = " | ".join(value) if isinstance(value, list) else str(value)
        assert len(text.encode()) < 175, "inih cuts long lines"
        lines.append(f"{key} = {text}\n")
    return "[job]\n" + "".join(lines) + f"\n[golden]\nmodel = {case['model']}\n"
