"""Muon: momentum orthogonalised by Newton-Schulz for matrices and convolutions, AdamW for the rest (Jordan et al. 2024)."""

import torch


def ns5(g):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm() + 1e-7)
    t = x.size(0) > x.size(1)
    if t:
        x = x.T
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if t else x


class Muon:
    def __init__(
        s,
        named,
        lr=0.02,
        adam_lr=1e-3,
        mom=0.95,
        wd=0.0,
        adam_names=("embedding", "conv_in", "conv_out", "quant_conv"),
    ):
        named = [(n, p) for n, p in named if p.requires_grad]
        s.m = [p for n, p in named if p.dim() >= 2 and not any(k in n for k in adam_names)]
        ids = {id(p) for p in s.m}
        s.adam = torch.optim.AdamW(
            [p for _, p in named if id(p) not in ids], adam_lr, betas=(0.9, 0.99), weight_decay=0.0
        )
        s.buf = [torch.zeros_like(p) for p in s.m]
        s.lr, s.alr, s.mom, s.wd = lr, adam_lr, mom, wd

    def step(s, f=1.0):
        for g in s.adam.param_groups:
            g["lr"] = s.alr * f
        s.adam.step()
        with torch.no_grad():
            for p, b in zip(s.m, s.buf):
                b.lerp_(p.grad, 1 - s.mom)
                u = p.grad.lerp(b, s.mom).flatten(1)
                u = ns5(u) * max(1, u.size(0) / u.size(1)) ** 0.5
                if s.wd:
                    p.mul_(1 - s.lr * f * s.wd)
                p.add_(u.view_as(p), alpha=-s.lr * f)

    def zero_grad(s):
        s.adam.zero_grad()
        for p in s.m:
            p.grad = None
