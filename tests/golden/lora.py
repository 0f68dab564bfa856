"""Small LoRAs with random weights under the names of every trainer, and pictures drawn with them.

The merge is written here once more, from the definition. `lora.py --against-peft PEFT SITE031` (folders
with peft 0.13.2 and with diffusers 0.31.0) compares it with what that version fuses, for every form
of names. It does so on LoRAs of one rank and one alpha, without conv_in: where ranks or alphas
differ within a file 0.31.0 gives some modules another's scale, and it leaves conv_in out.
"""

import copy
import os
import sys
import tempfile
import types

import torch
from safetensors.torch import load_file, save_file

# name of a file: model, rank, whether alpha is there, what is changed, and every how many-th of it
SETS = {
    "full": ("two", 4, True, "all", 1),
    "attention": ("two", 3, False, "attention", 1),
    "sd": ("four", 2, True, "all", 4),
}

# name: model, spec, and as in cases.py: scheduler, width, height, steps, guidance, seed, prompt
CASES = {
    "two-plain": ("two", "", "ddim", 24, 16, 4, 5, 11, "a red fox in deep snow"),
    "two-full": ("two", "full:0.75", "ddim", 24, 16, 4, 5, 11, "a red fox in deep snow"),
    "two-both": (
        "two",
        "full:0.5,attention:-0.6",
        "ddim",
        24,
        16,
        4,
        5,
        11,
        "a red fox in deep snow",
    ),
    "four-sd": ("four", "sd", "ddim", 40, 24, 3, 4, 3, "an old lighthouse"),
}


def modules(state, what):
    """Names of the weights that are changed, without ".weight"."""
    attention = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
    more = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "fc1", "fc2", "conv1", "conv2")
    more += ("time_emb_proj", "conv_shortcut", "0.conv", "linear_1", "conv_in")
    for key, value in sorted(state.items()):
        name = key[: -len(".weight")]
        if not key.endswith(".weight") or value.dim() < 2 or "embedding." in key:
            continue
        if name.endswith(attention) or (what == "all" and name.endswith(more)):
            yield name, value


def make(model, rank, has_alpha, what, step, seed, even=False):
    """[(component, module, down, up, alpha)]: changes of about a third of each weight."""
    g = torch.Generator().manual_seed(seed)
    out = []
    for component, net in (("unet", model.unet), ("text_encoder", model.text)):
        picked = list(modules(net.state_dict(), what))[::step]
        for i, (name, w) in enumerate(picked):
            if even and name == "conv_in":
                continue
            r = rank if even else rank + i % 3
            down = torch.randn((r, *w.shape[1:]), generator=g) / w[0].numel() ** 0.5
            up = torch.randn((w.shape[0], r), generator=g) / r**0.5
            if w.dim() == 4:
                up = up[:, :, None, None]
            alpha = r * 2.0 ** -(1 if even else i % 3) if has_alpha else None
            size = 0.35 * w.norm() / (up.flatten(1) @ down.flatten(1)).norm()
            size *= r / alpha if has_alpha else 1
            down, up = (down * size**0.5).half(), (up * size**0.5).half()
            out.append((component, name, down, up, alpha))
    return out


def kohya(rows):
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
    state = {}
    for component, name, down, up, alpha in rows:
        base = prefix[component] + name.replace(".", "_")
        state[base + ".lora_down.weight"], state[base + ".lora_up.weight"] = down, up
        if alpha is not None:
            state[base + ".alpha"] = torch.tensor(alpha)
    return state


def scaled(up, down, alpha):
    """up with alpha / rank in it, for formats without; exact, as it is a power of two here."""
    return up if alpha is None else (up.float() * (alpha / down.shape[0])).half()


def peft(rows):
    state = {}
    for component, name, down, up, alpha in rows:
        base = f"{component}.{name}"
        state[base + ".lora_A.weight"] = down
        state[base + ".lora_B.weight"] = scaled(up, down, alpha)
    return state


def diffusers(rows):
    """0.17 to 0.22: lora.down in the U-Net, lora_linear_layer.down in the text encoder."""
    kind = {"unet": "lora", "text_encoder": "lora_linear_layer"}
    state = {}
    for component, name, down, up, alpha in rows:
        base = f"{component}.{name}.{kind[component]}"
        state[base + ".down.weight"] = down
        state[base + ".up.weight"] = scaled(up, down, alpha)
    return state


def processors(rows):
    """Before 0.17: attention processors, the U-Net's without a prefix."""
    text = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    state = {}
    for component, name, down, up, alpha in rows:
        path, _, last = name.removesuffix(".0").rpartition(".")
        if component == "unet":
            base = f"{path}.processor.{last}_lora"
        else:
            base = f"text_encoder.{path}.{text[last]}_lora"
        state[base + ".down.weight"] = down.flatten(1).float()
        state[base + ".up.weight"] = scaled(up, down, alpha).flatten(1).float()
    return state


def ldm(name, layers):
    """A module of the U-Net under LDM's name, as the conversion script of 0.6.0 has it."""
    resnet = {
        "conv1": "in_layers.2",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    part = name.split(".")
    if part[0] == "conv_in":
        return "input_blocks.0.0"
    if part[0] == "time_embedding":
        return f"time_embed.{0 if part[1] == 'linear_1' else 2}"
    if part[0] == "mid_block":
        number = int(part[2]) * 2 if part[1] == "resnets" else 1
        rest = [resnet[part[3]]] if part[1] == "resnets" else part[3:]
        return ".".join(["middle_block", str(number), *rest])
    way, level, kind, i = part[0], int(part[1]), part[2], int(part[3])
    down = way == "down_blocks"
    start = level * (layers + 1) + (1 if down else 0)
    blocks = "input_blocks" if down else "output_blocks"
    if kind == "resnets":
        return f"{blocks}.{start + i}.0.{resnet[part[4]]}"
    if kind == "attentions":
        return ".".join([blocks, str(start + i), "1", *part[4:]])
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * (layers + 1)}.0.op"
    return f"output_blocks.{start + layers}.{2 if level else 1}.conv"


def kohya_ldm(rows, layers):
    renamed = [
        (c, ldm(name, layers) if c == "unet" else name, *rest) for c, name, *rest in rows
    ]
    return kohya(renamed)


def merge(model, state, weight):
    """Adds weight * alpha / rank * up down, in 32 bits, then rounds as the engine's weights are."""
    for net, prefix in ((model.unet, "lora_unet_"), (model.text, "lora_te_")):
        for name, module in net.named_modules():
            base = prefix + name.replace(".", "_")
            if base + ".lora_down.weight" not in state:
                continue
            down = state[base + ".lora_down.weight"].float()
            up = state[base + ".lora_up.weight"].float()
            alpha = state.get(base + ".alpha", torch.tensor(float(down.shape[0])))
            delta = (up.flatten(1) @ down.flatten(1)) * (float(alpha) / down.shape[0])
            module.weight.data += weight * delta.reshape(module.weight.shape)


def round_to_half(model):
    for net in (model.unet, model.text):
        for p in net.parameters():
            p.data = p.data.half().float()


def write_files(folder, load_model):
    os.makedirs(folder, exist_ok=True)
    for seed, (name, (model, rank, has_alpha, what, step)) in enumerate(SETS.items()):
        rows = make(load_model(model), rank, has_alpha, what, step, 700 + seed)
        forms = {name: kohya(rows)}
        if name == "full":
            forms["full-peft"] = peft(rows)
            forms["full-diffusers"] = diffusers(rows)
        if name == "attention":
            forms["attention-processors"] = processors(rows)
        if name == "sd":
            layers = load_model(model).unet.config.layers_per_block
            forms["sd-ldm"] = kohya_ldm(rows, layers)
        for form, state in forms.items():
            state = {k: v.contiguous() for k, v in state.items()}
            save_file(state, os.path.join(folder, form + ".safetensors"))


def write_cases(folder, load_model, run):
    """run(model, scheduler's name, case of cases.py) -> tensors"""
    for name, (model_name, spec, scheduler, width, height, *rest) in CASES.items():
        steps, guidance, seed, prompt = rest
        model = load_model(model_name)
        for part in filter(None, spec.split(",")):
            lora, _, weight = part.partition(":")
            state = load_file(os.path.join(folder, lora + ".safetensors"))
            merge(model, state, float(weight or 1))
        round_to_half(model)
        case = (model_name, scheduler, width, height, steps, guidance, seed, 1, prompt, "blurry")
        out = run(model, scheduler, case)
        keep = {k: v for k, v in out.items() if k in ("text", "image") or "latents" in k}
        save_file(keep, os.path.join(folder, name + ".golden.safetensors"))


def against_peft(root, sites):
    """In a process of its own: 0.31.0 fuses each form of names; the weights must be ours."""
    sys.path[:0] = sites
    from diffusers import StableDiffusionPipeline, __version__

    assert __version__ == "0.31.0", __version__
    for what, alpha, form in (
        ("all", True, kohya),
        ("all", True, peft),
        ("all", False, diffusers),
        ("attention", False, processors),
        ("attention", True, kohya),
    ):
        pipe = StableDiffusionPipeline.from_pretrained(
            os.path.join(root, "two"), safety_checker=None, feature_extractor=None
        )
        model = types.SimpleNamespace(unet=pipe.unet, text=pipe.text_encoder)
        rows = make(model, 4, alpha, what, 1, 5, even=True)
        start, want = copy.deepcopy(model), copy.deepcopy(model)
        merge(want, kohya(rows), 0.75)
        with tempfile.TemporaryDirectory() as folder:
            save_file(
                {k: v.contiguous() for k, v in form(rows).items()},
                os.path.join(folder, "x.safetensors"),
            )
            pipe.load_lora_weights(folder, weight_name="x.safetensors")
        pipe.fuse_lora(lora_scale=0.75)
        pipe.unload_lora_weights()
        changed = 0
        for before, ours in ((start.unet, want.unet), (start.text, want.text)):
            after = dict(ours.named_parameters())
            changed += sum(not p.data.equal(after[n].data) for n, p in before.named_parameters())
        assert changed == len(rows), changed
        worst = 0.0
        for ours, theirs in ((want.unet, model.unet), (want.text, model.text)):
            theirs = dict(theirs.named_parameters())
            for name, p in ours.named_parameters():
                worst = max(worst, float((p.data - theirs[name].data).norm() / p.data.norm()))
        print(f"{form.__name__}, {what}: {len(rows)} modules, relative difference {worst:.1e}")
        assert worst < 1e-5


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    assert sys.argv[1] == "--against-peft"
    against_peft(os.path.join(here, "models"), sys.argv[2:])
