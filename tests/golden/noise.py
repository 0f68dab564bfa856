"""How far half-precision activations move the reference: the floor of any comparison."""

import contextlib

import torch


def half(value):
    if torch.is_tensor(value) and value.is_floating_point():
        return value.half().float()
    return tuple(half(v) for v in value) if isinstance(value, tuple) else value


@contextlib.contextmanager
def half_activations(model):
    """While it lasts, what each module of the model returns is rounded to half precision."""
    parts = (model.text, model.unet, model.vae)
    hooks = [
        m.register_forward_hook(lambda _m, _inputs, output: half(output))
        for part in parts
        for m in part.modules()
    ]
    yield
    for h in hooks:
        h.remove()


def compare(exact, rounded):
    """Name: relative error in L2, and the largest one relative to the largest value."""
    out = {}
    for name, want in exact.items():
        diff = rounded[name] - want
        if want.is_floating_point() and diff.abs().max() > 0:
            out[name] = (
                float(diff.norm() / want.norm()),
                float(diff.abs().max() / want.abs().max()),
            )
    return out
