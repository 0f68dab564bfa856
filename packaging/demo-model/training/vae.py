#!/usr/bin/env python3
"""AutoencoderKL with Stable Diffusion's topology and tensor names, trained on emoji crops.

usage: vae.py DATA.npz OUT.pt MINUTES [--resume START.pt] [--lr .01]
"""

import argparse
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import subset
from muon import Muon

LEVELS, GROUPS, LAYERS, LATENTS = (16, 32, 96, 128), 4, 1, 4


class Resnet(nn.Module):
    def __init__(self, width_in, width):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, width_in, 1e-6)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, width, 1e-6)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if width_in != width:
            self.conv_shortcut = nn.Conv2d(width_in, width, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x) + h


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.group_norm = nn.GroupNorm(GROUPS, width, 1e-6)
        for name in ("query", "key", "value", "proj_attn"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x):
        b, c, h, w = x.shape
        t = self.group_norm(x).flatten(2).transpose(1, 2)
        scores = self.query(t) @ self.key(t).transpose(1, 2) * c**-0.5
        y = self.proj_attn(torch.softmax(scores, -1) @ self.value(t))
        return x + y.transpose(1, 2).reshape(b, c, h, w)


class Mid(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width)])
        self.resnets = nn.ModuleList([Resnet(width, width), Resnet(width, width)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Upsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Block(nn.Module):
    """A level: resnets, then its samplers (a dict of one list, or of none at the last level)."""

    def __init__(self, width_in, width, layers, samplers):
        super().__init__()
        widths = [width_in] + [width] * (layers - 1)
        self.resnets = nn.ModuleList([Resnet(w, width) for w in widths])
        for name, kind in samplers.items():
            setattr(self, name, nn.ModuleList([kind(width)]))
        self.samplers = list(samplers)

    def forward(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        for name in self.samplers:
            x = getattr(self, name)[0](x)
        return x


def make_blocks(levels, layers, samplers):
    """One block a level; the first keeps its width, the last does not change the size."""
    return nn.ModuleList(
        [
            Block(levels[max(i - 1, 0)], width, layers, samplers if i < len(levels) - 1 else {})
            for i, width in enumerate(levels)
        ]
    )


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(3, LEVELS[0], 3, padding=1)
        self.mid_block = Mid(LEVELS[-1])
        self.down_blocks = make_blocks(LEVELS, LAYERS, {"downsamplers": Downsample})
        self.conv_norm_out = nn.GroupNorm(GROUPS, LEVELS[-1], 1e-6)
        self.conv_out = nn.Conv2d(LEVELS[-1], 2 * LATENTS, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(LATENTS, LEVELS[-1], 3, padding=1)
        self.mid_block = Mid(LEVELS[-1])
        self.up_blocks = make_blocks(LEVELS[::-1], LAYERS + 1, {"upsamplers": Upsample})
        self.conv_norm_out = nn.GroupNorm(GROUPS, LEVELS[0], 1e-6)
        self.conv_out = nn.Conv2d(LEVELS[0], 3, 3, padding=1)

    def forward(self, z):
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.quant_conv = nn.Conv2d(2 * LATENTS, 2 * LATENTS, 1)
        self.post_quant_conv = nn.Conv2d(LATENTS, LATENTS, 1)

    def encode(self, x):
        """Mean and logarithm of the variance, each [n,4,h/8,w/8]."""
        return self.quant_conv(self.encoder(x)).chunk(2, 1)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))


def draw_crops(images, n, side, generator, pick):
    """n random crops in -1..1, [n,3,side,side]: four batches in five from the pictures of pick,
    places on a grid of 8, half of them mirrored."""
    if torch.rand(1, generator=generator) < 0.2:
        chosen = torch.randint(len(images), (n,), generator=generator)
    else:
        chosen = pick[torch.randint(len(pick), (n,), generator=generator)]
    corners = torch.randint(0, (128 - side) // 8 + 1, (n, 2), generator=generator) * 8
    mirrored = torch.rand(n, generator=generator) < 0.5
    crops = [
        images[i, y : y + side, x : x + side].permute(2, 0, 1)
        for i, (y, x) in zip(chosen, corners.tolist())
    ]
    batch = torch.stack(crops).float() / 127.5 - 1
    batch[mirrored] = batch[mirrored].flip(3)
    return batch


def edges(x):
    """Differences of neighbours: along rows, along columns."""
    return x[..., 1:] - x[..., :-1], x[:, :, 1:] - x[:, :, :-1]


def losses(vae, x):
    """What is minimised, and what is printed of it: the pixels' error, the divergence, the
    latents' spread."""
    mean, log_variance = vae.encode(x)
    log_variance = log_variance.clamp(-30, 20)
    z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    y = vae.decode(z)
    pixels = (y - x).abs().mean()
    outline = sum((a - b).abs().mean() for a, b in zip(edges(y), edges(x)))
    coarse = (F.avg_pool2d(y, 4) - F.avg_pool2d(x, 4)).abs().mean()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    total = pixels + outline + coarse + 5e-4 * divergence
    return total, pixels.item(), divergence.item(), mean.std().item()


def train(vae, images, pick, args):
    """Trains for some minutes; writes the moving average of the weights now and then, and last."""
    generator = torch.Generator().manual_seed(1)
    optimizer = Muon(vae.named_parameters(), args.lr, 1e-3)
    average = {key: value.clone() for key, value in vae.state_dict().items()}
    start, limit, step, error = time.time(), args.minutes * 60, 0, 0.0
    while time.time() - start < limit:
        done = (time.time() - start) / limit
        factor = min(1, (step + 1) / 50) * min(1, (1 - done) / 0.7 + 0.02)
        n, side = (16, 64) if done < 0.85 else (5, 128)  # whole pictures in the end
        x = draw_crops(images, n, side, generator, pick)
        x = x.contiguous(memory_format=torch.channels_last)
        loss, pixels, divergence, spread = losses(vae, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(factor)
        step += 1
        error += pixels
        keep = min(0.995, step / (step + 50))
        with torch.no_grad():
            for key, value in vae.state_dict().items():
                average[key].lerp_(value, 1 - keep)
        if step % 50 == 0:
            seconds = time.time() - start
            print(
                f"{step} {seconds:.0f}s l1 {error / 50:.4f} kl {divergence:.2f} std {spread:.3f}",
                flush=True,
            )
            error = 0.0
        if step % 500 == 0:
            torch.save(average, args.out)
    torch.save(average, args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--resume")
    parser.add_argument("--lr", type=float, default=0.01)
    args = parser.parse_args()
    torch.manual_seed(0)
    data = np.load(args.data)
    images = torch.from_numpy(data["images"])
    pick = torch.tensor(subset.indices([str(name) for name in data["names"]]))
    vae = VAE().to(memory_format=torch.channels_last)
    if args.resume:
        vae.load_state_dict(torch.load(args.resume, weights_only=True))
    print(sum(p.numel() for p in vae.parameters()) / 1e6, "M parameters", flush=True)
    train(vae, images, pick, args)


if __name__ == "__main__":
    main()
