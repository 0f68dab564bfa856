#!/usr/bin/env python3
"""Text encoder and U-Net of the demo model, trained on the latents of captioned emoji.

usage: train.py DATA.npz VAE.pt OUTDIR MINUTES [--resume STATE.pt] [--state STATE.pt] [--temper T]

OUTDIR becomes a standard model directory. The VAE is vae.py's and is not trained further.
"""

import argparse
import random
import time

import numpy as np
import torch
from transformers import CLIPTokenizer

import model
import subset
from muon import Muon
from tokenizer import make_tokenizer

FACTOR = 0.18215  # between the VAE's latents and the U-Net's, in Stable Diffusion 1.x
TRAIN_STEPS = 1000
EXPORT_SECONDS = 900
SAMPLES = [
    "fox",
    "red apple",
    "crescent moon",
    "pizza",
    "rocket",
    "smiling face with sunglasses",
    "blue heart",
    "penguin",
]


def load_pictures(path):
    """The subset's pictures u8 [n,3,128,128], their names and lists of keywords."""
    data = np.load(path)
    pick = subset.indices([str(name) for name in data["names"]])
    names = [str(data["names"][i]) for i in pick]
    keywords = [
        [word for word in str(data["keywords"][i]).split("|") if word and word != name]
        for i, name in zip(pick, names)
    ]
    return torch.from_numpy(data["images"])[pick].permute(0, 3, 1, 2), names, keywords


@torch.no_grad()
def encode(vae, pictures):
    """Means and standard deviations of the latents, both [n,4,16,16]."""
    found = [
        vae.encode(pictures[i : i + 32].float() / 127.5 - 1).latent_dist
        for i in range(0, len(pictures), 32)
    ]
    return torch.cat([d.mean for d in found]), torch.cat([d.std for d in found])


def make_latents(vae, pictures):
    """Scales the VAE so that its latents have deviation 1 after FACTOR, and encodes."""
    before = encode(vae, pictures)[0].std().item()
    model.fold_scale(vae, 1 / (FACTOR * before))
    mean, deviation = (x * FACTOR for x in encode(vae, pictures))
    after, noise = mean.std().item(), deviation.mean().item()
    print(f"latents {tuple(mean.shape)}: std {before:.4f}, now {after:.4f}, noise {noise:.4f}")
    return mean, deviation


class Captions:
    """Names with variations, as token ids; an empty one now and then, for guidance."""

    def __init__(self, tokenizer, names, keywords, empty):
        self.tokenizer, self.names, self.keywords, self.empty = tokenizer, names, keywords, empty
        self.cache = {}

    def draw(self, i):
        name, keywords, luck = self.names[i], self.keywords[i], random.random()
        if luck < self.empty:
            return ""
        if luck < 0.65:
            return name
        if luck < 0.75:
            return random.choice(("a ", "an emoji of ", "a picture of ", "a drawing of ")) + name
        if luck < 0.80:
            return name + " emoji"
        if not keywords:
            return name
        some = random.sample(keywords, min(len(keywords), random.randint(1, 2)))
        return name + ", " + ", ".join(some)

    def ids(self, text):
        if text not in self.cache:
            self.cache[text] = self.tokenizer(
                text, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
            ).input_ids[0]
        return self.cache[text]


def signal_shares():
    """Share of the picture's variance in x_t, for each of the training steps: [1000]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAIN_STEPS) ** 2
    return torch.cumprod(1 - betas, 0)


def tempered_goal(noisy, z, t, share, mean, has_caption, temperature):
    """The noise to predict in the last phase, so that usual guidance keeps its colours: the empty
    caption learns the posterior mean over all pictures at a temperature, and a caption moves only
    part of the way to its picture while noise is high, as it does in a large model."""
    signal, noise = share.sqrt(), (1 - share).sqrt()
    offsets = noisy.flatten(1)[:, None] - signal.view(-1, 1, 1) * mean.flatten(1)[None]
    distances = (offsets**2).sum(-1)
    weights = torch.softmax(-distances / (2 * (1 - share).view(-1, 1) * temperature), 1)
    blur = (weights @ mean.flatten(1)).view_as(z)
    sure = has_caption * (1 - 0.8 * (t - 200) / 500).clamp(0.2, 1)
    return (noisy - signal * (blur + sure.view(-1, 1, 1, 1) * (z - blur))) / noise


class Trainer:
    def __init__(self, args):
        self.args = args
        pictures, names, keywords = load_pictures(args.data)
        entries = make_tokenizer(args.out + "/tokenizer", names, keywords)
        self.tokenizer = CLIPTokenizer.from_pretrained(args.out + "/tokenizer")
        print("vocabulary", entries, self.tokenizer("a red apple")["input_ids"])
        self.text, self.unet = model.build_text(entries), model.build_unet()
        self.vae = model.build_vae()
        weights = torch.load(args.vae, weights_only=True)
        self.vae.load_state_dict({name: value.float() for name, value in weights.items()})
        self.mean, self.deviation = make_latents(self.vae, pictures)
        self.captions = Captions(self.tokenizer, names, keywords, 0.30 if args.temper else 0.10)
        named = [("text." + name, p) for name, p in self.text.named_parameters()]
        named += [("unet." + name, p) for name, p in self.unet.named_parameters()]
        self.params = [p for _, p in named]
        print(sum(p.numel() for p in self.params) / 1e6, "M parameters")
        self.step = self.resume(args.resume) if args.resume else 0
        self.first_step = self.step
        self.average = [p.detach().clone() for p in self.params]
        self.optimizer = Muon(named, args.lr, args.lr / 10)
        self.share = signal_shares()
        self.unet = self.unet.to(memory_format=torch.channels_last)
        self.predict = torch.compile(self.forward) if args.compile else self.forward

    def resume(self, path):
        """Starts from the averaged weights of a state file; returns its step."""
        state = torch.load(path, weights_only=True)
        for p, value in zip(self.params, state["ema"]):
            p.data.copy_(value.float())
        print("resumed at", state["step"])
        return state["step"]

    def forward(self, noisy, t, context):
        return self.unet(noisy, t, context).sample

    def loss(self):
        """One batch: the loss to minimise (min-SNR weights, at most 5), and the plain error."""
        pick = torch.randint(len(self.mean), (self.args.batch,))
        z = self.mean[pick] + self.deviation[pick] * torch.randn_like(self.mean[pick])
        noise = torch.randn_like(z)
        t = torch.randint(TRAIN_STEPS, (self.args.batch,))
        share = self.share[t].view(-1, 1, 1, 1)
        noisy = share.sqrt() * z + (1 - share).sqrt() * noise
        texts = [self.captions.draw(i) for i in pick.tolist()]
        context = self.text(input_ids=torch.stack([self.captions.ids(s) for s in texts]))[0]
        guess = self.predict(noisy.contiguous(memory_format=torch.channels_last), t, context)
        goal = noise
        if self.args.temper:
            has_caption = torch.tensor([float(bool(s)) for s in texts])
            temper = self.args.temper
            goal = tempered_goal(noisy, z, t, share, self.mean, has_caption, temper)
        error = ((guess - goal) ** 2).mean((1, 2, 3))
        ratio = self.share[t] / (1 - self.share[t])
        return (ratio.clamp(max=5) / ratio * error).mean(), error.mean().item()

    def advance(self, done):
        """One step of the optimizer, at a share of the time; returns the error and the factor of
        the learning rate."""
        ours = self.step - self.first_step + 1
        factor = min(1, ours / 100) * min(1, (1 - done) / 0.6 + 0.01)
        loss, error = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step(factor)
        self.step += 1
        keep = min(0.998, (ours + 1) / (ours + 20))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.params], 1 - keep)
        return error, factor

    @torch.no_grad()
    def export(self):
        """Writes model directory, state file and a sheet of samples with the averaged weights."""
        live = [p.detach().clone() for p in self.params]
        for p, value in zip(self.params, self.average):
            p.copy_(value)
        model.save_model(self.args.out, self.text, self.unet, self.vae)
        state = {"ema": [value.half() for value in self.average], "step": self.step}
        torch.save(state, self.args.state)
        generator = torch.get_rng_state()
        parts = {"text_encoder": self.text, "unet": self.unet, "vae": self.vae}
        parts["tokenizer"] = self.tokenizer
        model.draw_sheet(self.args.out + "/samples.png", parts, SAMPLES, guidance=7.5)
        torch.set_rng_state(generator)
        for p, value in zip(self.params, live):
            p.copy_(value)

    def run(self):
        start = exported = time.time()
        limit, errors = self.args.minutes * 60, []
        while time.time() - start < limit:
            error, factor = self.advance((time.time() - start) / limit)
            errors.append(error)
            if self.step % 50 == 0:
                seconds, mean = time.time() - start, sum(errors) / len(errors)
                print(f"{self.step} {seconds:.0f}s loss {mean:.4f} lr x{factor:.3f}", flush=True)
                errors = []
            if time.time() - exported > EXPORT_SECONDS:
                self.export()
                exported = time.time()
        self.export()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("vae")
    parser.add_argument("out")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--resume", help="a state file to start from")
    parser.add_argument("--state", default="state.pt", help="the state file to write")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--temper", type=float, help="last phase: see tempered_goal()")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    random.seed(time.time())
    torch.manual_seed(0)
    Trainer(args).run()


if __name__ == "__main__":
    main()
