#!/usr/bin/env python3
"""Whole runs of every scheduler: text, image and inpainting, by the reference's own pipelines.

    [PYTHONPATH=SITE] python3 runs.py          (generate.py --only runs does both)

Under diffusers 0.31.0 it writes models/inpaint/ (a U-Net of nine channels) and the cases of today's
rules; under 0.6.0 those of compat = 0.6. Cases go to cases/run-*.{ini,safetensors}, the pictures and
masks they name beside them. Their models are small: `two` (factor 2) and `four` (factor 8).
"""

import functools
import inspect
import json
import os
import shutil

import diffusers
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

import tokens
from schedules import CLASSES

HERE = os.path.dirname(os.path.abspath(__file__))
IS_OLD = diffusers.__version__ == "0.6.0"
OLD = ("pndm", "ddim", "lms", "ddpm")
STEPS = 8
PROMPT, NEGATIVE = "a lighthouse by the sea", "blurry"

# A model of its own, because the others have four channels.
INPAINT = {
    "unet": {"widths": [8, 12], "layers": 1, "down": "cp", "up": "pc", "heads": [2, 3]},
    "more": {"sample_size": 8},
    "in": 9,
    "groups": 4,
    "vae": {"widths": [8, 12], "layers": 1},
    "text": {"width": 16, "layers": 2, "heads": 2, "act": "quick_gelu"},
    "layout": "f16",
}


def case(model, scheduler, mode, version="0.31.0", **rows):
    """`rows` are the ticket's; mode is text, image or mask."""
    # less of what half precision makes worse: estimates from pure noise, PNDM's repeated timestep
    scale = 2.0 if scheduler == "lcm" else 3.0 if version == "0.6.0" else 5.0
    rows = {"guidance_scale": scale, **rows}
    return {"model": model, "scheduler": scheduler, "mode": mode, "version": version, **rows}


def today():
    for s in CLASSES:
        yield f"two-text-{s}", case("two", s, "text")
        for strength in (0.3, 0.8, 1.0):
            yield f"two-image-{s}-{strength}", case("two", s, "image", strength=strength)
        for strength in (0.8, 1.0):
            yield f"two-mask-{s}-{strength}", case("two", s, "mask", strength=strength)
        yield f"inpaint-{s}", case("inpaint", s, "mask")
    yield "inpaint-euler-0.6", case("inpaint", "euler", "mask", strength=0.6)
    yield "two-eta", case("two", "ddim", "image", strength=0.8, eta=0.7)
    yield "two-mask-eta", case("two", "ddim", "mask", strength=0.8, eta=1.0)
    yield "two-v", case("two", "euler", "text", prediction="v", guidance_scale=1.0)
    yield "two-karras", case("two", "dpmpp-2m", "image", strength=0.6, sigmas="karras")
    yield "two-trailing", case("two", "ddim", "text", timestep_spacing="trailing")
    yield "two-unguided", case("two", "heun", "mask", strength=0.8, guidance_scale=1.0)
    for s in ("euler-a", "ddim"):
        yield f"two-stream-{s}", case(
            "two", s, "image", strength=0.8, count=2, batch_seed="stream", eta=0.5
        )
    yield "two-stream-mask", case("two", "euler-a", "mask", strength=0.8, count=2, batch_seed="stream")
    yield "two-each", case("two", "ddpm", "image", strength=0.8, count=2)


def compat():
    for s in OLD:
        for strength in (0.3, 0.8, 1.0):
            yield f"four-compat-image-{s}-{strength}", case(
                "four", s, "image", "0.6.0", strength=strength, compat="0.6"
            )
        yield f"four-compat-mask-{s}", case("four", s, "mask", "0.6.0", strength=0.8, compat="0.6")
    yield "four-compat-text-ddpm", case("four", "ddpm", "text", "0.6.0", compat="0.6")


# --- models ---------------------------------------------------------------------------------------


def read(path, folder, stem):
    """Configuration and weights, rounded to half as our engine does."""
    with open(os.path.join(path, folder, "config.json"), encoding="utf-8") as f:
        config = {k: v for k, v in json.load(f).items() if not k.startswith("_")}
    names = (stem + ".fp16.safetensors", stem + ".safetensors")
    state = next(
        load_file(p) for p in (os.path.join(path, folder, n) for n in names) if os.path.exists(p)
    )
    return config, {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()}


def today_names(state):
    """The VAE's attention under the names of today."""
    names = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
    out = {}
    for key, value in state.items():
        for old, new in names.items():
            key = key.replace(old, new)
        out[key] = value
    return out


class Today:
    """A model directory in classes of 0.31.0; like models.Model, which is for 0.6.0."""

    def __init__(self, path):
        self.tokenizer = tokens.load(os.path.join(path, "tokenizer"))
        config, state = read(path, "text_encoder", "model")
        self.text = CLIPTextModel(CLIPTextConfig(**config))
        self.text.load_state_dict({k: v for k, v in state.items() if "position_ids" not in k})
        config, state = read(path, "unet", "diffusion_pytorch_model")
        self.unet = diffusers.UNet2DConditionModel(**config)
        self.unet.load_state_dict(state)
        config, state = read(path, "vae", "diffusion_pytorch_model")
        self.vae = diffusers.AutoencoderKL(**config)
        self.vae.load_state_dict(today_names(state))
        self.factor = 1 << (len(config["block_out_channels"]) - 1)
        with open(os.path.join(path, "scheduler", "scheduler_config.json"), encoding="utf-8") as f:
            self.scheduler = json.load(f)
        for m in (self.text, self.unet, self.vae):
            m.eval()


def write_inpaint():
    import kinds

    row = {**INPAINT, "scheduler": kinds.PNDM}
    path = os.path.join(HERE, "models", "inpaint")
    shutil.rmtree(path, ignore_errors=True)
    merges = tokens.train_merges(kinds.MERGES)
    vocab = tokens.write_tokenizer(os.path.join(path, "tokenizer"), merges, 0)
    torch.manual_seed(0)
    kinds.write_directory(path, row, *kinds.build(row, vocab, 7000))


# --- pictures -------------------------------------------------------------------------------------


def picture(width, height):
    """A disc before a slope of colours, with some grain."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], 2)
    rgb[(x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2] = (230, 40, 90)
    rgb += 12 * np.sin(7 * x + 3 * y)[:, :, None]
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8), "RGB")


def mask(width, height):
    """White is painted anew: a slanted half, with a gray seam on either side of the threshold."""
    y, x = np.mgrid[0:height, 0:width]
    d = x + y / 2 - width * 0.7
    gray = np.where(d > 1, 255, np.where(d > 0, 128, np.where(d > -1, 127, 0)))
    return Image.fromarray(gray.astype(np.uint8), "L")


SIZES = {"two": (16, 16), "inpaint": (16, 16), "four": (64, 32)}


def names(model):
    """Files of the picture and the mask, written by either version alike."""
    width, height = SIZES[model]
    out = []
    for kind, draw in (("image", picture), ("mask", mask)):
        name = f"run-{kind}-{width}x{height}.png"
        draw(width, height).save(os.path.join(HERE, "cases", name), optimize=True)
        out.append(name)
    return out


# --- running --------------------------------------------------------------------------------------


def scheduler_for(case, model, generator):
    cls = getattr(diffusers, CLASSES[case["scheduler"]])
    config = {"clip_sample": False, **model.scheduler, "steps_offset": 1}
    if case.get("prediction") == "v":
        config["prediction_type"] = "v_prediction"
    config["use_karras_sigmas"] = case.get("sigmas") == "karras"
    if "timestep_spacing" in case:
        config["timestep_spacing"] = case["timestep_spacing"]
    known = inspect.signature(cls.__init__).parameters
    scheduler = cls(**{k: v for k, v in config.items() if k in known})
    if IS_OLD and case["scheduler"] == "ddpm":  # its pipelines forget to hand the generator on
        scheduler.step = functools.partial(scheduler.step, generator=generator)
    return scheduler


def pipeline_class(case):
    if case["mode"] == "text":
        return diffusers.StableDiffusionPipeline
    if case["mode"] == "image":
        return diffusers.StableDiffusionImg2ImgPipeline
    if IS_OLD:
        return diffusers.StableDiffusionInpaintPipelineLegacy
    return diffusers.StableDiffusionInpaintPipeline


def pipeline(case, model, generator):
    more = {} if IS_OLD else {"requires_safety_checker": False}
    pipe = pipeline_class(case)(
        vae=model.vae,
        text_encoder=model.text,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=scheduler_for(case, model, generator),
        safety_checker=None,
        feature_extractor=None,
        **more,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.check_inputs = lambda *a, **k: None  # today's wants multiples of 8
    assert IS_OLD or pipe.vae_scale_factor == model.factor
    return pipe


def inputs(case):
    width, height = SIZES[case["model"]]
    out = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS}
    out["guidance_scale"] = case["guidance_scale"]
    out["eta"] = case.get("eta", 0.0)
    if case["mode"] != "text":
        out["init_image" if IS_OLD else "image"] = picture(width, height)
        out["strength"] = case.get("strength", 1.0)
    if case["mode"] == "mask":
        out["mask_image"] = mask(width, height)
    if case["mode"] == "text" or (case["mode"] == "mask" and not IS_OLD):
        out.update(width=width, height=height)
    return out


def collect(seen, k, prefix, out):
    last = max(seen)
    for i in {0, last // 2, last}:
        out[f"{prefix}latents.{i:03}"] = seen[i][k].clone()


def run_once(case, model, seed, count):
    """The pipeline once: latents after every call, and pictures."""
    generator = torch.Generator().manual_seed(seed)
    pipe, seen = pipeline(case, model, generator), {}
    more = {"num_images_per_prompt": count, "generator": generator}
    if IS_OLD:
        more.update(output_type="numpy", callback=lambda i, t, x: seen.update({i: x.clone()}))
    else:

        def keep(_pipe, i, _t, kept):
            seen[i] = kept["latents"].clone()
            return {}

        more.update(output_type="np", callback_on_step_end=keep)
    return seen, torch.from_numpy(pipe(**inputs(case), **more).images)


def run(case, model, seed):
    count, out = case.get("count", 1), {}
    is_stream = case.get("batch_seed") == "stream"
    for k in range(count):
        prefix = f"{k}." if k else ""
        if not is_stream:
            seen, images = run_once(case, model, seed + k, 1)
        elif k == 0:
            seen, images = run_once(case, model, seed, count)
        collect(seen, k if is_stream else 0, prefix, out)
        out[prefix + "image"] = images[k if is_stream else 0]
    if not case.get("picture"):
        for name in [n for n in out if n.endswith("image")]:
            del out[name]
    return {k: v.float().contiguous() for k, v in out.items()}


def ticket(case, seed):
    width, height = SIZES[case["model"]]
    image, masked = names(case["model"])
    lines = [f"prompt = {PROMPT}", f"negative_prompt = {NEGATIVE}", f"steps = {STEPS}"]
    lines += [f"seed = {seed}", f"scheduler = {case['scheduler']}"]
    if case["mode"] == "text":
        lines += [f"width = {width}", f"height = {height}"]
    else:
        lines += [f"image = {image}"]
    if case["mode"] == "mask":
        lines += [f"mask = {masked}"]
    lines += [f"guidance_scale = {case['guidance_scale']:g}"]
    for row in ("strength", "eta", "prediction", "sigmas", "timestep_spacing", "compat", "count",
                "batch_seed"):  # fmt: skip
        if row in case:
            lines += [f"{row} = {case[row]}"]
    return "[job]\n" + "\n".join(lines) + f"\n\n[golden]\nmodel = {case['model']}\n"


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    diffusers.utils.logging.set_verbosity_error()
    if not IS_OLD:
        write_inpaint()
        load = Today
    else:
        import models

        load = models.Model
    loaded = {}
    for i, (name, case) in enumerate(compat() if IS_OLD else today()):
        if case["model"] not in loaded:
            loaded[case["model"]] = load(os.path.join(HERE, "models", case["model"]))
        case["picture"] = case["scheduler"] in ("pndm", "euler-a") and not IS_OLD
        case["picture"] |= case["model"] == "inpaint"
        out = run(case, loaded[case["model"]], 100 + i)
        save_file(out, os.path.join(HERE, "cases", f"run-{name}.safetensors"))
        with open(os.path.join(HERE, "cases", f"run-{name}.ini"), "w", encoding="utf-8") as f:
            f.write(ticket(case, 100 + i))


if __name__ == "__main__":
    main()
