"""A small AutoencoderTiny of diffusers 0.31.0 (0.6.0 has none) and what it computes.

write(path, blocks, site) here; a child with `site` first on its path does it, as 0.31.0 cannot
share a process with 0.6.0.
"""

import json
import os
import subprocess
import sys

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "encoder_block_out_channels": [8, 8, 8, 8],
    "decoder_block_out_channels": [16, 16, 16, 16],
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "latent_channels": 4,
    "upsampling_scaling_factor": 2,
    "num_encoder_blocks": [1, 2, 1, 2],
    "num_decoder_blocks": [2, 1, 2, 1],
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "force_upcast": False,
    "scaling_factor": 1.0,
}
LATENT = (5, 7)


def write(path, blocks, site):
    """path: the taesd/ directory; blocks: the file of inputs and outputs."""
    env = {**os.environ, "PYTHONPATH": site}
    subprocess.run([sys.executable, os.path.abspath(__file__), path, blocks], env=env, check=True)


def make(path, blocks):
    import torch
    from diffusers import AutoencoderTiny, __version__
    from safetensors.torch import save_file

    assert __version__ == "0.31.0", __version__
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    g = torch.Generator().manual_seed(4711)
    vae = AutoencoderTiny(**CONFIG).eval()
    for name, p in vae.named_parameters():
        fan = p[0].numel() if p.dim() > 1 else 1
        spread = (2 / fan) ** 0.5 if p.dim() > 1 else 0.1
        if name.endswith("conv.4.weight"):
            spread *= 0.4  # a residual block adds little
        p.copy_((spread * torch.randn(p.shape, generator=g)).half().float())
    last = list(vae.decoder.layers)[-1]
    last.weight.copy_((0.15 * last.weight).half().float())
    last.bias.fill_(0.5)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as f:
        json.dump({"_class_name": "AutoencoderTiny", **CONFIG}, f, indent=2)
        f.write("\n")
    save_file(
        {k: v.half().contiguous() for k, v in vae.state_dict().items()},
        os.path.join(path, "diffusion_pytorch_model.safetensors"),
        metadata={"format": "pt"},
    )
    latents = 1.5 * torch.randn((1, 4, *LATENT), generator=g)
    image = torch.rand((1, 3, *(8 * n for n in LATENT)), generator=g).half().float()
    save_file(
        {
            "taesd.latents": latents,
            "taesd.out": vae.decode(latents).sample.contiguous(),
            "taesd.image": image,
            "taesd.encoded": vae.encode(2 * image - 1).latents.contiguous(),
        },
        blocks,
    )


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2])
