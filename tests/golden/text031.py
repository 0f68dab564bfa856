"""Prompts through diffusers 0.31.0, which cannot share a process with 0.6.0: a child behind a pipe.

encode(site, model, jobs) here; the child runs this file with `site` first on its path. A job is
{"prompts": [negative, positive] or [positive], "skip": n, "words": bool}; its answer tokens
[R, 77] and text [R, 77, C].
"""

import glob
import json
import os
import pickle
import subprocess
import sys


def encode(site, model, jobs):
    child = subprocess.run(
        [sys.executable, os.path.abspath(__file__)],
        env={**os.environ, "PYTHONPATH": site},
        input=pickle.dumps((os.path.abspath(model), jobs)),
        stdout=subprocess.PIPE,
        check=True,
    )
    return pickle.loads(child.stdout)


def load_state(path):
    from safetensors.torch import load_file

    (name,) = glob.glob(os.path.join(path, "*.safetensors"))
    return {k: v.half().float() for k, v in load_file(name).items() if "position_ids" not in k}


def pipeline(path):
    """The model's tokenizer and text encoder; networks of the same shape that are not used."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

    def config(part):
        with open(os.path.join(path, part, "config.json"), encoding="utf-8") as f:
            return {k: v for k, v in json.load(f).items() if not k.startswith("_")}

    text = CLIPTextModel(CLIPTextConfig(**config("text_encoder"))).eval()
    text.load_state_dict(load_state(os.path.join(path, "text_encoder")))
    return StableDiffusionPipeline(
        vae=AutoencoderKL(**config("vae")),
        text_encoder=text,
        tokenizer=CLIPTokenizerFast.from_pretrained(os.path.join(path, "tokenizer")),
        unet=UNet2DConditionModel(**config("unet")),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def load_words(pipe, path):
    """MODEL/embeddings in the order of the names, each word as its file means it."""
    from safetensors.torch import load_file

    for name in sorted(glob.glob(os.path.join(path, "embeddings", "*.safetensors"))):
        state, stem = load_file(name), os.path.basename(name)[: -len(".safetensors")]
        for key in ("emb_params", "string_to_param.*"):
            if key in state:
                state = {stem: state[key]}
        pipe.load_textual_inversion({k: v.float() for k, v in state.items()})


def answer(pipe, job):
    import torch

    tokenizer, out = pipe.tokenizer, []
    *negative, prompt = job["prompts"]
    texts = pipe.encode_prompt(
        prompt,
        torch.device("cpu"),
        1,
        bool(negative),
        negative[0] if negative else None,
        clip_skip=job["skip"] or None,
    )
    for text in job["prompts"]:
        text = pipe.maybe_convert_prompt(text, tokenizer)
        out.append(tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids)
    rows = [texts[1], texts[0]] if negative else [texts[0]]
    return torch.tensor(out).int().numpy(), torch.cat(rows).detach().float().numpy()


def serve():
    import torch
    from diffusers import __version__

    assert __version__ == "0.31.0", __version__
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    path, jobs = pickle.load(sys.stdin.buffer)
    plain = pipeline(path)
    learned = pipeline(path) if any(j["words"] for j in jobs) else None
    if learned:
        load_words(learned, path)
    answers = [answer(learned if j["words"] else plain, j) for j in jobs]
    sys.stdout.buffer.write(pickle.dumps(answers))


if __name__ == "__main__":
    serve()
