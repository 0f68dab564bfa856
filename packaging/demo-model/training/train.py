#!/usr/bin/env python3
"""Text encoder and U-Net of the demo model: Stable Diffusion 1.x topology, narrow, trained on captioned emoji latents.
Built from the reference's own classes (diffusers 0.6.0, transformers 4.23.1), so the result is a standard model directory.
usage: train.py DATA.npz VAE.pt OUTDIR MINUTES [--resume STATE.pt]"""

import argparse
import json
import os
import random
import re
import shutil
import time
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel, PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
import subset
import vae as V
from muon import Muon
from ref060 import mend

WIDTH, LAYERS, HEADS, CH, GROUPS = 128, 3, 4, (64, 128, 160, 160), 16
COLOURS = "red orange yellow green blue purple brown black white".split()


def bytes_to_unicode():
    bs = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    cs = bs[:]
    n = 0
    for b in range(256):
        if b not in bs:
            bs.append(b)
            cs.append(256 + n)
            n += 1
    return {b: chr(c) for b, c in zip(bs, cs)}


def make_tokenizer(path, names, kws, merges=1536):
    """Byte-level BPE in CLIP's file layout: 256 bytes, 256 bytes + </w>, merges, start, end."""
    b2u = bytes_to_unicode()
    words = {}
    for n, k in zip(names, kws):
        for t, w in [(n, 4)] + [(x, 1) for x in k]:
            for m in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", t.lower()):
                key = tuple(b2u[b] for b in m.encode())
                key = key[:-1] + (key[-1] + "</w>",)
                words[key] = words.get(key, 0) + w
    for w in ["a", "an", "of", "the", "emoji", "picture", "drawing", "face"] + COLOURS:
        key = tuple(w[:-1]) + (w[-1] + "</w>",)
        words[key] = words.get(key, 0) + 50
    rules = []
    while len(rules) < merges:
        c = {}
        for w, n in words.items():
            for p in zip(w, w[1:]):
                c[p] = c.get(p, 0) + n
        if not c:
            break
        best = max(c, key=lambda p: (c[p], p))
        if c[best] < 3:
            break
        rules.append(best)
        new = {}
        for w, n in words.items():
            o, i = [], 0
            while i < len(w):
                if i + 1 < len(w) and (w[i], w[i + 1]) == best:
                    o.append(w[i] + w[i + 1])
                    i += 2
                else:
                    o.append(w[i])
                    i += 1
            new[tuple(o)] = new.get(tuple(o), 0) + n
        words = new
    base = list(b2u.values())
    v = (
        base
        + [x + "</w>" for x in base]
        + [x + y for x, y in rules]
        + ["<|startoftext|>", "<|endoftext|>"]
    )
    os.makedirs(path, exist_ok=True)
    json.dump(
        {w: i for i, w in enumerate(v)},
        open(path + "/vocab.json", "w", encoding="utf-8"),
        ensure_ascii=False,
    )
    open(path + "/merges.txt", "w", encoding="utf-8").write(
        "#version: 0.2\n" + "\n".join(x + " " + y for x, y in rules) + "\n"
    )
    json.dump(
        dict(
            model_max_length=77,
            tokenizer_class="CLIPTokenizer",
            do_lower_case=True,
            bos_token="<|startoftext|>",
            eos_token="<|endoftext|>",
            pad_token="<|endoftext|>",
            unk_token="<|endoftext|>",
            add_prefix_space=False,
            errors="replace",
        ),
        open(path + "/tokenizer_config.json", "w"),
        indent=2,
    )
    return len(v)


def build(n_vocab):
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=n_vocab,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=n_vocab - 2,
            eos_token_id=n_vocab - 1,
            pad_token_id=n_vocab - 1,
        )
    )
    unet = mend(
        UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=CH,
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=HEADS,
            norm_num_groups=GROUPS,
        )
    )
    vae = mend(
        AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=V.CH,
            layers_per_block=V.LAYERS,
            act_fn="silu",
            latent_channels=4,
            norm_num_groups=V.GROUPS,
            sample_size=128,
        )
    )
    return text, unet, vae


def fold_scale(vae, k):
    """diffusers 0.6.0 fixes the latent factor at 0.18215: put the rest of the scale into the two 1x1 convolutions."""
    with torch.no_grad():
        vae.quant_conv.weight[:4] *= k
        vae.quant_conv.bias[:4] *= k
        vae.quant_conv.bias[4:] += 2 * np.log(k)
        vae.post_quant_conv.weight /= k


def save_model(out, text, unet, vae, tok):
    """fp16 safetensors in Hugging Face's layout and names."""

    def put(m, path, cfg):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        save_file(
            {
                k: v.detach().half().contiguous()
                for k, v in m.state_dict().items()
                if "position_ids" not in k
            },
            path,
            metadata={"format": "pt"},
        )
        json.dump(
            cfg,
            open(os.path.dirname(path) + "/config.json", "w"),
            indent=2,
            sort_keys=True,
            default=list,
        )

    def conf(m, cls):
        return {
            **{k: v for k, v in dict(m.config).items() if k != "_name_or_path"},
            "_class_name": cls,
            "_diffusers_version": "0.6.0",
        }

    put(
        text,
        out + "/text_encoder/model.safetensors",
        {k: v for k, v in text.config.to_diff_dict().items()}
        | dict(
            architectures=["CLIPTextModel"],
            num_attention_heads=HEADS,
            num_hidden_layers=LAYERS,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            hidden_act="quick_gelu",
            layer_norm_eps=1e-5,
            max_position_embeddings=77,
        ),
    )
    put(unet, out + "/unet/diffusion_pytorch_model.safetensors", conf(unet, "UNet2DConditionModel"))
    put(vae, out + "/vae/diffusion_pytorch_model.safetensors", conf(vae, "AutoencoderKL"))
    os.makedirs(out + "/scheduler", exist_ok=True)
    json.dump(
        dict(
            _class_name="PNDMScheduler",
            _diffusers_version="0.6.0",
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            num_train_timesteps=1000,
            set_alpha_to_one=False,
            skip_prk_steps=True,
            steps_offset=1,
            trained_betas=None,
            clip_sample=False,
        ),
        open(out + "/scheduler/scheduler_config.json", "w"),
        indent=2,
    )
    json.dump(
        dict(
            _class_name="StableDiffusionPipeline",
            _diffusers_version="0.6.0",
            scheduler=["diffusers", "PNDMScheduler"],
            text_encoder=["transformers", "CLIPTextModel"],
            tokenizer=["transformers", "CLIPTokenizer"],
            unet=["diffusers", "UNet2DConditionModel"],
            vae=["diffusers", "AutoencoderKL"],
            safety_checker=[None, None],
            feature_extractor=[None, None],
        ),
        open(out + "/model_index.json", "w"),
        indent=2,
    )


def sample(out, text, unet, vae, tok, prompts, name, seed=0, steps=20, guidance=5.0):
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tok,
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
    )
    pipe.set_progress_bar_config(disable=True)
    im = pipe(
        prompts,
        height=128,
        width=128,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images
    from PIL import Image

    n = 8
    rows = [np.concatenate(list(im[i : i + n]), 1) for i in range(0, len(im), n)]
    Image.fromarray((np.concatenate(rows, 0) * 255).round().astype("uint8")).save(
        f"{out}/{name}.png"
    )


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("data")
    ap.add_argument("vae")
    ap.add_argument("out")
    ap.add_argument("minutes", type=float)
    ap.add_argument("--resume")
    ap.add_argument("--batch", type=int, default=48)
    ap.add_argument("--lr", type=float, default=0.01)
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--state", default="state.pt")
    ap.add_argument(
        "--temper",
        type=float,
        help="last phase: the empty caption learns the posterior mean over all pictures at this temperature, a caption moves only part of the way to its picture while noise is high (as a large model would), so that usual guidance keeps its colours",
    )
    a = ap.parse_args()
    random.seed(time.time())
    torch.manual_seed(0)
    d = np.load(a.data)
    pick = subset.indices([str(x) for x in d["names"]])
    names = [str(d["names"][i]) for i in pick]
    kws = [
        [k for k in str(d["keywords"][i]).split("|") if k and k != str(d["names"][i])] for i in pick
    ]
    n_vocab = make_tokenizer(a.out + "/tokenizer", names, kws)
    tok = CLIPTokenizer.from_pretrained(a.out + "/tokenizer")
    print("vocab", n_vocab, tok("a red apple")["input_ids"])
    text, unet, vae = build(n_vocab)
    vae.load_state_dict({k: v.float() for k, v in torch.load(a.vae).items()})
    x = torch.from_numpy(d["images"])[pick].permute(0, 3, 1, 2)
    with torch.no_grad():

        def enc():
            return [
                vae.encode(x[i : i + 32].float() / 127.5 - 1).latent_dist
                for i in range(0, len(x), 32)
            ]

        std = torch.cat([e.mean for e in enc()]).std().item()
        fold_scale(vae, 1 / (0.18215 * std))
        q = enc()
        mean, sdev = (
            torch.cat([e.mean for e in q]) * 0.18215,
            torch.cat([e.std for e in q]) * 0.18215,
        )
    print(
        "latents",
        tuple(mean.shape),
        "std before",
        std,
        "after",
        mean.std().item(),
        "noise",
        sdev.mean().item(),
    )

    def caption(i):
        n, k = names[i], kws[i]
        r = random.random()
        if r < (0.30 if a.temper else 0.10):
            return ""
        if r < 0.65:
            return n
        if r < 0.75:
            return random.choice(("a ", "an emoji of ", "a picture of ", "a drawing of ")) + n
        if r < 0.80:
            return n + " emoji"
        return n + ", " + ", ".join(random.sample(k, min(len(k), random.randint(1, 2)))) if k else n

    cache = {}

    def ids(s):
        if s not in cache:
            cache[s] = tok(
                s, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
            ).input_ids[0]
        return cache[s]

    named = [("text." + n, p) for n, p in text.named_parameters()] + [
        ("unet." + n, p) for n, p in unet.named_parameters()
    ]
    params = [p for _, p in named]
    print(
        "unet",
        sum(p.numel() for p in unet.parameters()) / 1e6,
        "text",
        sum(p.numel() for p in text.parameters()) / 1e6,
        "vae",
        sum(p.numel() for p in vae.parameters()) / 1e6,
        "M",
    )
    ema = [p.detach().clone() for p in params]
    step = 0
    if a.resume:
        s = torch.load(a.resume)
        [p.data.copy_(v.float()) for p, v in zip(params, s["ema"])]
        ema = [p.detach().clone() for p in params]
        step = s["step"]
        print("resumed at", step)
    opt = Muon(named, a.lr, a.lr / 10)
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    snr = abar / (1 - abar)
    unet = unet.to(memory_format=torch.channels_last)
    fwd = (
        torch.compile(lambda z, t, c: unet(z, t, c).sample)
        if a.compile
        else lambda z, t, c: unet(z, t, c).sample
    )
    t0 = time.time()
    T = a.minutes * 60
    acc = n_acc = 0
    start = step
    last = t0

    def export():
        live = [p.detach().clone() for p in params]
        with torch.no_grad():
            for p, e in zip(params, ema):
                p.copy_(e)
        save_model(a.out, text, unet, vae, tok)
        torch.save(dict(ema=[e.half() for e in ema], step=step), a.state)
        r = torch.get_rng_state()
        sample(
            a.out,
            text,
            unet,
            vae,
            tok,
            [
                "fox",
                "red apple",
                "crescent moon",
                "pizza",
                "rocket",
                "smiling face with sunglasses",
                "blue heart",
                "penguin",
            ],
            "samples",
            guidance=7.5,
        )
        torch.set_rng_state(r)
        with torch.no_grad():
            for p, l in zip(params, live):
                p.copy_(l)

    while time.time() - t0 < T:
        f = (time.time() - t0) / T
        k = min(1, (step - start + 1) / 100) * min(1, (1 - f) / 0.6 + 0.01)
        i = torch.randint(len(names), (a.batch,))
        z = mean[i] + sdev[i] * torch.randn_like(mean[i])
        eps = torch.randn_like(z)
        t = torch.randint(1000, (a.batch,))
        ab = abar[t].view(-1, 1, 1, 1)
        caps = [caption(j) for j in i.tolist()]
        ctx = text(input_ids=torch.stack([ids(c) for c in caps]))[0]
        e = fwd(
            (ab.sqrt() * z + (1 - ab).sqrt() * eps).contiguous(memory_format=torch.channels_last),
            t,
            ctx,
        )
        goal = eps
        if a.temper:
            xt = ab.sqrt() * z + (1 - ab).sqrt() * eps
            d2 = (
                (xt.flatten(1)[:, None] - ab.sqrt().view(-1, 1, 1) * mean.flatten(1)[None]) ** 2
            ).sum(-1)
            blur = (
                torch.softmax(-d2 / (2 * (1 - ab).view(-1, 1) * a.temper), 1) @ mean.flatten(1)
            ).view_as(z)
            sure = torch.tensor([float(bool(c)) for c in caps]) * (1 - 0.8 * (t - 200) / 500).clamp(
                0.2, 1
            )
            goal = (xt - ab.sqrt() * (blur + sure.view(-1, 1, 1, 1) * (z - blur))) / (1 - ab).sqrt()
        w = snr[t].clamp(max=5) / snr[t]
        l = ((e - goal) ** 2).mean((1, 2, 3))
        loss = (w * l).mean()
        opt.zero_grad()
        loss.backward()
        opt.step(k)
        step += 1
        acc += l.mean().item()
        n_acc += 1
        dec = min(0.998, (step - start + 1) / (step - start + 20))
        with torch.no_grad():
            torch._foreach_lerp_(ema, [p.detach() for p in params], 1 - dec)
        if step % 50 == 0:
            print(step, f"{time.time()-t0:.0f}s eps loss {acc/n_acc:.4f} lr x{k:.3f}", flush=True)
            acc = n_acc = 0
        if time.time() - last > 900:
            export()
            last = time.time()
    export()


if __name__ == "__main__":
    main()
