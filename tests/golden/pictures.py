"""What Pillow and diffusers make of pictures: resizing, fitting, masks, and the bytes of files.

write(folder, site) writes `resize.txt`, `fit.txt` and `prepare.txt`: a case a line, its numbers and
the SHA-256 of the result's bytes. The child (this file with diffusers 0.31.0 first on its path)
prints the lines that need that version. Sources are made up by pixels(), in C as here.
"""

import hashlib
import os
import random
import subprocess
import sys

import numpy as np
from PIL import Image

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FITS = {"stretch": "default", "cover": "crop", "contain": "fill"}


def pixels(kind, width, height, channels):
    """[height, width, channels] u8. noise: a hash; edges: slopes, and blocks of black and white."""
    y, x, c = np.meshgrid(
        *(np.arange(n, dtype=np.uint32) for n in (height, width, channels)), indexing="ij"
    )
    if kind == "noise":
        h = (x * np.uint32(73856093)) ^ (y * np.uint32(19349663)) ^ (c * np.uint32(83492791))
        return ((h * np.uint32(2654435761)) >> np.uint32(24)).astype(np.uint8)
    v = (x * np.uint32(5) + y * np.uint32(3) + c * np.uint32(40)) & np.uint32(255)
    block = ((x >> np.uint32(3)) + (y >> np.uint32(2)) + c) % np.uint32(4)
    return np.where(block == 0, 0, np.where(block == 1, 255, v)).astype(np.uint8)


def picture(kind, width, height, channels):
    array = pixels(kind, width, height, channels)
    return Image.fromarray(array[:, :, 0] if channels == 1 else array)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def resize_cases():
    """filter, kind, channels, source size, new size"""
    rows = []
    for name in FILTERS:
        for a, b in (
            ((1, 1), (8, 8)), ((1, 9), (16, 3)), ((64, 48), (64, 48)), ((64, 48), (64, 96)),
            ((64, 48), (32, 48)), ((100, 75), (96, 72)), ((513, 385), (64, 64)), ((31, 17), (248, 136)),
            ((1000, 3), (7, 200)), ((2, 2), (333, 111)), ((768, 512), (224, 224)), ((640, 426), (512, 512)),
        ):
            rows.append((name, "edges", 3, a, b))
    draw = random.Random(6)
    for i in range(120):
        a, b = [(int(2 ** draw.uniform(0, 8.5)), int(2 ** draw.uniform(0, 8.5))) for _ in "ab"]
        name = draw.choice(list(FILTERS))
        rows.append((name, draw.choice(["noise", "edges"]), draw.choice([1, 3]), a, b))
    return rows


def resize_lines():
    for name, kind, channels, a, b in resize_cases():
        out = np.array(picture(kind, *a, channels).resize(b, resample=FILTERS[name]))
        yield f"{name} {kind} {channels} {a[0]} {a[1]} {b[0]} {b[1]} {digest(out)}"


def fit_cases():
    """kind, channels, source size, target size (multiples of 8)"""
    rows = [
        ("edges", 3, (640, 480), (512, 512)), ("edges", 3, (480, 640), (512, 512)),
        ("noise", 3, (300, 200), (96, 64)), ("edges", 1, (301, 200), (96, 64)),
        ("noise", 3, (96, 64), (96, 64)), ("noise", 3, (97, 64), (96, 64)), ("noise", 3, (96, 65), (96, 64)),
        ("edges", 3, (9, 300), (64, 64)), ("edges", 3, (300, 9), (64, 64)),
        ("edges", 3, (1, 60), (64, 64)), ("edges", 3, (60, 1), (64, 64)), ("edges", 3, (3, 3), (16, 64)),
    ]
    draw = random.Random(7)
    for i in range(40):
        a = tuple(draw.randint(4, 300) for _ in "wh")
        b = tuple(8 * draw.randint(1, 24) for _ in "wh")
        rows.append((draw.choice(["noise", "edges"]), draw.choice([1, 3]), a, b))
    return rows


def fit_lines():
    """0.31.0's three ways of resizing: bytes, then what preprocess() makes of a picture, what the
    inpainting pipeline makes of a mask: pixels, latents (factor 8)."""
    import torch
    from diffusers import __version__
    from diffusers.image_processor import VaeImageProcessor

    assert __version__ == "0.31.0", __version__
    torch.set_num_threads(1)
    plain = VaeImageProcessor(vae_scale_factor=8)
    masks = VaeImageProcessor(
        vae_scale_factor=8, do_normalize=False, do_binarize=True, do_convert_grayscale=True
    )
    for kind, channels, a, b in fit_cases():
        source = picture(kind, *a, channels)
        for fit, mode in FITS.items():
            if fit == "contain" and not (a[0] * b[1] // a[1] and a[1] * b[0] // a[0]):
                continue  # no pixel would be left: Pillow refuses, we keep one
            resized = plain.resize(source, b[1], b[0], resize_mode=mode)
            if channels == 1:  # "crop" and "fill" answer in RGB
                resized = resized.convert("L")
            sums = [digest(np.array(resized))]
            size = {"height": b[1], "width": b[0], "resize_mode": mode}
            if channels == 3:
                sums.append(digest(plain.preprocess(source, **size).numpy()))
            mask = masks.preprocess(source, **size)
            latents = torch.nn.functional.interpolate(mask, size=(b[1] // 8, b[0] // 8))
            sums += [digest(mask.numpy()), digest(latents.numpy())]
            yield f"{fit} {kind} {channels} {a[0]} {a[1]} {b[0]} {b[1]} {' '.join(sums)}"


def prepare_cases():
    """kind, size: a picture and a mask of one size, as 0.6.0 wants them"""
    draw = random.Random(8)
    rows = [("edges", (64, 64)), ("noise", (33, 65)), ("edges", (512, 384))]
    return rows + [
        (draw.choice(["noise", "edges"]), tuple(draw.randint(32, 300) for _ in "wh"))
        for _ in range(20)
    ]


def prepare_lines():
    """0.6.0: img2img's picture, the legacy pipeline's mask (1 = keep), and, where the size is a
    multiple of 8, inpainting's mask, masked picture and mask of latents."""
    import torch
    from diffusers import __version__
    from diffusers.pipelines.stable_diffusion import (
        pipeline_stable_diffusion_img2img as img2img,
        pipeline_stable_diffusion_inpaint as inpaint,
        pipeline_stable_diffusion_inpaint_legacy as legacy,
    )

    assert __version__ == "0.6.0", __version__
    for kind, size in prepare_cases():
        image, mask = picture(kind, *size, 3), picture("edges", *size, 1)
        kept = legacy.preprocess_mask(mask).numpy()
        assert (kept == kept[:, :1]).all()
        size8 = tuple(n // 8 * 8 for n in size)
        pixels_, masked = inpaint.prepare_mask_and_masked_image(
            picture(kind, *size8, 3), picture("edges", *size8, 1)
        )
        latents = torch.nn.functional.interpolate(pixels_, size=(size8[1] // 8, size8[0] // 8))
        sums = [
            digest(x)
            for x in (
                img2img.preprocess(image).numpy(), kept[:, :1], pixels_.numpy(),
                masked.numpy() + 0.0,  # no negative zeros
                latents.numpy(),
            )
        ]
        yield f"{kind} {size[0]} {size[1]} {' '.join(sums)}"


def write(folder, site):
    os.makedirs(folder, exist_ok=True)
    fits = subprocess.run(
        [sys.executable, os.path.abspath(__file__)],
        env={**os.environ, "PYTHONPATH": site},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name, text in (
        ("resize", "".join(line + "\n" for line in resize_lines())),
        ("fit", fits),
        ("prepare", "".join(line + "\n" for line in prepare_lines())),
    ):
        with open(os.path.join(folder, name + ".txt"), "w", encoding="ascii") as f:
            f.write(text)


if __name__ == "__main__":
    for row in fit_lines():
        print(row)
