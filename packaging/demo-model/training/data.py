#!/usr/bin/env python3
"""Captioned emoji pictures, from Debian's fonts-noto-color-emoji and unicode-cldr-core.

usage: data.py OUT.npz   (images u8 [n,128,128,3] on white, names, keywords joined by "|")
"""

import argparse
import io
import unicodedata
import xml.etree.ElementTree as ElementTree

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
CLDR = "/usr/share/unicode/cldr/common"
STRIKE_SIDE = 136  # pixels of the font's bitmaps, without their padding
SIDE = 128


def read_annotations(cldr):
    """Name and keywords of every single-character emoji: {character: {"name", "keywords"}}."""
    found = {}
    for folder in ("annotations", "annotationsDerived"):
        try:
            root = ElementTree.parse(f"{cldr}/{folder}/en.xml").getroot()
        except FileNotFoundError:
            continue
        for node in root.iter("annotation"):
            character = node.get("cp").replace("\ufe0f", "")  # the emoji presentation selector
            if len(character) != 1:
                continue
            entry = found.setdefault(character, {})
            if node.get("type") == "tts":
                entry["name"] = node.text
            else:
                entry["keywords"] = [word.strip() for word in node.text.split("|")]
    return found


def is_subject(code):
    """Pictures proper: no letters and signs below U+2300, no flag letters, no skin tones."""
    return code >= 0x2300 and not 0x1F1E6 <= code <= 0x1F1FF and not 0x1F3FB <= code <= 0x1F3FF


def draw(bitmap):
    """A PNG of the font, centred on white and scaled: u8 [128,128,3]."""
    glyph = Image.open(io.BytesIO(bitmap)).convert("RGBA")
    page = Image.new("RGBA", (STRIKE_SIDE, STRIKE_SIDE), (255, 255, 255, 255))
    corner = ((STRIKE_SIDE - glyph.width) // 2, (STRIKE_SIDE - glyph.height) // 2)
    page.alpha_composite(glyph, corner)
    return np.asarray(page.convert("RGB").resize((SIDE, SIDE), Image.LANCZOS))


def collect(font_path, cldr):
    """All pictures in order of their code points: images, names, keywords."""
    font = TTFont(font_path)
    strike = font["CBDT"].strikeData[0]
    annotations = read_annotations(cldr)
    images, names, keywords = [], [], []
    for code, glyph in sorted(font.getBestCmap().items()):
        if not is_subject(code) or not hasattr(strike.get(glyph), "imageData"):
            continue
        entry = annotations.get(chr(code), {})
        name = entry.get("name") or unicodedata.name(chr(code), "").lower()
        if not name:
            continue
        images.append(draw(strike[glyph].imageData))
        names.append(name.lower())
        keywords.append("|".join(entry.get("keywords", [])).lower())
    return np.stack(images), np.array(names), np.array(keywords)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--font", default=FONT)
    parser.add_argument("--cldr", default=CLDR)
    args = parser.parse_args()
    images, names, keywords = collect(args.font, args.cldr)
    np.savez_compressed(args.out, images=images, names=names, keywords=keywords)
    print(len(images), "pictures")


if __name__ == "__main__":
    main()
