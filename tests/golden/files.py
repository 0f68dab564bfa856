"""PNG and JPEG files of every kind that is read, and the pixels Pillow makes of them.

write(folder) writes `files/NAME.png|jpg` and `files.txt`: name, width, height, SHA-256 of the RGB
bytes. PNG files are written here, since Pillow cannot write most kinds; where Pillow reads a kind
as it should, what it reads must be what was meant.
"""

import hashlib
import io
import os
import shutil
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}
NAMES = {GRAY: "gray", RGB: "rgb", PALETTE: "palette", GRAY_ALPHA: "graya", RGBA: "rgba"}
DEPTHS = {
    GRAY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GRAY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack(row, depth):
    """[width, channels] -> bytes of a row"""
    row = row.reshape(-1)
    if depth == 16:
        return row.astype(">u2").tobytes()
    if depth == 8:
        return row.astype(np.uint8).tobytes()
    bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
    return np.packbits(bits.reshape(-1)).tobytes()


def filtered(rows, bpp):
    """Each row by another of the five filters."""
    out, before = b"", None
    for y, row in enumerate(rows):
        row = np.frombuffer(row, np.uint8).astype(int)
        up = np.zeros_like(row) if before is None else before
        left, corner = (np.concatenate([np.zeros(bpp, int), r])[: len(r)] for r in (row, up))
        p = left + up - corner
        near = [abs(p - left), abs(p - up), abs(p - corner)]
        paeth = np.where(
            (near[0] <= near[1]) & (near[0] <= near[2]),
            left,
            np.where(near[1] <= near[2], up, corner),
        )
        guess = (0 * row, left, up, (left + up) // 2, paeth)[y % 5]
        out += bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        before = row
    return out


def png(values, kind, depth, interlaced=False, extra=(), after=(), level=9):
    """values [height, width, channels] as stored; extra: chunks before the pixels."""
    height, width, channels = values.shape
    bpp = max(1, channels * depth // 8)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    data = b""
    for x0, y0, dx, dy in passes:
        part = values[y0::dy, x0::dx]
        if part.size:
            data += filtered([pack(row, depth) for row in part], bpp)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    body = zlib.compress(data, level)
    half = len(body) // 2
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(*e) for e in extra)
        + chunk(b"IDAT", body[:half])
        + chunk(b"IDAT", body[half:])
        + b"".join(chunk(*e) for e in after)
        + chunk(b"IEND", b"")
    )


def on_white(rgba):
    """[.., 4] u8 -> Pillow's picture pasted on white"""
    image = Image.fromarray(rgba, "RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    over = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert (np.array(over) == np.array(white)).all()
    return np.array(white)


def meant(values, kind, depth, palette=None, trns=None):
    """What a viewer shows: [height, width, 3] u8. 16 bits: the upper 8."""
    top = (1 << depth) - 1
    if kind == PALETTE:
        colors = np.full((256, 4), 255, np.uint8)
        colors[: len(palette), :3] = palette
        if trns is not None:
            colors[: len(trns), 3] = trns
        return on_white(colors[values[:, :, 0]])
    v8 = values >> 8 if depth == 16 else values * (255 // top)
    alpha = np.full(values.shape[:2], 255)
    if kind in (GRAY_ALPHA, RGBA):
        alpha = v8[:, :, -1]
    elif trns is not None:
        alpha = np.where((values == np.array(trns)).all(axis=2), 0, 255)
    color = v8[:, :, :3] if kind in (RGB, RGBA) else np.repeat(v8[:, :, :1], 3, axis=2)
    return on_white(np.dstack([color, alpha]).astype(np.uint8))


def pillow(data):
    """What Pillow shows of a file."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return on_white(np.array(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def pillow_errs(kind, depth, trns):
    """Gray of 16 bits is clipped to 255; a transparent colour of 2, 4 or 16 bits is not scaled."""
    return depth == 16 and (kind == GRAY or trns is not None) or depth in (2, 4) and trns is not None and kind == GRAY


def png_files():
    """name, file, pixels meant, whether Pillow reads others (None: it refuses)"""
    rng = np.random.RandomState(66)
    for kind, depths in DEPTHS.items():
        for depth in depths:
            top = (1 << depth) - 1
            for interlaced in (False, True):
                values = rng.randint(0, top + 1, (13, 19, CHANNELS[kind]))
                extra, palette = [], None
                if kind == PALETTE:
                    palette = rng.randint(0, 256, (top + 1, 3)).astype(np.uint8)
                    extra.append((b"PLTE", palette.tobytes()))
                name = f"{NAMES[kind]}-{depth}{'-interlaced' if interlaced else ''}"
                yield name, png(values, kind, depth, interlaced, extra), meant(
                    values, kind, depth, palette
                ), pillow_errs(kind, depth, None)
                if kind in (GRAY_ALPHA, RGBA) or interlaced:
                    continue
                if kind == PALETTE:
                    trns = rng.randint(0, 256, max(1, top * 2 // 3))
                    block = bytes(trns.tolist())
                else:
                    trns = values[5, 5]
                    values[2:4, 3:9] = trns
                    block = struct.pack(f">{len(trns)}H", *trns)
                extra.append((b"tRNS", block))
                yield name + "-trns", png(values, kind, depth, False, extra), meant(
                    values, kind, depth, palette, trns
                ), pillow_errs(kind, depth, trns)


def tiff(orientation, big, kind=3):
    order = ">" if big else "<"
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
    entries = [
        struct.pack(order + "HHI", 0x010F, 2, 4) + b"abc\0",
        struct.pack(order + "HHI", 0x0112, kind, 1) + value,
    ]
    body = struct.pack(order + "H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return (b"MM\0*" if big else b"II*\0") + struct.pack(order + "I", 8) + body


def odd_png_files():
    """Sizes, metadata that is passed over, EXIF in every place."""
    rng = np.random.RandomState(67)
    for w, h in ((1, 1), (2, 3), (5, 1), (1, 9)):
        values = rng.randint(0, 256, (h, w, 4))
        for interlaced in (False, True):
            name = f"rgba-{w}x{h}{'-interlaced' if interlaced else ''}"
            yield name, png(values, RGBA, 8, interlaced), meant(values, RGBA, 8), False
    values = rng.randint(0, 256, (9, 12, 3))
    noise = [
        (b"gAMA", struct.pack(">I", 100000)),
        (b"cHRM", b"\0" * 32),
        (b"iCCP", b"bad\0\0" + zlib.compress(b"no profile")),
        (b"bKGD", b"\0\1\0\2\0\3"),
        (b"tEXt", b"parameters\0nothing"),
        (b"zTXt", b"x\0\0" + zlib.compress(b"a" * 4000)),
        (b"prVt", b"whatever"),
    ]
    yield "rgb-noise", png(values, RGB, 8, False, noise, noise[4:]), meant(values, RGB, 8), False
    broken = [(b"eXIf", b"XX broken, long enough")]
    yield "exif-broken", png(values, RGB, 8, False, broken), meant(values, RGB, 8), None
    for o in range(1, 9):
        exif = [(b"eXIf", tiff(o, o % 2 == 0))]
        first = png(values, RGB, 8, False, exif)
        shown = np.array(turned(Image.fromarray(values.astype(np.uint8)), o))
        yield f"exif-{o}", first, shown, False
    last = png(values, RGB, 8, False, (), [(b"eXIf", tiff(6, True, 4))])
    yield "exif-6-last", last, shown_as(values, 6), False
    yield "exif-9", png(values, RGB, 8, False, [(b"eXIf", tiff(9, True))]), meant(values, RGB, 8), False


def shown_as(values, orientation):
    return np.array(turned(Image.fromarray(values.astype(np.uint8)), orientation))


def turned(image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.getexif()[0x0112] = orientation
    return ImageOps.exif_transpose(image) or image


def smooth(width, height):
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 120 * np.sin(x / a + c) * np.cos(y / b) for a, b, c in ((5, 7, 0), (9, 4, 1), (3, 11, 2))]
    return Image.fromarray(np.dstack(waves).astype(np.uint8))


def jpeg(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def adobe(transform):
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def jpeg_files():
    image = smooth(37, 29)
    cmyk = jpeg(image.convert("CMYK"), quality=90)
    assert cmyk.count(b"Adobe") == 1
    at = cmyk.index(b"Adobe") + 11
    plain = jpeg(image, quality=85)
    rows = {
        "gray": jpeg(image.convert("L"), quality=80),
        "444": jpeg(image, quality=90, subsampling=0),
        "422": jpeg(image, quality=75, subsampling=1),
        "420": jpeg(image, quality=50, subsampling=2),
        "420-odd": jpeg(smooth(17, 1), quality=90, subsampling=2),
        "1x1": jpeg(smooth(1, 1), quality=90),
        "progressive": jpeg(image, quality=80, progressive=True),
        "progressive-gray": jpeg(image.convert("L"), quality=80, progressive=True),
        "optimized": jpeg(image, quality=95, optimize=True),
        "restarts": jpeg(image, quality=80, restart_marker_blocks=2),
        "cmyk": cmyk,
        "cmyk-progressive": jpeg(image.convert("CMYK"), quality=60, progressive=True),
        "cmyk-bare": cmyk[: at - 15] + cmyk[at + 1 :],
        "ycck": cmyk[:at] + b"\2" + cmyk[at + 1 :],
        "rgb": plain[:2] + adobe(0) + plain[20:],
        "ycc": plain[:20] + adobe(1) + plain[20:],
        "icc": jpeg(image, quality=85, icc_profile=b"no profile"),
        "trailing": plain + b"more" * 20,
    }
    for o in range(1, 9):
        rows[f"exif-{o}"] = jpeg(image, quality=85, exif=b"Exif\0\0" + tiff(o, o % 2 == 1))
    rows["exif-long"] = jpeg(image, quality=85, exif=b"Exif\0\0" + tiff(8, False, 4))
    rows["exif-0"] = jpeg(image, quality=85, exif=b"Exif\0\0" + tiff(0, False))
    for name, data in rows.items():
        yield name, data, pillow(data)


def write(folder):
    files = os.path.join(folder, "files")
    shutil.rmtree(files, ignore_errors=True)
    os.makedirs(files)
    lines = []

    def keep(name, data, shown):
        assert shown.dtype == np.uint8 and shown.shape[2] == 3
        with open(os.path.join(files, name), "wb") as f:
            f.write(data)
        digest = hashlib.sha256(np.ascontiguousarray(shown).tobytes()).hexdigest()
        lines.append(f"{name} {shown.shape[1]} {shown.shape[0]} {digest}\n")

    for source in (png_files, odd_png_files):
        for name, data, shown, errs in source():
            if errs is not None:
                seen = pillow(data)
                same = seen.shape == shown.shape and (seen == shown).all()
                assert same != errs, (name, "Pillow reads it otherwise than expected")
            keep(name + ".png", data, shown)
    for name, data, shown in jpeg_files():
        keep(name + ".jpg", data, shown)
    with open(os.path.join(folder, "files.txt"), "w", encoding="ascii") as f:
        f.writelines(lines)
