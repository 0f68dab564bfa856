"""AutoencoderKL with Stable Diffusion's topology and tensor names, any width; trains on 128x128 emoji crops.
usage: vae.py DATA.npz OUT.pt MINUTES [START.pt]"""

import sys
import time
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from muon import Muon
import subset

CH, GROUPS, LAYERS, Z = (16, 32, 96, 128), 4, 1, 4


class Res(nn.Module):
    def __init__(s, i, o):
        super().__init__()
        s.norm1 = nn.GroupNorm(GROUPS, i, 1e-6)
        s.conv1 = nn.Conv2d(i, o, 3, padding=1)
        s.norm2 = nn.GroupNorm(GROUPS, o, 1e-6)
        s.conv2 = nn.Conv2d(o, o, 3, padding=1)
        if i != o:
            s.conv_shortcut = nn.Conv2d(i, o, 1)

    def forward(s, x):
        h = s.conv1(F.silu(s.norm1(x)))
        h = s.conv2(F.silu(s.norm2(h)))
        return (s.conv_shortcut(x) if hasattr(s, "conv_shortcut") else x) + h


class Attn(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.group_norm = nn.GroupNorm(GROUPS, c, 1e-6)
        for k in ("query", "key", "value", "proj_attn"):
            setattr(s, k, nn.Linear(c, c))

    def forward(s, x):
        b, c, h, w = x.shape
        t = s.group_norm(x).flatten(2).transpose(1, 2)
        a = torch.softmax(s.query(t) @ s.key(t).transpose(1, 2) * c**-0.5, -1) @ s.value(t)
        return x + s.proj_attn(a).transpose(1, 2).reshape(b, c, h, w)


class Mid(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.attentions = nn.ModuleList([Attn(c)])
        s.resnets = nn.ModuleList([Res(c, c), Res(c, c)])

    def forward(s, x):
        return s.resnets[1](s.attentions[0](s.resnets[0](x)))


class Sample(nn.Module):
    def __init__(s, c, up):
        super().__init__()
        s.up = up
        s.conv = nn.Conv2d(c, c, 3, 1 if up else 2, 1 if up else 0)

    def forward(s, x):
        return s.conv(
            F.interpolate(x, scale_factor=2.0, mode="nearest") if s.up else F.pad(x, (0, 1, 0, 1))
        )


class Block(nn.Module):
    def __init__(s, i, o, n, up, last):
        super().__init__()
        s.resnets = nn.ModuleList([Res(i if j == 0 else o, o) for j in range(n)])
        if not last:
            setattr(s, "upsamplers" if up else "downsamplers", nn.ModuleList([Sample(o, up)]))

    def forward(s, x):
        for r in s.resnets:
            x = r(x)
        for k in ("upsamplers", "downsamplers"):
            if hasattr(s, k):
                x = getattr(s, k)[0](x)
        return x


class Coder(nn.Module):
    def __init__(s, dec):
        super().__init__()
        s.dec = dec
        C = CH
        s.conv_in = nn.Conv2d(Z if dec else 3, C[-1] if dec else C[0], 3, padding=1)
        s.mid_block = Mid(C[-1])
        n = len(C)
        if dec:
            R = C[::-1]
            s.up_blocks = nn.ModuleList(
                [Block(R[max(i - 1, 0)], R[i], LAYERS + 1, True, i == n - 1) for i in range(n)]
            )
        else:
            s.down_blocks = nn.ModuleList(
                [Block(C[max(i - 1, 0)], C[i], LAYERS, False, i == n - 1) for i in range(n)]
            )
        c = C[0] if dec else C[-1]
        s.conv_norm_out = nn.GroupNorm(GROUPS, c, 1e-6)
        s.conv_out = nn.Conv2d(c, 3 if dec else 2 * Z, 3, padding=1)

    def forward(s, x):
        x = s.conv_in(x)
        if s.dec:
            x = s.mid_block(x)
            for b in s.up_blocks:
                x = b(x)
        else:
            for b in s.down_blocks:
                x = b(x)
            x = s.mid_block(x)
        return s.conv_out(F.silu(s.conv_norm_out(x)))


class VAE(nn.Module):
    def __init__(s):
        super().__init__()
        s.encoder = Coder(False)
        s.decoder = Coder(True)
        s.quant_conv = nn.Conv2d(2 * Z, 2 * Z, 1)
        s.post_quant_conv = nn.Conv2d(Z, Z, 1)

    def encode(s, x):
        return s.quant_conv(s.encoder(x)).chunk(2, 1)

    def decode(s, z):
        return s.decoder(s.post_quant_conv(z))


def crops(d, n, k, g, pick=None):
    i = (
        torch.randint(len(d), (n,), generator=g)
        if pick is None or torch.rand(1, generator=g) < 0.2
        else pick[torch.randint(len(pick), (n,), generator=g)]
    )
    o = torch.randint(0, (128 - k) // 8 + 1, (n, 2), generator=g) * 8
    f = torch.rand(n, generator=g) < 0.5
    x = (
        torch.stack(
            [
                d[i[j], o[j, 0] : o[j, 0] + k, o[j, 1] : o[j, 1] + k].permute(2, 0, 1)
                for j in range(n)
            ]
        ).float()
        / 127.5
        - 1
    )
    x[f] = x[f].flip(3)
    return x


LR = float(__import__("os").environ.get("LR", 0.01))


def main(data, out, minutes, start=None):
    torch.manual_seed(0)
    npz = np.load(data)
    d = torch.from_numpy(npz["images"])
    pick = torch.tensor(subset.indices([str(x) for x in npz["names"]]))
    m = VAE().to(memory_format=torch.channels_last)
    g = torch.Generator().manual_seed(1)
    if start:
        m.load_state_dict(torch.load(start))
    print(sum(p.numel() for p in m.parameters()) / 1e6, "M params", flush=True)
    opt = Muon(m.named_parameters(), LR, 1e-3)
    t0 = time.time()
    T = minutes * 60
    step = 0
    ema = {k: v.clone() for k, v in m.state_dict().items()}
    acc = 0
    while time.time() - t0 < T:
        f = (time.time() - t0) / T
        k = min(1, (step + 1) / 50) * min(1, (1 - f) / 0.7 + 0.02)
        x = crops(d, 16 if f < 0.85 else 5, 64 if f < 0.85 else 128, g, pick).contiguous(
            memory_format=torch.channels_last
        )
        mu, lv = m.encode(x)
        lv = lv.clamp(-30, 20)
        z = mu + torch.exp(0.5 * lv) * torch.randn_like(mu)
        y = m.decode(z)
        l1 = (y - x).abs().mean()
        gr = ((y[..., 1:] - y[..., :-1]) - (x[..., 1:] - x[..., :-1])).abs().mean() + (
            (y[:, :, 1:] - y[:, :, :-1]) - (x[:, :, 1:] - x[:, :, :-1])
        ).abs().mean()
        ms = (F.avg_pool2d(y, 4) - F.avg_pool2d(x, 4)).abs().mean()
        kl = 0.5 * (mu**2 + lv.exp() - 1 - lv).mean()
        loss = l1 + gr + ms + 5e-4 * kl
        opt.zero_grad()
        loss.backward()
        opt.step(k)
        step += 1
        acc += l1.item()
        e = min(0.995, step / (step + 50))
        with torch.no_grad():
            for k, v in m.state_dict().items():
                ema[k].lerp_(v, 1 - e)
        if step % 50 == 0:
            print(
                step,
                f"{time.time()-t0:.0f}s l1 {acc/50:.4f} kl {kl.item():.2f} std {mu.std().item():.3f}",
                flush=True,
            )
            acc = 0
        if step % 500 == 0:
            torch.save(ema, out)
    torch.save(ema, out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), *sys.argv[4:5])
