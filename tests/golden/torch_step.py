#!/usr/bin/env python3
"""Time one guided step of a U-Net of Stable Diffusion 1.5's shape in PyTorch (0.6.0, CPU, f32).

    python3 torch_step.py [--size 128x128] [--runs 5] [--threads N] [--weights DIR]

Prints the seconds of each run, to be alternated with our own. --weights takes a model directory,
or its unet/ folder; without it the weights are random, which takes the same time.
"""

import argparse
import os
import time

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file


def load_weights(unet, folder):
    """Weights of a model directory or its unet folder, whatever their stored type."""
    if os.path.isdir(os.path.join(folder, "unet")):
        folder = os.path.join(folder, "unet")
    for name in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"):
        if os.path.exists(os.path.join(folder, name)):
            state = load_file(os.path.join(folder, name))
            unet.load_state_dict({k: v.float() for k, v in state.items()})
            return
    raise SystemExit(f"{folder}: no diffusion_pytorch_model[.fp16].safetensors")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="128x128", help="WxH of the picture, multiples of 8")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--weights")
    args = parser.parse_args()
    width, height = (int(v) // 8 for v in args.size.split("x"))
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(cross_attention_dim=768).eval()
    if args.weights:
        load_weights(unet, args.weights)
    x, text = torch.randn(1, 4, height, width), torch.randn(2, 77, 768)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.size}, batch 2, f32",
        flush=True,
    )
    for _ in range(args.runs):
        start = time.perf_counter()
        e = unet(torch.cat([x, x]), 500, text).sample
        x = x - 0.05 * (e[:1] + 7.5 * (e[1:] - e[:1]))
        print(f"{time.perf_counter() - start:.3f} s", flush=True)


if __name__ == "__main__":
    main()
