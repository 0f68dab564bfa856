"""Small safety checkers with random weights, and what 0.6.0's makes of made-up pictures."""

import os

import numpy
import torch
from diffusers import logging
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPFeatureExtractor

import models
import tokens

PICTURES = 60
logging.set_verbosity_error()  # the checker's remark about every flagged picture

# One row a checker. files: how the weights are stored; "variant": file names with .fp16;
# "dict": vision_config_dict beside vision_config, as early configurations have it.
CHECKERS = {
    # an odd head width (9), a patch of 7, the shape of SD 1.x's configuration
    "seven": {
        "vision": {"width": 36, "mlp": 100, "layers": 3, "heads": 4, "act": "quick_gelu"},
        "image": 35,
        "patch": 7,
        "projection": 24,
        "files": "f16",
        "variant": True,
        "dict": True,
        "counts": (3, 17),
        "preprocessor": "old",
    },
    # a patch larger than any kernel of a convolution here, pixels left over, GELU, all types
    "twenty": {
        "vision": {"width": 24, "mlp": 60, "layers": 2, "heads": 3, "act": "gelu"},
        "image": 64,
        "patch": 20,
        "projection": 13,
        "files": "mixed",
        "counts": (3, 17),
        "preprocessor": "new",
    },
}


def config(row):
    v = row["vision"]
    vision = {
        "attention_dropout": 0.0,
        "hidden_act": v["act"],
        "hidden_size": v["width"],
        "image_size": row["image"],
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": v["mlp"],
        "layer_norm_eps": 1e-5,
        "model_type": "clip_vision_model",
        "num_attention_heads": v["heads"],
        "num_channels": 3,
        "num_hidden_layers": v["layers"],
        "patch_size": row["patch"],
    }
    out = {
        "architectures": ["StableDiffusionSafetyChecker"],
        "model_type": "clip",
        "projection_dim": row["projection"],
        "vision_config": vision,
    }
    if row.get("dict"):
        keys = ("hidden_act", "hidden_size", "image_size", "intermediate_size", "patch_size")
        keys += ("num_attention_heads", "num_hidden_layers")
        out["vision_config_dict"] = {k: vision[k] for k in keys}
        out["vision_config"] = {**vision, "hidden_size": 1}  # which of the two counts
    return out


def preprocessor(row):
    side = row["image"]
    out = {
        "crop_size": side,
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": side,
    }
    if row["preprocessor"] == "new":
        out["crop_size"] = {"height": side, "width": side}
        out["size"] = {"shortest_edge": side}
        out["image_mean"] = [0.5, 0.45, 0.4]
        out["do_rescale"], out["rescale_factor"] = True, 1 / 255
    return out


def size(k):
    """Of picture k: wide, tall, square, smaller and larger than the checker's, and its very own."""
    wide = (64, 35, 128, 24, 97, 40, 256, 72, 64, 17)
    tall = (64, 35, 96, 24, 64, 104, 64, 41, 90, 200)
    return wide[k % 10], tall[k // 10 % 5 + k % 5]


def picture(k):
    """Picture k, by whole numbers only: tests/pipeline/test-safety.c draws the same."""
    w, h = size(k)
    y, x, c = numpy.meshgrid(
        numpy.arange(h), numpy.arange(w), numpy.arange(3), indexing="ij", sparse=False
    )
    u = (x * (1 + (k * 7 + c * 3) % 11) + y * (1 + (k * 5 + c) % 9) + 37 * k * (c + 1)) % 512
    wave = numpy.where(u < 256, u, 511 - u)
    checks = ((x >> (k % 5 + 1)) ^ (y >> (k % 3 + 1))) & 1
    noise = (x * 7919 + y * 104729 + c * 1299709 + k * 15485863) * 2654435761 % 2**32 >> 24
    mix = (wave * (4 + k % 7) + 255 * checks * (k % 4) + noise * (k % 3)) // (4 + k % 7 + 3)
    return Image.fromarray(numpy.minimum(mix, 255).astype(numpy.uint8))


def build(row, seed):
    """A checker whose concepts lie among the embeddings of the pictures."""
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(reference_config(config(row))).eval()
    models.randomise(checker, seed)
    special, concepts = row["counts"]
    width = row["projection"]
    checker.load_state_dict(
        {
            k: v.half().float() if v.is_floating_point() else v
            for k, v in checker.state_dict().items()
        }
    )
    seen = embeddings(checker, row)
    g = torch.Generator().manual_seed(seed + 1)
    for name, count, share in (("special_care", special, 0.25), ("concept", concepts, 0.03)):
        picked = seen[torch.randint(PICTURES, (count,), generator=g)]
        spread = (seen - seen.mean(0)).norm(dim=1).mean() / width**0.5
        embeds = picked + spread * torch.randn((count, width), generator=g)
        embeds = embeds.half().float()
        cosines = torch.nn.functional.normalize(seen) @ torch.nn.functional.normalize(embeds).t()
        setattr(checker, name + "_embeds", torch.nn.Parameter(embeds, requires_grad=False))
        weights = torch.tensor([threshold(column, share) for column in cosines.t()]).float()
        setattr(checker, name + "_embeds_weights", torch.nn.Parameter(weights, requires_grad=False))
    return checker


def threshold(cosines, share):
    """In the widest gap near the wanted share of hits: no flag hangs by half precision's error."""
    ordered = sorted(cosines.tolist(), reverse=True)
    near = range(max(0, int(share * PICTURES) - 2), int(share * PICTURES) + 3)
    at = max(near, key=lambda i: ordered[i] - ordered[i + 1])
    return (ordered[at] + ordered[at + 1]) / 2


def embeddings(checker, row):
    pixels = extract(row)([picture(k) for k in range(PICTURES)], return_tensors="pt")
    return checker.visual_projection(checker.vision_model(pixels.pixel_values)[1])


def extract(row):
    p = preprocessor(row)
    return CLIPFeatureExtractor(
        size=row["image"],
        crop_size=row["image"],
        image_mean=p["image_mean"],
        image_std=p["image_std"],
    )


def reference_config(values):
    """What 4.23.1 makes a CLIPConfig from."""
    vision = values.get("vision_config_dict", values["vision_config"])
    return CLIPConfig(
        text_config_dict={"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
        vision_config_dict={"layer_norm_eps": 1e-5, **vision},
        projection_dim=values["projection_dim"],
    )


def write_checker(path, row, seed):
    """safety_checker/ and feature_extractor/ below path."""
    checker = build(row, seed)
    os.makedirs(os.path.join(path, "safety_checker"), exist_ok=True)
    os.makedirs(os.path.join(path, "feature_extractor"), exist_ok=True)
    tokens.write_json(os.path.join(path, "safety_checker", "config.json"), config(row))
    tokens.write_json(
        os.path.join(path, "feature_extractor", "preprocessor_config.json"), preprocessor(row)
    )
    state = checker.state_dict()
    if not row.get("variant"):
        state.pop("vision_model.vision_model.embeddings.position_ids")
    exact = {k: v for k, v in state.items() if k.endswith("_weights")}  # thresholds stay 32 bits
    name = "model" + (".fp16" if row.get("variant") else "") + ".safetensors"
    save_file(
        {**models.stored(state, row["files"], 0), **exact},
        os.path.join(path, "safety_checker", name),
        metadata={"format": "pt"},
    )


def scores(checker, row):
    """Per picture: the rounded scores in order, and the flag, by the reference's own forward()."""
    out, flags = [], []
    for k in range(PICTURES):
        pixels = extract(row)([picture(k)], return_tensors="pt").pixel_values
        noted = []

        def note(value, digits=None, noted=noted):
            noted.append(round(value, digits))
            return noted[-1]

        module = __import__(StableDiffusionSafetyChecker.__module__, fromlist=["round"])
        module.round = note
        try:
            _, flagged = checker(clip_input=pixels, images=[numpy.zeros((1, 1, 3))])
        finally:
            del module.round
        # the reference rounds each score once; it looks one up again without rounding
        assert len(noted) == sum(row["counts"]), len(noted)
        out.append([float(v) for v in noted])
        flags.append(int(flagged[0]))
    return out, flags


def write_scores(path, folder, row):
    """The golden file of a checker that write_checker() wrote."""
    checker = StableDiffusionSafetyChecker(reference_config(config(row))).eval()
    name = "model" + (".fp16" if row.get("variant") else "") + ".safetensors"
    state = load_file(os.path.join(folder, "safety_checker", name))
    whole = {k: v.half().float() if v.dim() and v.is_floating_point() else v for k, v in state.items()}
    whole.update({k: v for k, v in state.items() if k.endswith("_weights")})
    positions = {k: v for k, v in checker.state_dict().items() if "position_ids" in k}
    checker.load_state_dict({**positions, **whole})
    values, flags = scores(checker, row)
    share = sum(flags) / PICTURES
    special = sum(max(v[: row["counts"][0]]) > 0 for v in values) / PICTURES
    print(f"{folder}: {sum(flags)} of {PICTURES} flagged; special care in {special:.0%}")
    assert 0.2 < share < 0.8 and 0.2 < special < 0.95
    pixels = extract(row)([picture(k) for k in (3, 36)], return_tensors="pt").pixel_values
    save_file(
        {
            "scores": torch.tensor(values, dtype=torch.float32),
            "flags": torch.tensor(flags, dtype=torch.int32),
            "pixels": pixels.permute(0, 2, 3, 1).contiguous(),
        },
        path,
    )
