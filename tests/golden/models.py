"""Small complete model directories with random weights that behave, and their outputs by block."""

import json
import os

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import Downsample2D
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

import tokens

VAE_SCALE = 0.18215

# One row a model. down, up: the U-Net's blocks in its order, c with cross-attention, p plain.
# files: how the weights are stored (f16, f32, bf16, mixed), "variant": file names with .fp16.
MODELS = {
    # two levels, one layer (the mended downsampler), SD's order of blocks; 32-bit files
    "two": {
        "unet": {
            "widths": [16, 24],
            "layers": 1,
            "groups": 8,
            "heads": 4,
            "down": "cp",
            "up": "pc",
            "sample": 16,
        },
        "vae": {"widths": [16, 32], "layers": 1, "groups": 4},
        "text": {"width": 32, "layers": 2, "heads": 4, "act": "quick_gelu"},
        "latent": (8, 8),
        "vae_latent": (6, 10),
        "merges": 150,
        "files": "f32",
    },
    # odd head dimensions 5, 7, 11; widths that are no multiple of 8
    "odd": {
        "unet": {
            "widths": [20, 28, 44],
            "layers": 1,
            "groups": 4,
            "heads": 4,
            "down": "ccp",
            "up": "pcc",
            "sample": 12,
        },
        "vae": {"widths": [12, 20, 28], "layers": 2, "groups": 4},
        "text": {"width": 36, "layers": 3, "heads": 4, "act": "gelu"},
        "latent": (9, 13),
        "vae_latent": (5, 7),
        "merges": 150,
        "files": "f16",
    },
    # Stable Diffusion 1.x in small: four levels, two layers, factor 8; position_ids; .fp16 names
    "four": {
        "unet": {
            "widths": [16, 24, 24, 32],
            "layers": 2,
            "groups": 8,
            "heads": 2,
            "down": "cccp",
            "up": "pccc",
            "sample": 8,
        },
        "vae": {"widths": [8, 16, 24, 24], "layers": 2, "groups": 8},
        "text": {"width": 40, "layers": 3, "heads": 5, "act": "quick_gelu"},
        "latent": (9, 13),
        "vae_latent": (3, 5),
        "merges": 1500,
        "files": "f16",
        "variant": True,
        "position_ids": True,
    },
    # a plain block first, attention last; new names in the VAE's attention
    "plain-first": {
        "unet": {
            "widths": [16, 24, 32],
            "layers": 1,
            "groups": 8,
            "heads": 8,
            "down": "pcc",
            "up": "ccp",
            "sample": 16,
        },
        "vae": {"widths": [8, 16, 24], "layers": 3, "groups": 8, "attention": "new"},
        "text": {"width": 24, "layers": 1, "heads": 2, "act": "quick_gelu"},
        "latent": (7, 16),
        "vae_latent": (6, 4),
        "merges": 200,
        "files": "f16",
    },
    # three layers a block, five groups, five heads; bfloat16; 1x1 weights in the VAE's attention
    "three-layers": {
        "unet": {
            "widths": [20, 30],
            "layers": 3,
            "groups": 5,
            "heads": 5,
            "down": "cc",
            "up": "cp",
            "sample": 16,
        },
        "vae": {"widths": [12, 20], "layers": 3, "groups": 4, "attention": "1x1"},
        "text": {"width": 20, "layers": 4, "heads": 1, "act": "gelu"},
        "latent": (10, 7),
        "vae_latent": (9, 5),
        "merges": 100,
        "files": "bf16",
    },
    # ten groups of one channel, attention everywhere; time embedding the other way round;
    # one-layer VAE of factor 8
    "ten": {
        "unet": {
            "widths": [10, 20, 20, 30],
            "layers": 1,
            "groups": 10,
            "heads": 2,
            "down": "cccc",
            "up": "cccc",
            "sample": 8,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
        },
        "vae": {"widths": [8, 12, 20, 24], "layers": 1, "groups": 4},
        "text": {"width": 28, "layers": 2, "heads": 7, "act": "quick_gelu"},
        "latent": (11, 8),
        "vae_latent": (4, 3),
        "merges": 120,
        "files": "f16",
    },
    # attention in the middle only; mixed types in a file; another schedule: linear, clipping DDIM
    "mid-only": {
        "unet": {
            "widths": [12, 12, 24],
            "layers": 2,
            "groups": 12,
            "heads": 3,
            "down": "ppp",
            "up": "ppp",
            "sample": 8,
            "norm_eps": 1e-6,
        },
        "vae": {"widths": [12, 16, 16], "layers": 1, "groups": 4},
        "text": {"width": 16, "layers": 2, "heads": 2, "act": "gelu"},
        "latent": (8, 12),
        "vae_latent": (5, 5),
        "merges": 80,
        "files": "mixed",
        "scheduler": {
            "_class_name": "DDIMScheduler",
            "beta_start": 0.0005,
            "beta_end": 0.012,
            "beta_schedule": "linear",
            "clip_sample": True,
            "set_alpha_to_one": True,
        },
    },
}

# The demo model is not ours to write: only its inputs.
DEMO = {"latent": (8, 8), "vae_latent": (4, 3)}

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def mend(model):
    """0.6.0 builds a one-layer block's downsampler with its input width; others: the output's."""
    for m in model.modules():
        if isinstance(m, Downsample2D) and m.channels != m.out_channels:
            m.channels = m.out_channels
            m.conv = torch.nn.Conv2d(m.channels, m.channels, 3, stride=2, padding=m.padding)
    return model


def unet_config(row, context):
    u = row["unet"]
    kind = {"c": "CrossAttn{}Block2D", "p": "{}Block2D"}
    return {
        "act_fn": "silu",
        "attention_head_dim": u["heads"],
        "block_out_channels": u["widths"],
        "center_input_sample": False,
        "cross_attention_dim": context,
        "down_block_types": [kind[c].format("Down") for c in u["down"]],
        "downsample_padding": 1,
        "flip_sin_to_cos": u.get("flip_sin_to_cos", True),
        "freq_shift": u.get("freq_shift", 0),
        "in_channels": 4,
        "layers_per_block": u["layers"],
        "mid_block_scale_factor": 1,
        "norm_eps": u.get("norm_eps", 1e-5),
        "norm_num_groups": u["groups"],
        "out_channels": 4,
        "sample_size": u["sample"],
        "up_block_types": [kind[c].format("Up") for c in u["up"]],
    }


def vae_config(row):
    v = row["vae"]
    n = len(v["widths"])
    return {
        "act_fn": "silu",
        "block_out_channels": v["widths"],
        "down_block_types": ["DownEncoderBlock2D"] * n,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": v["layers"],
        "norm_num_groups": v["groups"],
        "out_channels": 3,
        "sample_size": row["unet"]["sample"] << (n - 1),
        "up_block_types": ["UpDecoderBlock2D"] * n,
    }


def text_config(row, vocab):
    t = row["text"]
    return {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": vocab - 2,
        "dropout": 0.0,
        "eos_token_id": vocab - 1,
        "hidden_act": t["act"],
        "hidden_size": t["width"],
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 4 * t["width"],
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": t["heads"],
        "num_hidden_layers": t["layers"],
        "pad_token_id": vocab - 1,
        "transformers_version": "4.23.1",
        "vocab_size": vocab,
    }


def randomise(model, seed):
    """Weights that keep activations near one; gains near one, biases near zero, nothing trivial."""
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        r = torch.randn(p.shape, generator=g)
        if "embedding" in name and "linear" not in name:
            p.data = r * (0.2 if "position" in name else 0.5)
        elif p.dim() == 1:
            p.data = 1 + 0.2 * r if name.endswith("weight") else 0.1 * r
        else:
            gain = 1.0
            if any(s in name for s in ("to_q", "to_k", "q_proj", "k_proj", ".query", ".key")):
                gain = 1.5
            if any(
                s in name
                for s in ("conv2", "to_out", "proj_out", "proj_attn", "net.2", "fc2", "out_proj")
            ):
                gain = 0.7
            if "time_emb_proj" in name:
                gain = 2.0
            p.data = gain * r / (p[0].numel() ** 0.5)
    return model


def fit_conv_out(unet, rows, want):
    """Ridge regression: from what conv_out reads (unfolded patches) to what it should say."""
    a, b = torch.cat(rows).double(), torch.cat(want).double()
    a = torch.cat([a, torch.ones(len(a), 1)], 1)
    w = torch.linalg.solve(a.T @ a + 0.01 * len(a) * torch.eye(a.shape[1]), a.T @ b).float()
    conv = unet.conv_out
    conv.weight.data = w[:-1].T.reshape(conv.weight.shape) + 0.1 * conv.weight.data
    conv.bias.data = w[-1] + conv.bias.data


def teach(unet, context, seed):
    """The U-Net roughly predicts noise: sampling stays bounded."""
    g = torch.Generator().manual_seed(seed)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    abar = torch.cumprod(1 - betas, 0)
    seen, rows, want = [], [], []
    hook = unet.conv_act.register_forward_hook(lambda m, i, o: seen.append(o))
    n = unet.config.sample_size
    for t in range(20, 1000, 70):
        small = torch.randn((2, 4, (n + 3) // 4, (n + 3) // 4), generator=g)
        x0 = torch.nn.functional.interpolate(small, size=(n, n), mode="bilinear")
        noise = torch.randn((2, 4, n, n), generator=g)
        unet(abar[t] ** 0.5 * x0 + (1 - abar[t]) ** 0.5 * noise, t, context)
        f = torch.nn.functional.unfold(seen.pop(), 3, padding=1)
        rows.append(f.permute(0, 2, 1).reshape(-1, f.shape[1]))
        want.append(noise.permute(0, 2, 3, 1).reshape(-1, 4))
    hook.remove()
    fit_conv_out(unet, rows, want)


def build(row, vocab, seed):
    """The three networks, their weights not yet in the type they are stored in."""
    torch.manual_seed(0)
    text = randomise(CLIPTextModel(CLIPTextConfig(**text_config(row, vocab))), seed + 1).eval()
    unet = randomise(
        mend(UNet2DConditionModel(**unet_config(row, row["text"]["width"]))), seed + 2
    ).eval()
    vae = randomise(mend(AutoencoderKL(**vae_config(row))), seed + 3).eval()
    vae.post_quant_conv.weight.data *= 0.15
    vae.decoder.conv_out.weight.data *= 0.6
    ids = torch.tensor(
        [
            [vocab - 2] + [(37 * i + 11 * j) % (vocab - 2) for i in range(1, 76)] + [vocab - 1]
            for j in range(2)
        ]
    )
    teach(unet, text(ids)[0], seed + 4)
    return text, unet, vae


def stored(state, kind, seed):
    """The tensors of a file in their stored type."""
    if kind != "mixed":
        dtype = {"f16": torch.float16, "f32": torch.float32, "bf16": torch.bfloat16}[kind]
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    cycle = [torch.float16, torch.bfloat16, torch.float32]
    return {
        k: v.to(cycle[(i + seed) % 3]) if v.is_floating_point() else v
        for i, (k, v) in enumerate(sorted(state.items()))
    }


def rename_vae(state, style):
    """The VAE's attention under its newer names, or with weights shaped as 1x1 convolutions."""
    names = {
        ".query.": ".to_q.",
        ".key.": ".to_k.",
        ".value.": ".to_v.",
        ".proj_attn.": ".to_out.0.",
    }
    out = {}
    for key, value in state.items():
        for old, new in names.items():
            if old in key and style == "1x1" and value.dim() == 2:
                value = value[:, :, None, None]
            if old in key and style == "new":
                key = key.replace(old, new)
        out[key] = value.contiguous()
    return out


def write_model(path, row, merges, seed):
    """A model directory of the row."""
    vocab = tokens.write_tokenizer(
        os.path.join(path, "tokenizer"), merges[: row["merges"]], seed % 2
    )
    text, unet, vae = build(row, vocab, seed)
    variant = ".fp16" if row.get("variant") else ""
    text_state = text.state_dict()
    if not row.get("position_ids"):
        text_state.pop("text_model.embeddings.position_ids")
    parts = [
        ("text_encoder", "model", text_state, text_config(row, vocab)),
        (
            "unet",
            "diffusion_pytorch_model",
            unet.state_dict(),
            {
                "_class_name": "UNet2DConditionModel",
                "_diffusers_version": "0.6.0",
                **unet_config(row, row["text"]["width"]),
            },
        ),
        (
            "vae",
            "diffusion_pytorch_model",
            rename_vae(vae.state_dict(), row["vae"].get("attention")),
            {"_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", **vae_config(row)},
        ),
    ]
    for i, (folder, stem, state, config) in enumerate(parts):
        os.makedirs(os.path.join(path, folder), exist_ok=True)
        tokens.write_json(os.path.join(path, folder, "config.json"), config)
        save_file(
            stored(state, row["files"], i),
            os.path.join(path, folder, stem + variant + ".safetensors"),
            metadata={"format": "pt"},
        )
    scheduler = {**SCHEDULER, **row.get("scheduler", {})}
    os.makedirs(os.path.join(path, "scheduler"), exist_ok=True)
    tokens.write_json(os.path.join(path, "scheduler", "scheduler_config.json"), scheduler)
    tokens.write_json(
        os.path.join(path, "model_index.json"),
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.6.0",
            "feature_extractor": [None, None],
            "safety_checker": [None, None],
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


class Model:
    """A model directory as our engine loads it: weights rounded to half; computed in 32 bits."""

    def __init__(self, path):
        self.tokenizer = tokens.load(os.path.join(path, "tokenizer"))
        config, state = self._read(path, "text_encoder", "model")
        self.text = CLIPTextModel(CLIPTextConfig(**config))
        self.text.load_state_dict(
            {**{k: v for k, v in self.text.state_dict().items() if "position_ids" in k}, **state}
        )
        config, state = self._read(path, "unet", "diffusion_pytorch_model")
        self.unet = mend(UNet2DConditionModel(**config))
        self.unet.load_state_dict(state)
        config, state = self._read(path, "vae", "diffusion_pytorch_model")
        self.vae = mend(AutoencoderKL(**config))
        self.vae.load_state_dict(self._old_names(state))
        self.factor = 1 << (len(config["block_out_channels"]) - 1)
        with open(os.path.join(path, "scheduler", "scheduler_config.json"), encoding="utf-8") as f:
            self.scheduler = json.load(f)
        for m in (self.text, self.unet, self.vae):
            m.eval()

    @staticmethod
    def _read(path, folder, stem):
        with open(os.path.join(path, folder, "config.json"), encoding="utf-8") as f:
            config = {k: v for k, v in json.load(f).items() if not k.startswith("_")}
        for name in (stem + ".fp16.safetensors", stem + ".safetensors"):
            if os.path.exists(os.path.join(path, folder, name)):
                state = load_file(os.path.join(path, folder, name))
                break
        return config, {
            k: v.half().float() if v.is_floating_point() else v for k, v in state.items()
        }

    @staticmethod
    def _old_names(state):
        names = {
            ".to_q.": ".query.",
            ".to_k.": ".key.",
            ".to_v.": ".value.",
            ".to_out.0.": ".proj_attn.",
        }
        out = {}
        for key, value in state.items():
            if "mid_block.attentions" in key:
                for new, old in names.items():
                    key = key.replace(new, old)
                value = value[:, :, 0, 0] if value.dim() == 4 else value
            out[key] = value
        return out


def watch(module, names, into, prefix):
    """Hooks that keep the hidden state each named part returns."""

    def keep(name):
        def hook(_module, _inputs, output):
            into[prefix + name] = (output[0] if isinstance(output, tuple) else output).clone()

        return hook

    return [
        module.get_submodule(n).register_forward_hook(keep(n.replace("decoder.", "")))
        for n in names
    ]


def picture(factor, size, draw):
    """Something like a picture in -1..1, whose latent is of that size: soft colours and noise."""
    soft = torch.nn.functional.interpolate(
        draw(1, 3, *size), scale_factor=factor, mode="bilinear", align_corners=False
    )
    noise = draw(1, 3, *(factor * n for n in size))
    return torch.tanh(0.7 * soft + 0.15 * noise).half().float()


def blocks(model, row, seed):
    """Fixed inputs and the reference's outputs of all three networks, by tensor name."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    prompts = ["a red fox under the moon, oil painting", ""]
    ids = torch.tensor([tokens.encode(model.tokenizer, p) for p in prompts])
    out["text.ids"] = ids.int()
    text = model.text(ids, output_hidden_states=True)
    out["text.out"] = text[0]
    for i, h in enumerate(text.hidden_states[1:]):
        out[f"text.layers.{i}"] = h

    def draw(*shape):
        return torch.randn(shape, generator=g).half().float()

    out["unet.sample"] = draw(2, 4, *row["latent"])
    out["unet.context"] = draw(2, 77, model.text.config.hidden_size)
    levels = len(model.unet.config.block_out_channels)
    parts = ["conv_in", "mid_block"]
    parts += [f"{side}_blocks.{i}" for side in ("down", "up") for i in range(levels)]
    for t in (1, 500, 981):
        hooks = watch(model.unet, parts, out, "unet.500.") if t == 500 else []
        out[f"unet.{t}.out"] = model.unet(out["unet.sample"], t, out["unet.context"]).sample
        for h in hooks:
            h.remove()
    out["vae.latents"] = (5.5 * draw(1, 4, *row["vae_latent"])).half().float()
    levels = len(model.vae.config.block_out_channels)
    parts = ["post_quant_conv", "decoder.conv_in", "decoder.mid_block"]
    parts += [f"decoder.up_blocks.{i}" for i in range(levels)]
    hooks = watch(model.vae, parts, out, "vae.")
    out["vae.out"] = model.vae.decode(out["vae.latents"]).sample
    for h in hooks:
        h.remove()
    out["vae.encoder.image"] = picture(model.factor, row["vae_latent"], draw)
    parts = ["conv_in", "mid_block", *(f"down_blocks.{i}" for i in range(levels))]
    hooks = watch(model.vae.encoder, parts, out, "vae.encoder.")
    out["vae.encoder.moments"] = model.vae.encode(out["vae.encoder.image"]).latent_dist.parameters
    for h in hooks:
        h.remove()
    return {k: v.contiguous() for k, v in out.items()}
