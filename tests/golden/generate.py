#!/usr/bin/env python3
"""Write everything the C tests compare with, from seeds and from the pinned reference.

    python3 generate.py --demo DIR --site031 DIR [--only models,blocks,...] [--noise-floor]

--demo     the demo model (packaging/demo-model)
--site031  a folder with diffusers 0.31.0, for Euler, kinds and runs
--only     some of: models blocks cases kinds tokenizer sched schedules runs rng pictures safety lora texts
--noise-floor  write nothing; print what half-precision activations change in the block outputs
README.md has the pinned requirements and says what the files hold.
"""

import argparse
import glob
import json
import os
import shutil
import subprocess
import sys

import torch
from safetensors.torch import save_file

import cases
import emphasis
import files
import lora
import models
import noise
import pictures
import prompts
import safety
import texts
import schedule_cases
import taesd
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
        if name == texts.WORDS_MODEL:
            texts.write_words(here("models", name, "embeddings"), row["text"]["width"])


def write_blocks(args):
    """blocks/<name>.safetensors, the demo model's as demo.safetensors"""
    save_file(
        models.blocks(models.Model(args.demo), models.DEMO, 1), here("blocks", "demo.safetensors")
    )
    for i, (name, row) in enumerate(models.MODELS.items()):
        model = models.Model(here("models", name))
        save_file(models.blocks(model, row, 7 + i), here("blocks", name + ".safetensors"))


def write_cases(args):
    """cases/<case>.ini and .safetensors; those of kinds.py stay"""
    for old in glob.glob(here("cases", "*")):
        if not os.path.basename(old).startswith("kind-"):
            os.remove(old)
    schedulers = cases.Schedulers(args.site031)
    loaded = {}
    for name, case in cases.CASES.items():
        path = args.demo if case[0] == "demo" else here("models", case[0])
        if case[0] not in loaded:
            loaded[case[0]] = models.Model(path)
        model = loaded[case[0]]
        out = cases.run(model, schedulers.new(case[1], model.scheduler), case)
        if name in ("four-pndm", "four-ddim-unicode", "four-lms-2", "demo-fox"):
            cases.check_loop(model, case, out)
        save_file(out, here("cases", name + ".safetensors"))
        with open(here("cases", name + ".ini"), "w", encoding="utf-8") as f:
            f.write(cases.ticket(case))
    schedulers.close()


def write_kinds(args):
    """models/kind-*/ and cases/kind-*, under diffusers 0.31.0"""
    env = {**os.environ, "PYTHONPATH": args.site031}
    subprocess.run([sys.executable, os.path.join(HERE, "kinds.py")], env=env, check=True)


def write_sched(args):
    """sched.json"""
    schedulers = cases.Schedulers(args.site031)
    table = cases.scheduler_table(schedulers)
    schedulers.close()
    with open(here("sched.json"), "w", encoding="utf-8") as f:
        f.write(
            "{\n"
            + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in table.items())
            + "\n}\n"
        )


def write_schedules(args):
    """schedules.json"""
    table = schedule_cases.answers(args.site031)
    with open(here("schedules.json"), "w", encoding="utf-8") as f:
        lines = ",\n".join(json.dumps(c) for c in table["cases"])
        f.write(f'{{"base": {json.dumps(table["base"])},\n"cases": [\n{lines}\n]}}\n')


def write_runs(args):
    """cases/run-*, models/inpaint/: by the pipelines of both versions"""
    script = here("runs.py")
    for site in (args.site031, None):
        env = {**os.environ, **({"PYTHONPATH": site} if site else {})}
        subprocess.run([sys.executable, script], env=env, check=True)


def write_rng(_args):
    """rng.safetensors"""
    save_file(cases.random_numbers(), here("rng.safetensors"))


def write_pictures(args):
    """pictures/: files of every kind; sums of decoded, resized and prepared pictures"""
    files.write(here("pictures"))
    pictures.write(here("pictures"), args.site031)


def write_tokenizer(args):
    """tokenizer/: the larger tokenizer, and prompts with their ids"""
    shutil.rmtree(here("tokenizer"), ignore_errors=True)
    tokens.write_tokenizer(here("tokenizer"), tokens.train_merges(MERGES), 1)
    big = tokens.load(here("tokenizer"))
    demo = tokens.load(os.path.join(args.demo, "tokenizer"))
    texts = prompts.prompts()
    for name, tokenizer, some in (
        ("prompts", big, texts),
        ("prompts-demo", demo, texts[::5]),
        ("prompts-nul", big, prompts.WITH_NUL),
        ("prompts-young", big, prompts.YOUNG),
    ):
        with open(here("tokenizer", name + ".jsonl"), "w", encoding="utf-8") as f:
            for text in some:
                f.write(json.dumps({"p": text, "ids": tokens.encode(tokenizer, text)}) + "\n")


def write_safety(_args):
    """safety/<name>/, and safety/<name>.safetensors with what it says of the made-up pictures"""
    shutil.rmtree(here("safety"), ignore_errors=True)
    for i, (name, row) in enumerate(safety.CHECKERS.items()):
        safety.write_checker(here("safety", name), row, 9000 + 10 * i)
        safety.write_scores(here("safety", name + ".safetensors"), here("safety", name), row)


def write_lora(args):
    """lora/: LoRA files, and runs with them"""
    shutil.rmtree(here("lora"), ignore_errors=True)
    schedulers = cases.Schedulers(args.site031)

    def load(name):
        return models.Model(here("models", name))

    def run(model, name, case):
        return cases.run(model, schedulers.new(name, model.scheduler), case)

    lora.write_files(here("lora"), load)
    lora.write_cases(here("lora"), load, run)
    schedulers.close()


def write_taesd(args):
    """taesd/, and blocks/taesd.safetensors with what it computes"""
    taesd.write(here("taesd", ""), here("blocks", "taesd.safetensors"), args.site031)


def print_noise(args):
    """Block outputs and whole runs, in 32 bits against half-precision activations."""
    schedulers = cases.Schedulers(args.site031)
    rows = {"demo": models.DEMO, **models.MODELS}
    for name, row in rows.items():
        model = models.Model(args.demo if name == "demo" else here("models", name))
        runs = {"blocks": lambda: models.blocks(model, row, 1)}
        for key, case in cases.CASES.items():
            if case[0] == name:
                scheduler = schedulers.new(case[1], model.scheduler)
                runs[key] = lambda s=scheduler, c=case: cases.run(model, s, c)
        for key, run in runs.items():
            exact = run()
            with noise.half_activations(model):
                rounded = run()
            for part, (l2, top) in noise.compare(exact, rounded).items():
                print(f"{name:14} {key:20} {part:24} L2 {l2:.1e}  largest {top:.1e}")
    schedulers.close()


def write_texts(args):
    """texts/<case>.ini and .safetensors; texts/emphasis.jsonl"""
    shutil.rmtree(here("texts"), ignore_errors=True)
    schedulers = cases.Schedulers(args.site031)
    for name, case in texts.CASES.items():
        path = os.path.join(HERE, "models", case["model"])
        model = models.Model(path)
        out = texts.run(model, schedulers.new("ddim", model.scheduler), path, args.site031, case)
        save_file(out, here("texts", name + ".safetensors"))
        with open(here("texts", name + ".ini"), "w", encoding="utf-8") as f:
            f.write(texts.ticket(case))
    schedulers.close()
    with open(here("texts", "emphasis.jsonl"), "w", encoding="utf-8") as f:
        for row in emphasis.rows(tokens.load(here("tokenizer"))):
            f.write(json.dumps(row) + "\n")


PARTS = {
    "models": write_models,
    "blocks": write_blocks,
    "cases": write_cases,
    "kinds": write_kinds,
    "tokenizer": write_tokenizer,
    "texts": write_texts,
    "sched": write_sched,
    "schedules": write_schedules,
    "runs": write_runs,
    "rng": write_rng,
    "pictures": write_pictures,
    "safety": write_safety,
    "lora": write_lora,
    "taesd": write_taesd,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", required=True)
    parser.add_argument("--site031", required=True)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--noise-floor", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    if args.noise_floor:
        print_noise(args)
        return
    for part in args.only.split(","):
        PARTS[part](args)


if __name__ == "__main__":
    main()
