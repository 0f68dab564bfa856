"""Whole runs of txt2img, the schedulers alone, and the random numbers."""

import torch
from diffusers import DDIMScheduler, LMSDiscreteScheduler, PNDMScheduler, StableDiffusionPipeline

import models
import tokens
from euler031 import EulerScheduler

# fmt: off
LONG = "1234567890" * 6 + " fox moon sea tree rain snow bird lamp ship road over the long wall "
LONG += "1234567890" * 3

# name: model, scheduler, width, height, steps, guidance, seed, count, prompt, negative prompt
CASES = {
    "two-pndm": ("two", "pndm", 24, 16, 20, 7.5, 42, 1,
        "a red fox in deep snow, oil painting", "blurry"),
    "two-pndm-1": ("two", "pndm", 16, 16, 1, 7.5, 0, 1, "two swans", ""),
    "two-pndm-2": ("two", "pndm", 16, 24, 2, 5, 0, 1, "two swans", ""),
    "two-lms": ("two", "lms", 40, 24, 5, 5, 42, 1, "a sleeping cat by the sea", ""),
    "two-euler": ("two", "euler", 24, 40, 10, 7.5, 0, 1,
        "a tiny dragon, pencil sketch", "low quality, cropped"),
    "odd-pndm": ("odd", "pndm", 56, 40, 10, 7.5, 0, 1, "an owl with round glasses", ""),
    "odd-ddim-1": ("odd", "ddim", 32, 32, 1, 5, 42, 1, "an owl", "text"),
    "odd-lms": ("odd", "lms", 40, 24, 20, 5, 4294967295, 1,
        "the harbour at night, watercolour", ""),
    "four-pndm": ("four", "pndm", 104, 72, 20, 7.5, 42, 1,
        "an old lighthouse under heavy rain", "blurry, text"),
    "four-ddim-unicode": ("four", "ddim", 40, 56, 5, 5, 0, 1,
        "ΣΊΣΥΦΟΣ und der große Fuchs, 赤い狐 🦊 İ½", "été"),
    "four-euler": ("four", "euler", 72, 104, 20, 7.5, 7, 1,
        "a steam engine on Mars, ink on paper", ""),
    "four-lms-2": ("four", "lms", 56, 24, 2, 7.5, 0, 1, "the watchmaker's garden", ""),
    "four-pndm-long": ("four", "pndm", 24, 40, 3, 4, 1, 1, LONG, LONG[::-1]),
    "four-ddim-empty": ("four", "ddim", 8, 24, 4, 5, 3, 1, "", "dull colours"),
    "plain-first-pndm-3": ("plain-first", "pndm", 48, 16, 3, 1, 42, 1, "a paper crane", "not used"),
    "plain-first-euler-1": ("plain-first", "euler", 16, 32, 1, 5, 0, 1, "a paper crane", ""),
    "plain-first-ddim": ("plain-first", "ddim", 32, 40, 20, 0, 42, 1,
        "a wooden bridge in a quiet forest", ""),
    "three-layers-ddim": ("three-layers", "ddim", 24, 32, 20, 5, 4294967295, 2,
        "seven candles", "one candle"),
    "three-layers-lms-1": ("three-layers", "lms", 16, 16, 1, 7.5, 0, 1, "seven candles", ""),
    "ten-pndm": ("ten", "pndm", 72, 40, 50, 7.5, 42, 1, "a whale above the clouds", ""),
    "ten-lms": ("ten", "lms", 24, 56, 10, 7.5, 0, 2, "a clay teapot on the kitchen table", "metal"),
    "ten-euler-2": ("ten", "euler", 40, 40, 2, 1.5, 5, 1, "a clay teapot", ""),
    "mid-only-ddim": ("mid-only", "ddim", 40, 24, 10, 2, 42, 1,
        "a street market", "an empty street"),
    "mid-only-pndm": ("mid-only", "pndm", 32, 32, 10, 5, 0, 1, "a street market", ""),
    "mid-only-lms": ("mid-only", "lms", 24, 24, 6, 5, 0, 1, "a street market", ""),
    "mid-only-euler": ("mid-only", "euler", 24, 48, 6, 5, 0, 1, "a street market", ""),
    "demo-fox": ("demo", "pndm", 128, 128, 20, 2.5, 1, 1, "fox", ""),
    "demo-ddim": ("demo", "ddim", 104, 72, 10, 7.5, 42, 1,
        "a drawing of a green apple", "red apple"),
    "demo-lms": ("demo", "lms", 64, 64, 6, 2.5, 0, 1, "sunflower", ""),
    "demo-euler": ("demo", "euler", 64, 96, 6, 2.5, 0, 1, "rocket", ""),
}
# fmt: on


class Schedulers:
    """Scheduler objects of both versions, by our names, from the keys of a scheduler_config."""

    def __init__(self, site):
        self.site = site
        self.children = []

    def new(self, name, config):
        keys = ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule"]
        more = {
            "pndm": ["skip_prk_steps", "set_alpha_to_one"],
            "ddim": ["clip_sample", "set_alpha_to_one"],
        }
        picked = {k: config[k] for k in keys + more.get(name, [])}
        if name == "euler":
            self.children.append(EulerScheduler(self.site, **picked))
            return self.children[-1]
        if name == "lms":
            return LMSDiscreteScheduler(**picked)
        return {"pndm": PNDMScheduler, "ddim": DDIMScheduler}[name](**picked, steps_offset=1)

    def close(self):
        for child in self.children:
            child.close()


def run(model, scheduler, case):
    """One case as the C side sees it: tokens, text, and per picture noise, latents, image."""
    _, _, width, height, steps, guidance, seed, count, prompt, negative = case
    prompts = [negative, prompt] if guidance > 1 else [prompt]
    ids = torch.tensor([tokens.encode(model.tokenizer, p) for p in prompts])
    text = model.text(ids)[0]
    out = {"tokens": ids.int(), "text": text}
    for k in range(count):
        prefix = f"{k}." if k else ""
        g = torch.Generator().manual_seed(seed + k)
        x = torch.randn((1, 4, height // model.factor, width // model.factor), generator=g)
        out[prefix + "noise"] = x[0].clone()
        scheduler.set_timesteps(steps)
        x = x * scheduler.init_noise_sigma
        last = len(scheduler.timesteps) - 1
        for i, t in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(torch.cat([x] * len(prompts)), t)
            e = model.unet(scaled, t, encoder_hidden_states=text).sample
            if guidance > 1:
                e = e[:1] + guidance * (e[1:] - e[:1])
            x = scheduler.step(e, t, x).prev_sample
            if last < 8 or i in (0, last // 2, last):
                out[prefix + f"latents.{i:03}"] = x[0].clone()
        image = model.vae.decode(1 / models.VAE_SCALE * x).sample
        out[prefix + "image"] = (image / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0)
    return {k: v.float().contiguous() if v.is_floating_point() else v for k, v in out.items()}


def ticket(case):
    """The case as a ticket of the drop folder, with one more section."""
    model, scheduler, width, height, steps, guidance, seed, count, prompt, negative = case
    assert max(len(prompt.encode()), len(negative.encode())) < 175, "inih cuts long lines"
    return (
        f"[job]\nprompt = {prompt}\nnegative_prompt = {negative}\n"
        f"width = {width}\nheight = {height}\n"
        f"steps = {steps}\nguidance_scale = {guidance:g}\nseed = {seed}\ncount = {count}\n"
        f"scheduler = {scheduler}\n\n[golden]\nmodel = {model}\n"
    )


def check_loop(model, case, ours):
    """The loop above against the pipeline of 0.6.0 itself: the same picture, bit for bit."""
    _, name, width, height, steps, guidance, seed, _, prompt, negative = case
    pipe = StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=Schedulers(None).new(name, model.scheduler),
        safety_checker=None,
        feature_extractor=None,
    )
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt,
        height,
        width,
        steps,
        guidance,
        negative,
        output_type="numpy",
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    diff = (torch.from_numpy(theirs) - ours["image"]).abs().max()
    assert diff == 0, f"{case}: {diff}"


def scheduler_table(schedulers):
    """Per scheduler and number of steps: timesteps, and a made-up model run on a made-up sample."""
    table = {}
    for name in ("pndm", "ddim", "lms", "euler"):
        scheduler = schedulers.new(name, models.SCHEDULER)
        for steps in (1, 2, 3, 10, 20, 50, 333):
            scheduler.set_timesteps(steps)
            x = (
                (torch.arange(768).float() / 768)
                .reshape(3, 8, 8, 4)
                .permute(3, 0, 1, 2)
                .contiguous()
            )
            x = x * scheduler.init_noise_sigma
            first = []
            for t in scheduler.timesteps:
                scaled = scheduler.scale_model_input(x, t)
                x = scheduler.step(scaled * t / (t + 1), t, x).prev_sample
                first.append([float(v) for v in x.flatten()[:8]])
            table[f"{name}.{steps}"] = {
                "timesteps": [float(t) for t in scheduler.timesteps],
                "init_noise_sigma": float(scheduler.init_noise_sigma),
                "first": first,
                "sum": float(x.double().abs().sum()),
            }
    for name, want in (
        ("pndm", 201.38644),
        ("ddim", 183.25821),
        ("lms", 198.55858),
        ("euler", 178.7761),
    ):
        assert abs(table[name + ".10"]["sum"] - want) < 1e-3, (name, table[name + ".10"]["sum"])
    return table


def random_numbers():
    """randn of torch's CPU generator; of long draws the first and last 32."""
    out = {}
    for seed in (0, 42, 2**32 - 1):
        for n in (4 * 8 * 8, 4 * 9 * 13, 4 * 64 * 64, 20, 6, 15, 16, 17):
            r = torch.randn(n, generator=torch.Generator().manual_seed(seed))
            if n > 1000:
                out[f"seed.{seed}.n.{n}.first"], out[f"seed.{seed}.n.{n}.last"] = (
                    r[:32].clone(),
                    r[-32:].clone(),
                )
            else:
                out[f"seed.{seed}.n.{n}"] = r
    return out
