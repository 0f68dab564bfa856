"""Muon: momentum orthogonalised by Newton-Schulz for matrices and convolutions, AdamW for the
rest (Jordan et al. 2024)."""

import torch

# Weights of two dimensions and more that AdamW is better at: tables, and the ends of a network.
ADAM_NAMES = ("embedding", "conv_in", "conv_out", "quant_conv")


def orthogonalise(matrix):
    """The nearest matrix with singular values near 1, by five quintic Newton-Schulz steps."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.size(0) > x.size(1)
    if tall:
        x = x.T
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if tall else x


class Muon:
    """An optimizer over (name, parameter) pairs; step(factor) scales both learning rates."""

    def __init__(self, named, lr=0.02, adam_lr=1e-3, momentum=0.95):
        named = [(name, p) for name, p in named if p.requires_grad]
        self.matrices = [
            p for name, p in named if p.dim() >= 2 and not any(k in name for k in ADAM_NAMES)
        ]
        ours = {id(p) for p in self.matrices}
        others = [p for _, p in named if id(p) not in ours]
        self.adam = torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.99), weight_decay=0.0)
        self.buffers = [torch.zeros_like(p) for p in self.matrices]
        self.lr, self.adam_lr, self.momentum = lr, adam_lr, momentum

    @torch.no_grad()
    def step(self, factor=1.0):
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * factor
        self.adam.step()
        for p, buffer in zip(self.matrices, self.buffers):
            buffer.lerp_(p.grad, 1 - self.momentum)
            update = orthogonalise(p.grad.lerp(buffer, self.momentum).flatten(1))
            update = update * max(1, update.size(0) / update.size(1)) ** 0.5
            p.add_(update.view_as(p), alpha=-self.lr * factor)

    def zero_grad(self):
        self.adam.zero_grad()
        for p in self.matrices:
            p.grad = None
