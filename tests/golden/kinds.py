#!/usr/bin/env python3
"""Models as they come, in small: SD 2, Turbo, LCM, single files; and whole runs of them.

    PYTHONPATH=SITE python3 kinds.py      (generate.py --only kinds does it)

Runs under diffusers 0.31.0 and is its own process for that. Writes models/kind-*/ and
cases/kind-*.{ini,safetensors}, the runs of its pipelines; and kinds/, for test-kinds."""

import os
import shutil

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

import ldm
import tokens
from models import fit_conv_out, randomise

HERE = os.path.dirname(os.path.abspath(__file__))
MERGES = 48

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PNDM = {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": True, "steps_offset": 1}
DDIM = {
    "_class_name": "DDIMScheduler",
    **BETAS,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
TRAILING = {"_class_name": "EulerDiscreteScheduler", **BETAS, "timestep_spacing": "trailing"}
CLASSES = {
    c.__name__: c for c in (PNDMScheduler, DDIMScheduler, EulerDiscreteScheduler, LCMScheduler)
}

# widths, layers, c with cross-attention and p plain; heads one a level; text: width, layers, heads
KINDS = {
    # 2.x: linear projections, heads a level, gelu, padding with id 0, v; shards and variants
    "kind-sd2": {
        "unet": {"widths": [8, 12], "layers": 1, "down": "cc", "up": "cc", "heads": [2, 3]},
        "more": {"use_linear_projection": True, "upcast_attention": True, "sample_size": 12},
        "groups": 4,
        "vae": {"widths": [8, 8], "layers": 1},
        "text": {"width": 24, "layers": 3, "heads": 3, "act": "gelu"},
        "scheduler": {**DDIM, "prediction_type": "v_prediction"},
        "pad": "!",
        "layout": "shards",
    },
    # Turbo: few steps, trailing, no guidance; bfloat16
    "kind-turbo": {
        "unet": {"widths": [8, 16], "layers": 1, "down": "cp", "up": "pc", "heads": [1, 2]},
        "more": {"use_linear_projection": True, "sample_size": 8},
        "groups": 8,
        "vae": {"widths": [8, 16], "layers": 1},
        "text": {"width": 16, "layers": 2, "heads": 2, "act": "gelu"},
        "scheduler": {**TRAILING, "prediction_type": "epsilon"},
        "pad": "!",
        "layout": "bf16",
    },
    # LCM: the guidance is an input; float32
    "kind-lcm": {
        "unet": {"widths": [12, 16], "layers": 1, "down": "cp", "up": "pc", "heads": [2, 2]},
        "more": {"time_cond_proj_dim": 32, "sample_size": 8},
        "groups": 4,
        "vae": {"widths": [8, 12], "layers": 1},
        "text": {"width": 16, "layers": 2, "heads": 2, "act": "quick_gelu"},
        "scheduler": {"_class_name": "LCMScheduler", **BETAS, "clip_sample": False},
        "layout": "f32",
    },
    # one file, everything from shapes: three levels of two layers, eight heads, gcd groups
    "kind-single-sd1": {
        "unet": {"widths": [8, 8, 16], "layers": 2, "down": "ccp", "up": "pcc", "heads": [8] * 3},
        "groups": 8,
        "vae": {"widths": [8, 8, 16], "layers": 2},
        "text": {"width": 16, "layers": 2, "heads": 1, "act": "quick_gelu"},
        "scheduler": PNDM,
        "layout": "single",
    },
    # one file with OpenCLIP's tower: wide heads, gelu, v; the tokenizer is only a vocabulary
    "kind-single-sd2": {
        "unet": {"widths": [8, 12], "layers": 1, "down": "cp", "up": "pc", "heads": [1, 3]},
        "more": {"use_linear_projection": True},
        "groups": 4,
        "vae": {"widths": [8, 12], "layers": 1},
        "text": {"width": 24, "layers": 2, "heads": 3, "act": "gelu"},
        "scheduler": {**DDIM, "prediction_type": "v_prediction"},
        "pad": "!",
        "layout": "single",
    },
    # one file, and a model.json that says everything else
    "kind-single-json": {
        "unet": {"widths": [12, 16], "layers": 1, "down": "cp", "up": "pc", "heads": [3, 2]},
        "groups": 2,
        "vae": {"widths": [8, 12], "layers": 1, "scale": 0.25},
        "text": {"width": 12, "layers": 2, "heads": 3, "act": "gelu"},
        "scheduler": {**TRAILING, "prediction_type": "v_prediction"},
        "layout": "single",
        "json": {
            "heads": [3, 2],
            "unet": {"norm_num_groups": 2},
            "vae": {"norm_num_groups": 2},
            "scaling_factor": 0.25,
            "text_encoder": {"hidden_act": "gelu", "num_attention_heads": 3},
            "prediction_type": "v_prediction",
            "scheduler": {
                "_class_name": "EulerDiscreteScheduler",
                "timestep_spacing": "trailing",
            },
        },
    },
    # one file of version 1 for inpainting: nine channels into the U-Net
    "kind-single-inpaint": {
        "unet": {"widths": [8, 12], "layers": 1, "down": "cp", "up": "pc", "heads": [8, 4]},
        "groups": 4,
        "in": 9,
        "vae": {"widths": [8, 12], "layers": 1},
        "text": {"width": 16, "layers": 1, "heads": 1, "act": "quick_gelu"},
        "scheduler": PNDM,
        "layout": "single",
    },
    # more positions than the tokenizer makes ids; a level without attention whose width does not
    # divide into the heads that the file gives for all; no block in the middle
    "kind-mixed": {
        "unet": {"widths": [12, 16], "layers": 1, "down": "pc", "up": "cp", "heads": 8},
        "more": {"mid_block_type": None, "time_embedding_dim": 20},
        "groups": 4,
        "vae": {"widths": [8, 8], "layers": 1},
        "text": {"width": 16, "layers": 1, "heads": 2, "act": "quick_gelu", "positions": 84},
        "scheduler": PNDM,
        "layout": "f16",
    },
}

# name: model, scheduler of ours or None: the model's, width, height, steps, guidance, seed, prompts
CASES = {
    "kind-sd2-ddim": ("kind-sd2", None, 24, 32, 10, 5, 42, "a red fox in deep snow", "blurry"),
    "kind-sd2-euler": ("kind-sd2", "euler", 32, 16, 6, 7.5, 0, "two swans", ""),
    "kind-turbo-1": ("kind-turbo", None, 16, 24, 1, 0, 7, "a paper crane", ""),
    "kind-turbo-4": ("kind-turbo", None, 24, 24, 4, 0, 42, "an owl with round glasses", ""),
    "kind-lcm-4": ("kind-lcm", None, 32, 16, 4, 8, 42, "a whale above the clouds", "not used"),
    "kind-lcm-1": ("kind-lcm", None, 16, 16, 1, 1.5, 0, "a clay teapot", ""),
    "kind-single-sd1": ("kind-single-sd1", None, 40, 24, 10, 2, 42, "a street market", "text"),
    "kind-single-sd2": ("kind-single-sd2", None, 24, 40, 8, 5, 0, "a sleeping cat", "low quality"),
    "kind-single-json": ("kind-single-json", None, 24, 16, 4, 3, 1, "seven candles", "one candle"),
    "kind-mixed": ("kind-mixed", None, 16, 24, 4, 3, 5, "a kingfisher on a branch", "a crow"),
}


def build(row, vocab, seed):
    """The three networks with weights as they are when rounded to half."""
    u, v, t = row["unet"], row["vae"], row["text"]
    kind = {"c": "CrossAttn{}Block2D", "p": "{}Block2D"}
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab,
            hidden_size=t["width"],
            intermediate_size=4 * t["width"],
            num_hidden_layers=t["layers"],
            num_attention_heads=t["heads"],
            hidden_act=t["act"],
            max_position_embeddings=t.get("positions", 77),
            bos_token_id=vocab - 2,
            eos_token_id=vocab - 1,
            pad_token_id=0 if row.get("pad") else vocab - 1,
            projection_dim=t["width"],
        )
    )
    unet = UNet2DConditionModel(
        block_out_channels=u["widths"],
        layers_per_block=u["layers"],
        down_block_types=[kind[c].format("Down") for c in u["down"]],
        up_block_types=[kind[c].format("Up") for c in u["up"]],
        attention_head_dim=u["heads"],
        norm_num_groups=row["groups"],
        cross_attention_dim=t["width"],
        in_channels=row.get("in", 4),
        **{"sample_size": 8, **row.get("more", {})},
    )
    vae = AutoencoderKL(
        block_out_channels=v["widths"],
        layers_per_block=v["layers"],
        down_block_types=["DownEncoderBlock2D"] * len(v["widths"]),
        up_block_types=["UpDecoderBlock2D"] * len(v["widths"]),
        norm_num_groups=row["groups"],
        latent_channels=4,
        scaling_factor=v.get("scale", 0.18215),
    )
    for i, model in enumerate((text, unet, vae)):
        randomise(model, seed + i).eval()
    vae.post_quant_conv.weight.data *= 0.15
    vae.decoder.conv_out.weight.data *= 0.6
    teach(unet, text, row, vocab, seed + 4)
    for model in (text, unet, vae):
        for p in model.parameters():
            p.data = p.data.to(torch.bfloat16 if row["layout"] == "bf16" else torch.half).float()
    return text, unet, vae


def guidance(unet, scale):
    dim = unet.config.time_cond_proj_dim
    if dim is None:
        return None
    return StableDiffusionPipeline.get_guidance_scale_embedding(
        None, torch.tensor([scale - 1.0]), embedding_dim=dim
    )


def teach(unet, text, row, vocab, seed):
    """The network roughly predicts what it should."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.tensor(
        [[vocab - 2] + [(37 * i + 11 * j) % (vocab - 2) for i in range(1, 77)] for j in range(2)]
    )
    context = text(ids)[0]
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    abar = torch.cumprod(1 - betas, 0)
    seen, rows, want = [], [], []
    hook = unet.conv_act.register_forward_hook(lambda m, i, o: seen.append(o))
    condition = guidance(unet, 8.0)
    for t in range(20, 1000, 70):
        small = torch.randn((2, 4, 4, 4), generator=g)
        x0 = torch.nn.functional.interpolate(small, size=(16, 16), mode="bilinear")
        noise = torch.randn((2, 4, 16, 16), generator=g)
        x = abar[t] ** 0.5 * x0 + (1 - abar[t]) ** 0.5 * noise
        more = torch.zeros((2, unet.config.in_channels - 4, 16, 16))
        unet(
            torch.cat([x, more], 1),
            t,
            context,
            timestep_cond=None if condition is None else condition.repeat(2, 1),
        )
        f = torch.nn.functional.unfold(seen.pop(), 3, padding=1)
        rows.append(f.permute(0, 2, 1).reshape(-1, f.shape[1]))
        v = abar[t] ** 0.5 * noise - (1 - abar[t]) ** 0.5 * x0
        is_v = row["scheduler"].get("prediction_type") == "v_prediction"
        want.append((v if is_v else noise).permute(0, 2, 3, 1).reshape(-1, 4))
    hook.remove()
    fit_conv_out(unet, rows, want)


# --- directories ----------------------------------------------------------------------------------


def as_stored(state, layout):
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}.get(layout, torch.float16)
    return {k: v.to(dtype).contiguous() for k, v in state.items()}


def save(path, state, layout):
    save_file(as_stored(state, layout), path, metadata={"format": "pt"})


def save_shards(folder, state, layout):
    """Two shards and their index, as save_pretrained writes them when a file grows too large."""
    keys, where = sorted(state), {}
    for k in range(2):
        name = f"diffusion_pytorch_model-0000{k + 1}-of-00002.safetensors"
        part = {key: state[key] for key in keys[k::2]}
        save(os.path.join(folder, name), part, layout)
        where.update({key: name for key in part})
    size = sum(2 * v.numel() for v in state.values())
    tokens.write_json(
        os.path.join(folder, "diffusion_pytorch_model.safetensors.index.json"),
        {"metadata": {"total_size": size}, "weight_map": where},
    )


def write_directory(path, row, text, unet, vae):
    layout = row["layout"]
    for folder, model in (("text_encoder", text), ("unet", unet), ("vae", vae)):
        here = os.path.join(path, folder)
        os.makedirs(here)
        config = model.config.to_diff_dict() if folder == "text_encoder" else None
        if config is None:
            model.save_config(here)
        else:
            tokens.write_json(
                os.path.join(here, "config.json"), {"architectures": ["CLIPTextModel"], **config}
            )
        stem = "model" if folder == "text_encoder" else "diffusion_pytorch_model"
        if layout == "shards" and folder == "unet":
            save_shards(here, model.state_dict(), layout)
        else:
            variant = ".fp16" if layout == "shards" and folder == "text_encoder" else ""
            name = stem + variant + ".safetensors"
            save(os.path.join(here, name), model.state_dict(), layout)
    CLASSES[row["scheduler"]["_class_name"]].from_config(row["scheduler"]).save_config(
        os.path.join(path, "scheduler")
    )
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.31.0",
        "scheduler": ["diffusers", row["scheduler"]["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if layout == "bf16":
        index["safety_checker"] = index["feature_extractor"] = [None, None]
    tokens.write_json(os.path.join(path, "model_index.json"), index)


def write_single(path, row, text, unet, vae, seed):
    g = torch.Generator().manual_seed(seed)
    v2 = row.get("pad") == "!"
    text_state = text.state_dict()
    file = {
        **(ldm.open_clip(text_state, g) if v2 else ldm.clip(text_state)),
        **ldm.unet(unet.state_dict(), unet.config),
        **ldm.vae(vae.state_dict(), len(row["vae"]["widths"])),
    }
    ldm.check(file, unet, vae, text, text_state)
    file = {**as_stored(file, "f16"), **ldm.leftovers(g)}
    if not v2:
        name = "cond_stage_model.transformer.text_model.embeddings.position_ids"
        file[name] = torch.arange(77)[None]
    save_file(file, os.path.join(path, row.get("file", "checkpoint.safetensors")))
    if "json" in row:
        tokens.write_json(os.path.join(path, "model.json"), row["json"])


def set_pad(folder, pad, is_silent):
    """The padding token in the tokenizer's file; or the vocabulary alone."""
    path = os.path.join(folder, "tokenizer_config.json")
    if is_silent:
        os.remove(path)
        return
    with open(path, encoding="utf-8") as f:
        text = f.read()
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace('"pad_token": "<|endoftext|>"', f'"pad_token": "{pad}"'))


# --- runs -----------------------------------------------------------------------------------------


def scheduler_of(name, row, path):
    """The model's, or another class with the keys of the model's file, as from_pretrained does."""
    if name is None:
        return CLASSES[row["scheduler"]["_class_name"]].from_config(row["scheduler"])
    return {"euler": EulerDiscreteScheduler}[name].from_pretrained(path, subfolder="scheduler")


def pipeline(kind, parts, tokenizer, scheduler):
    text, unet, vae = parts
    pipe = kind(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.check_inputs = lambda *a, **k: None  # it wants multiples of 8
    return pipe


def keeper(out):
    """A callback that keeps the latents of every step."""

    def keep(_pipe, i, _t, kept):
        out[f"latents.{i:03}"] = kept["latents"][0].clone()
        return {}

    return keep


def run(row, parts, tokenizer, path, case):
    text, unet, _vae = parts
    _, name, width, height, steps, scale, seed, prompt, negative = case
    pipe = pipeline(StableDiffusionPipeline, parts, tokenizer, scheduler_of(name, row, path))
    factor = 1 << (len(row["vae"]["widths"]) - 1)
    assert pipe.vae_scale_factor == factor
    is_guided = scale > 1 and unet.config.time_cond_proj_dim is None
    texts = [negative, prompt] if is_guided else [prompt]
    ids = torch.tensor([tokens.encode(tokenizer, p) for p in texts])
    shape = (1, 4, height // factor, width // factor)
    out = {
        "tokens": ids.int(),
        "text": text(ids)[0],
        "noise": torch.randn(shape, generator=torch.Generator().manual_seed(seed))[0],
    }
    image = pipe(
        prompt,
        height,
        width,
        num_inference_steps=steps,
        guidance_scale=scale,
        negative_prompt=negative if is_guided else None,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        callback_on_step_end=keeper(out),
    ).images[0]
    out["image"] = torch.from_numpy(image)
    last = max(k for k in out if k.startswith("latents"))
    middle = f"latents.{int(last[-3:]) // 2:03}"
    drop = [k for k in out if k.startswith("latents") and k not in ("latents.000", middle, last)]
    for k in drop:
        del out[k]
    return {k: v.contiguous() for k, v in out.items()}


# For the run of the inpainting model: tests/pipeline/test-kinds.c makes the same picture and mask.
INPAINT = {"width": 24, "height": 32, "steps": 6, "scale": 3, "seed": 42, "prompt": "a red kite"}


def given_picture(width, height):
    """RGB, and a mask that is white where it is to be painted."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    rgb = ((x * 37 + y * 91 + c * 53) % 256).astype(np.uint8)
    paint = (x >= width // 4) & (x < 3 * width // 4) & (y >= height // 3)
    return Image.fromarray(rgb), Image.fromarray((255 * paint[:, :, 0]).astype(np.uint8))


def run_inpaint(row, parts, tokenizer, _path):
    pipe = pipeline(StableDiffusionInpaintPipeline, parts, tokenizer, scheduler_of(None, row, None))
    image, mask = given_picture(INPAINT["width"], INPAINT["height"])
    out = {}
    result = pipe(
        INPAINT["prompt"],
        image,
        mask,
        height=INPAINT["height"],
        width=INPAINT["width"],
        strength=1.0,
        num_inference_steps=INPAINT["steps"],
        guidance_scale=INPAINT["scale"],
        generator=torch.Generator().manual_seed(INPAINT["seed"]),
        output_type="np",
        callback_on_step_end=keeper(out),
    ).images[0]
    last = max(out)
    return {
        "latents.000": out["latents.000"],
        last: out[last],
        "image": torch.from_numpy(result).contiguous(),
    }


def ticket(case):
    model, name, width, height, steps, scale, seed, prompt, negative = case
    scheduler = f"scheduler = {name}\n" if name else ""
    return (
        f"[job]\nprompt = {prompt}\nnegative_prompt = {negative}\n"
        f"width = {width}\nheight = {height}\nsteps = {steps}\nguidance_scale = {scale:g}\n"
        f"seed = {seed}\n{scheduler}\n[golden]\nmodel = {model}\n"
    )


def main():
    assert diffusers.__version__ == "0.31.0", diffusers.__version__
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    merges = tokens.train_merges(MERGES)
    built = {}
    for i, (name, row) in enumerate(KINDS.items()):
        path = os.path.join(HERE, "models", name)
        shutil.rmtree(path, ignore_errors=True)
        folder = os.path.join(path, "tokenizer")
        vocab = tokens.write_tokenizer(folder, merges, 0)
        set_pad(folder, row.get("pad", "<|endoftext|>"), False)
        tokenizer = tokens.load(folder)
        if row["layout"] == "single" and "pad" in row:
            set_pad(folder, None, True)
        torch.manual_seed(0)
        parts = build(row, vocab, 5000 + 10 * i)
        if row["layout"] == "single":
            write_single(path, row, *parts, 5009 + 10 * i)
        else:
            write_directory(path, row, *parts)
        built[name] = (row, parts, tokenizer, path)
    for name, case in CASES.items():
        out = run(*built[case[0]], case)
        save_file(out, os.path.join(HERE, "cases", name + ".safetensors"))
        with open(os.path.join(HERE, "cases", name + ".ini"), "w", encoding="utf-8") as f:
            f.write(ticket(case))
    out = run_inpaint(*built["kind-single-inpaint"])
    os.makedirs(os.path.join(HERE, "kinds"), exist_ok=True)
    save_file(out, os.path.join(HERE, "kinds", "single-inpaint.safetensors"))


if __name__ == "__main__":
    main()
