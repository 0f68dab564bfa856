"""Networks under the names of single-file checkpoints (LDM), from their Hugging Face names.

The opposite way of diffusers' own converters, which check() runs on the result."""

import re

import torch

UNET_RESNET = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
]
UNET_ENDS = [
    ("conv_in.", "input_blocks.0.0."),
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
]
VAE_PARTS = [
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.resnets.1", "mid.block_2"),
    ("mid_block.attentions.0", "mid.attn_1"),
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
]
OPEN_CLIP = [
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
]


def unet(state, config):
    """The U-Net: blocks are counted through, so their numbers are counted here as well."""
    places, n = {}, 1
    layers = config["layers_per_block"]
    levels = len(config["block_out_channels"])
    for i in range(levels):
        for j in range(layers):
            places[f"down_blocks.{i}.resnets.{j}."] = f"input_blocks.{n}.0."
            places[f"down_blocks.{i}.attentions.{j}."] = f"input_blocks.{n}.1."
            n += 1
        if i + 1 < levels:
            places[f"down_blocks.{i}.downsamplers.0.conv."] = f"input_blocks.{n}.0.op."
            n += 1
    places["mid_block.resnets.0."] = "middle_block.0."
    places["mid_block.attentions.0."] = "middle_block.1."
    places["mid_block.resnets.1."] = "middle_block.2."
    n = 0
    for i, kind in enumerate(config["up_block_types"]):
        for j in range(layers + 1):
            places[f"up_blocks.{i}.resnets.{j}."] = f"output_blocks.{n}.0."
            places[f"up_blocks.{i}.attentions.{j}."] = f"output_blocks.{n}.1."
            if j == layers:
                last = 2 if "CrossAttn" in kind else 1
                places[f"up_blocks.{i}.upsamplers.0.conv."] = f"output_blocks.{n}.{last}.conv."
            n += 1
    places.update(UNET_ENDS)
    out = {}
    for key, value in state.items():
        begin = next(p for p in places if key.startswith(p))
        rest = key[len(begin) :]
        if ".resnets." in begin:
            for hf, ldm in UNET_RESNET:
                rest = re.sub("^" + hf + r"\b", ldm, rest)
        out["model.diffusion_model." + places[begin] + rest] = value
    return out


def vae(state, levels):
    """The VAE: the decoder's levels are counted from the picture's end, attention is 1x1 conv."""
    out = {}
    for key, value in state.items():
        for hf, ldm in VAE_PARTS:
            key = re.sub(r"\b" + re.escape(hf) + r"\b", ldm, key)
        key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
        key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(
            r"up_blocks\.(\d+)\.resnets\.(\d+)",
            lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}",
            key,
        )
        key = re.sub(
            r"up_blocks\.(\d+)\.upsamplers\.0",
            lambda m: f"up.{levels - 1 - int(m[1])}.upsample",
            key,
        )
        if "attn_1" in key and value.dim() == 2:
            value = value[:, :, None, None]
        out["first_stage_model." + key] = value.contiguous()
    return out


def clip(state):
    return {"cond_stage_model.transformer." + k: v for k, v in state.items()}


def open_clip(state, generator):
    """OpenCLIP's tower: q, k, v in one tensor; a last block and a projection that nobody uses."""
    prefix, out = "cond_stage_model.model.", {}
    for key, value in state.items():
        key = key.removeprefix("text_model.")
        layer = re.match(r"encoder\.layers\.(\d+)\.(.*)", key)
        if not layer:
            key = key.replace("embeddings.token_embedding", "token_embedding")
            key = key.replace("embeddings.position_embedding.weight", "positional_embedding")
            out[prefix + key.replace("final_layer_norm", "ln_final")] = value
            continue
        block, part = f"{prefix}transformer.resblocks.{layer[1]}.", layer[2]
        third = re.match(r"self_attn\.([qkv])_proj\.(weight|bias)", part)
        if third:
            out.setdefault(f"{block}attn.in_proj_{third[2]}", {})[third[1]] = value
            continue
        for hf, ldm in OPEN_CLIP:
            part = part.replace(hf, ldm)
        out[block + part] = value
    for key, value in out.items():
        if isinstance(value, dict):
            out[key] = torch.cat([value[c] for c in "qkv"])
    width = out[prefix + "ln_final.weight"].shape[0]
    last = max(int(re.search(r"resblocks\.(\d+)", k)[1]) for k in out if "resblocks" in k)
    for key in [k for k in out if f"resblocks.{last}." in k]:
        unused = key.replace(f"resblocks.{last}.", f"resblocks.{last + 1}.")
        out[unused] = torch.randn(out[key].shape, generator=generator)
    out[prefix + "text_projection"] = torch.randn((width, width), generator=generator)
    out[prefix + "logit_scale"] = torch.tensor(4.6)
    return out


def leftovers(generator):
    """Some of what training leaves in such files."""
    return {
        "alphas_cumprod": torch.rand(10, generator=generator),
        "betas": torch.rand(10, generator=generator),
        "posterior_mean_coef1": torch.rand(10, generator=generator),
        "sqrt_recip_alphas_cumprod": torch.rand(10, generator=generator),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.diffusion_modelout2bias": torch.rand(4, generator=generator),
        "global_step": torch.tensor(110000),
    }


def check(file, unet_model, vae_model, text_model, text_state):
    """diffusers 0.31.0 finds the same networks in the file."""
    from diffusers.loaders import single_file_utils as utils

    copy = {k: v.clone() for k, v in file.items()}
    config = dict(unet_model.config)
    config.update(class_embed_type=None, addition_embed_type=None)
    for model, found in (
        (unet_model, utils.convert_ldm_unet_checkpoint(dict(copy), config)),
        (vae_model, utils.convert_ldm_vae_checkpoint(dict(copy), dict(vae_model.config))),
    ):
        want = model.state_dict()
        assert set(found) == set(want), set(found) ^ set(want)
        assert all(torch.equal(found[k].reshape(want[k].shape).float(), want[k]) for k in want)
    if any("cond_stage_model.model" in k for k in file):
        found = utils.convert_open_clip_checkpoint(text_model, dict(copy))
    else:
        found = utils.convert_ldm_clip_checkpoint(dict(copy))
    for key, value in text_state.items():
        assert torch.equal(found[key].float(), value), key
