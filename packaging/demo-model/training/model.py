"""The demo model's parts, built from the reference's own classes, and its model directory."""

import json
import os

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

import vae as vae_module
from ref060 import mend

WIDTH, LAYERS, HEADS = 128, 3, 4  # text encoder; the U-Net's attention has as many heads
LEVELS, GROUPS = (64, 128, 160, 160), 16  # U-Net
SIDE, LATENT_SIDE = 128, 16
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PNDM = {**BETAS, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}
TEXT_FACTS = {
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
}
DIFFUSERS = "0.6.0"


def build_text(entries):
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=entries,
            bos_token_id=entries - 2,
            eos_token_id=entries - 1,
            pad_token_id=entries - 1,
            **TEXT_FACTS,
        )
    )


def build_unet():
    return mend(
        UNet2DConditionModel(
            sample_size=LATENT_SIDE,
            in_channels=4,
            out_channels=4,
            block_out_channels=LEVELS,
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=HEADS,
            norm_num_groups=GROUPS,
        )
    )


def build_vae():
    return mend(
        AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=vae_module.LEVELS,
            layers_per_block=vae_module.LAYERS,
            act_fn="silu",
            latent_channels=vae_module.LATENTS,
            norm_num_groups=vae_module.GROUPS,
            sample_size=SIDE,
        )
    )


@torch.no_grad()
def fold_scale(vae, factor):
    """Scales the latents. diffusers 0.6.0 fixes their factor at 0.18215, so the rest of the scale
    goes into the two 1x1 convolutions beside the latents."""
    vae.quant_conv.weight[:4] *= factor
    vae.quant_conv.bias[:4] *= factor
    vae.quant_conv.bias[4:] += 2 * np.log(factor)  # the upper half is the logarithm of a variance
    vae.post_quant_conv.weight /= factor


def write_json(path, value, **options):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, **options)


def save_part(folder, name, module, config):
    """fp16 weights under the reference's names, and the part's config.json."""
    write_json(f"{folder}/config.json", config, sort_keys=True, default=list)
    weights = {
        key: value.detach().half().contiguous()
        for key, value in module.state_dict().items()
        if "position_ids" not in key
    }
    save_file(weights, f"{folder}/{name}.safetensors", metadata={"format": "pt"})


def config_of(module, class_name):
    config = {key: value for key, value in dict(module.config).items() if key != "_name_or_path"}
    return {**config, "_class_name": class_name, "_diffusers_version": DIFFUSERS}


def save_model(out, text, unet, vae):
    """Everything of the model directory but the tokenizer, which tokenizer.py writes."""
    text_config = {
        **text.config.to_diff_dict(),
        **TEXT_FACTS,
        "architectures": ["CLIPTextModel"],
        "layer_norm_eps": 1e-5,
    }
    save_part(f"{out}/text_encoder", "model", text, text_config)
    weights = "diffusion_pytorch_model"
    save_part(f"{out}/unet", weights, unet, config_of(unet, "UNet2DConditionModel"))
    save_part(f"{out}/vae", weights, vae, config_of(vae, "AutoencoderKL"))
    scheduler = {
        "_class_name": "PNDMScheduler",
        "_diffusers_version": DIFFUSERS,
        **BETAS,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    }
    write_json(f"{out}/scheduler/scheduler_config.json", scheduler)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": DIFFUSERS,
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    write_json(f"{out}/model_index.json", index)


def draw_sheet(path, parts, prompts, guidance, seed=0, steps=20):
    """Draws the prompts in one batch, eight pictures to a row. parts: text_encoder, unet, vae,
    tokenizer."""
    pipe = StableDiffusionPipeline(
        **parts, scheduler=PNDMScheduler(**PNDM), safety_checker=None, feature_extractor=None
    )
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        prompts,
        height=SIDE,
        width=SIDE,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images
    rows = [np.concatenate(list(images[i : i + 8]), 1) for i in range(0, len(images), 8)]
    sheet = (np.concatenate(rows, 0) * 255).round().astype("uint8")
    Image.fromarray(sheet).save(path)
