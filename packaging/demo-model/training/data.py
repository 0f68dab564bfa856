#!/usr/bin/env python3
"""Captioned emoji images for the demo model, from Debian's fonts-noto-color-emoji and unicode-cldr-core.
usage: data.py OUT.npz   -> images uint8 [n,128,128,3] on white, names, keywords"""

import io
import sys
import unicodedata
import xml.etree.ElementTree as ET
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image

font = TTFont("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
strike = font["CBDT"].strikeData[0]
cmap = font.getBestCmap()
ann = {}
for f in ("annotations", "annotationsDerived"):
    try:
        root = ET.parse(f"/usr/share/unicode/cldr/common/{f}/en.xml").getroot()
    except FileNotFoundError:
        continue
    for a in root.iter("annotation"):
        cp = a.get("cp").replace("\ufe0f", "")
        if len(cp) == 1:
            d = ann.setdefault(cp, {})
            if a.get("type") == "tts":
                d["name"] = a.text
            else:
                d["kw"] = [k.strip() for k in a.text.split("|")]
imgs, names, kws = [], [], []
for cp, g in sorted(cmap.items()):
    ch = chr(cp)
    if (
        cp < 0x2300
        or 0x1F1E6 <= cp <= 0x1F1FF
        or 0x1F3FB <= cp <= 0x1F3FF
        or g not in strike
        or not hasattr(strike[g], "imageData")
    ):
        continue
    name = ann.get(ch, {}).get("name") or unicodedata.name(ch, "").lower()
    if not name:
        continue
    im = Image.open(io.BytesIO(strike[g].imageData)).convert("RGBA")
    bg = Image.new("RGBA", (136, 136), (255, 255, 255, 255))
    bg.alpha_composite(im, ((136 - im.width) // 2, (136 - im.height) // 2))
    imgs.append(np.asarray(bg.convert("RGB").resize((128, 128), Image.LANCZOS)))
    names.append(name.lower())
    kws.append("|".join(ann.get(ch, {}).get("kw", [])).lower())
np.savez_compressed(
    sys.argv[1], images=np.stack(imgs), names=np.array(names), keywords=np.array(kws)
)
print(len(imgs), names[:5], kws[:5])
