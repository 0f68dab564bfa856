#!/usr/bin/env python3
"""The schedulers by themselves, on a made-up model: what a reference of either version does.

    schedules.py < cases.json > results.json      with the reference's version on the path

A case names scheduler, config (scheduler_config.json's keys), steps and what else a request may say;
generate.py has the list and runs this file once under 0.6.0 and once under 0.31.0. Alphas are made
double after the reference has rounded them, so that its f32 steps do not blur the comparison.

The model returns in * t / (t + 1) of its (scaled) input. The sample, or the picture to start from, is
arange(768)/768 laid out (3,8,8,4) and permuted to (4,3,8,8). Random numbers come from one CPU
generator of seed 0: with a picture the starting noise first, then what the steps draw.
"""

import inspect
import json
import sys

import torch

CLASSES = {
    "pndm": "PNDMScheduler",
    "ddim": "DDIMScheduler",
    "lms": "LMSDiscreteScheduler",
    "euler": "EulerDiscreteScheduler",
    "ddpm": "DDPMScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "dpmpp-2m": "DPMSolverMultistepScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
}

draw = torch.randn


def draw_f32(*size, dtype=None, **more):
    """torch.randn whose stream does not depend on the type asked for."""
    return draw(*size, dtype=torch.float32, **more).to(dtype or torch.float32)


SHOWN = [0, 1, 100, 767]  # values of a sample that are written


def sample():
    x = (torch.arange(768).float() / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)
    return x.contiguous().double()


def mask():
    """One plane, by pixel: painted, kept, half kept."""
    return ((torch.arange(64) % 3) / 2).reshape(1, 1, 8, 8).double()


def build(case):
    import diffusers

    cls = getattr(diffusers, CLASSES[case["scheduler"]])
    known = inspect.signature(cls.__init__).parameters
    scheduler = cls(**{k: v for k, v in case["config"].items() if k in known})
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = (
            torch.tensor(1.0).double()
            if case["config"].get("set_alpha_to_one")
            else scheduler.alphas_cumprod[0]
        )
    scheduler.set_timesteps(case["steps"])
    if case["scheduler"] == "ddpm" and "timesteps" in inspect.signature(scheduler.set_timesteps).parameters:
        # the previous timestep is the next one of the list, as later versions have it
        scheduler.set_timesteps(timesteps=[int(t) for t in scheduler.timesteps])
    return scheduler


def starts(case, scheduler, original, noise):
    """First latents and the timesteps that are left, by the version's own rule."""
    n, all_steps = case["steps"], scheduler.timesteps
    strength = case.get("strength")
    if strength is None:
        return original * scheduler.init_noise_sigma, all_steps
    if case["compat"]:
        offset = scheduler.config.get("steps_offset", 0)
        made = min(int(n * strength) + offset, n)
        level, begin = all_steps[-made], max(n - made + offset, 0)
    else:
        begin = max(n - min(int(n * strength), n), 0) * scheduler.order
        level = all_steps[begin]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
    if case.get("inpaint") and strength == 1 and not case["compat"]:
        return noise * scheduler.init_noise_sigma, all_steps[begin:]
    return scheduler.add_noise(original, noise, torch.tensor([level])), all_steps[begin:]


def keep(case, scheduler, original, noise, timesteps, i):
    """What is put back where the mask keeps, after call i."""
    if case["compat"]:
        return scheduler.add_noise(original, noise, torch.tensor([timesteps[i]]))
    if i + 1 == len(timesteps):
        return original
    return scheduler.add_noise(original, noise, torch.tensor([timesteps[i + 1]]))


def run(case):
    scheduler = build(case)
    generator = torch.Generator().manual_seed(0)
    original, noise = sample(), None
    if case.get("strength") is not None:
        noise = torch.randn(original.shape, generator=generator).double()
    x, timesteps = starts(case, scheduler, original, noise)
    known = inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if "generator" in known else {}
    if "eta" in known:
        extra["eta"] = case.get("eta", 0.0)
    out = {"timesteps": [float(t) for t in timesteps], "start": shown(x), "calls": []}
    for i, t in enumerate(timesteps):
        scaled = scheduler.scale_model_input(x, t)
        if case.get("fed_scaled"):  # as diffusers' own tests do
            x = scaled
        x = scheduler.step(scaled * t / (t + 1), t, x, **extra).prev_sample
        if case.get("inpaint"):
            kept = keep(case, scheduler, original, noise, timesteps, i)
            x = (1 - mask()) * kept + mask() * x
        x = x.double()
        out["calls"].append(shown(x))
    out["sum"] = float(x.abs().sum())
    return out


def shown(x):
    return [float(x.flatten()[i]) for i in SHOWN]


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.randn = draw_f32
    json.dump([run(case) for case in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
