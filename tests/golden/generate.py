#!/usr/bin/env python3
"""Write everything the C tests compare with, from seeds and from the pinned reference.

    python3 generate.py --demo DIR --site031 DIR [--only models,blocks,...] [--noise-floor]

--demo     the demo model (packaging/demo-model)
--site031  a folder with diffusers 0.31.0, for Euler
--only     some of: models blocks cases tokenizer rng sched
README.md has the pinned requirements and says what the files hold.
"""
import argparse
import os
import shutil

import torch
from safetensors.torch import save_file

import models
import tokens

HERE = os.path.dirname(os.path.abspath(__file__))
MERGES = 3000


def here(*parts):
    path = os.path.join(HERE, *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def write_models(_args):
    """models/<name>/"""
    merges = tokens.train_merges(MERGES)
    for i, (name, row) in enumerate(models.MODELS.items()):
        shutil.rmtree(here("models", name), ignore_errors=True)
        models.write_model(here("models", name), row, merges, 100 * (i + 1) + i)


def write_blocks(args):
    """blocks/<name>.safetensors, the demo model's as demo.safetensors"""
    save_file(models.blocks(models.Model(args.demo), models.DEMO, 1), here("blocks", "demo.safetensors"))
    for i, (name, row) in enumerate(models.MODELS.items()):
        model = models.Model(here("models", name))
        save_file(models.blocks(model, row, 7 + i), here("blocks", name + ".safetensors"))


PARTS = {"models": write_models, "blocks": write_blocks}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", required=True)
    parser.add_argument("--site031", required=True)
    parser.add_argument("--only", default=",".join(PARTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    for part in args.only.split(","):
        PARTS[part](args)


if __name__ == "__main__":
    main()
