"""The prompts that test the C tokenizer: each rule of README's "Tokenizer facts", random mixes."""

import random
import unicodedata

from tokenizers import normalizers

import tokens
import words

# fmt: off
HAND = [
    "", " ", "   ", "\n", "\t\r\n\x0b\x0c", "\u200b", "\ufeff", "\u3000", ".", "a", "A", "'", "''",
    "0", "\u0301",
    # suffixes: only U+0027, no word needed before, no word end after, case folded before
    "it's the fox's den, they've gone, we're here, I'm in, she'll go, he'd stay, don't",
    "IT'S THE FOX'S, DON'T", "it\u2019s the fox\u2019s den, don\u2019t",
    "it\u02bcs, it\uff07s, it`s, it\u00b4s", "'s't're've'm'll'd", "'sx 'tx 'rex", "1's2 3'd4",
    "''s '''t .'s ,'re !'ll", "x's's's", "'S 'T 'RE 'VE 'M 'LL 'D", "' s ' t", "'\u017fx 'ſ",
    "l'été d'or", "'\u0301s", "o'clock rock'n'roll 'tis 'twas", "'ll'", "y'all'd've",
    "'r 'v 'l 're's",
    # digits and other numbers: one code point a piece
    "12345 1,000.50 35mm 4k 8K 1893 3.14",
    "\u0661\u0662\u0663 \u06f1\u06f2 \u0967\u0968 \u0e51\u0e52 \uff11\uff12",
    "\u00bd \u00bc\u00be \u2153 x\u00b2 y\u00b3 z\u00b9 \u2070\u2074 \u2080\u2081",
    "\u2160\u2163\u2169 \u2170 \u216f \u2180", "\u3007\u3021\u3022 \u2460\u2461\u24ea \u3251",
    "\U0001d7ce\U0001d7e2 \U00010107 \U00012400 \U0001f100",
    "\u0bf0\u0bf1 \u1369\u136a \u16ee\u16ef \ua6e6 \U00010140 \U0001e8c7 \U0001fbf0\U0001fbf9",
    # white space and what only looks like it
    "a\u0085b\u00a0c\u1680d\u2000e\u200af\u2028g\u2029h\u202fi\u205fj\u3000k",
    "a\tb\nc\x0bd\x0ce\rf", "  lead and trail  ", "a\x1cb\x1dc\x1ed\x1fe",
    "a\u200bb\u200cc\u200dd\u2060e\ufefff\u180eg\u00adh", "\ufefffox", "a \u00a0\u3000\n b",
    "a \u200b b", "fox\u2028moon\u2029sea", "a\u0085\u0085b", "\u3164\u115f\u1160\uffa0x",
    "\u2800 \u2800", "\x01\x02\x03\x07\x08\x1b[0m\x7f", "\x80\x81\x9f", "a\x01b \x02 c",
    # special tokens in the text
    "<|startoftext|>", "<|endoftext|>", "foo<|endoftext|>bar", "foo <|endoftext|> bar",
    "<|startoftext|>fox<|endoftext|>", "<|STARTOFTEXT|> <|EndOfText|>", "FOX<|ENDOFTEXT|>FOX",
    "<|endoftext|><|endoftext|><|startoftext|>", "<<|endoftext|>>", "<|<|endoftext|>endoftext|>",
    "<|endoftext |> < |endoftext|> <|end oftext|>", "<|endoftext|", "|endoftext|>",
    "<|endoftext|>'s", "'<|endoftext|>s", "a'<|startoftext|>s", "12<|endoftext|>34",
    "<|endoftext|>\u0301", "<|endoftext|>\u0338", "<|ENDOFTEXT|>\u0338", "<\u0338|endoftext|>",
    "e<|endoftext|>\u0301", "  <|endoftext|>  \n <|startoftext|>\t", "<|\u0130endoftext|>",
    "<|endoftext\u200b|>", "\uff1c|endoftext|\uff1e", "<|endoftext|>" * 80,
    "fox " * 74 + "<|endoftext|> moon", "<|pad|> <|unk|> <pad> </w> fox</w> <unk> [CLS]",
    "<|ＥＮＤＯＦＴＥＸＴ|>", "<|\u212aendoftext|>", "<|endofte\u00d7t|>", "a<|startoftext|>a<|endoftext|>a",
    # lower case
    "\u0130STANBUL I\u0307 i\u0307 \u0131 I", "\u0130\u0307", "STRASSE STRA\u1e9eE stra\u00dfe",
    "\u1e9e",
    "\u03a3\u03a3\u03a3 \u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 "
    "\u03a3. \u03a3' a\u03a3 \u03a3a \u03c2\u03c3",
    "\u01c4\u01c5\u01c6 \u01c7\u01c8\u01c9 \u01ca\u01cb\u01cc \u01f1\u01f2\u01f3",
    "\u1f88\u1f80 \u1fbc \u1ffc \u1f98", "\u212a\u212b\u2126 K\u00c5\u03a9",
    "\u10a0\u10d0\u1c90 \u13a0\uab70 \u13f8", "\u24b6\u24d0 \u2160\u2170 \uff21\uff41",
    "\U00010400\U00010428 \U000104b0 \U00010c80 \U000118a0 \U00016e40 \U0001e900",
    "\u0345 \u0399\u0345 \u1fb3", "\u1e9b\u0323 \u017f \u017ft \ufb05 \ufb06 \ufb00\ufb03",
    "\ua64a \u1c80 \ua77d \u2c62 \ua7ae \ua7c2 \u0220 \u03f4",
    # composition and order of marks
    "e\u0301 \u00e9 A\u030a \u00c5", "a\u0301\u0323 a\u0323\u0301 \u1ea1\u0301",
    "q\u0307\u0323 q\u0323\u0307", "\u0301e \u0301\u0301", "d\u0323\u0307 \u1e0b\u0323",
    "a\u0315\u0300\u05ae\u0062 x\u0334\u0327\u0301", "s\u0323\u0307",
    "\u0344 \u0374 \u037e \u0387 \u1fef \u2000 \u2329\u232a",
    "\u0958\u0959 \u09dc \u0a33 \u0f43 \ufb1d \ufb2a \u2adc",
    "\u0915\u093c \u09c7\u09be \u0b47\u0b57 \u0bc6\u0bbe \u0cc6\u0cc2\u0cd5 \u0ddd "
    "\u0dd9\u0dcf\u0dca \u1025\u102e",
    "\u1100\u1161 \u1100\u1161\u11a8 \uac00\u11a8 \uac01\u11a8 \u1100\u1100 \u11a8 "
    "\ua960\ud7b0 \u1112\u1175\u11c2",
    "\uf900\ufa0e\ufa30 \U0002f800 \U0002f81a \u2f00 \u4e0d",
    "\U0001d15e \U0001d1bb \U0001109a \U0001112e \U000114bc",
    "e\u200d\u0301 e\u034f\u0301 o\u031b\u0323 \u01a0\u0323",
    "=\u0338 <\u0338 >\u0338 \u2192\u0338 \u2203\u0338", "n\u0303o\u0308u\u0308 Zu\u0308rich",
    "\u0e01\u0e33 \u0e19\u0e49\u0e33 \u0eb3 \u0f71\u0f72\u0f74 \u0f73 \u0f75 \u0f81",
    "\u05e9\u05c1\u05bc \u05e9\u05bc\u05c1 \ufb2c \u05d1\u05b0\u05bc",
    "\u0628\u0651\u064e \u0628\u064e\u0651 \u0622 \u0627\u0653",
    "\u3099\u304b\u3099 \u304b\u309a \uff76\uff9e \u30d2\u309a",
    "\u1e69\u0300 z\u0335\u0323\u0301" + "\u0301" * 40, "x" + "\u0323\u0301" * 30,
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f A\u0334\u0335\u031e L\u0320\u0368\u0367",
    # presentation forms, private use, odd corners
    "\ufb01nd the \ufb02ower o\ufb03ce", "\uff26\uff2f\uff38 \uff46\uff4f\uff58 \uff01\uff1f",
    "\ufdfa \ufe8d \ufefb \ufb50", "\ue000\uf8ff \U000f0000 \U0010fffd", "\ufffc\ufffd",
    "\u200e\u200f\u202a\u202c\u2066\u2069 rtl\u202etext",
    "\U000e0001\U000e0041\U000e007f \ufe0f\ufe0e \U000e0100",
    "_a_b__c_ -a--b- #tag @name 50% a&b a+b=c (x) [y] {z} ~/\\|",
    "\u2026\u2014\u2013\u2018\u2019\u201c\u201d\u00ab\u00bb\u203d\u00a1"
    "\u00bf\u00b7\u2022\u00a9\u00ae\u2122\u20ac\u00a3",
    "(fox:1.3), [moon], {sea|tree}, ((bright)), <lora:x:0.8>", "https://example.org/a?b=c&d=%20#e",
    "C:\\fox\\moon.png", "$ rm -rf / ; # \" ' `", "a;b # c ; d", "= [job] prompt = x",
    "\\n \\u0041 \\x00", "%s %d %n", "🦊" * 100, "🦊🌙" * 45, "e\u0301" * 120, "1" * 200, "." * 300,
    ". " * 100, "ſ" * 90, "x" * 1000, "'" * 99 + "s", "a'" * 60, "한" * 100, "ก็" * 60,
]
# fmt: on


def usable(text):
    """Assigned up to Unicode 14, and normalised alike by every Unicode library (README, step 1)."""
    if any(unicodedata.category(c) in ("Cn", "Cs") for c in text):
        return False
    return normalizers.NFC().normalize_str(text) == unicodedata.normalize("NFC", text)


def random_text(rng, codes):
    """A mix of everything, up to some hundred tokens."""

    def piece():
        kind = rng.randrange(9)
        if kind < 3:
            return rng.choice(words.SUBJECTS + words.PLACES + words.STYLES)
        if kind == 3:
            return rng.choice(rng.choice(list(words.SCRIPTS.values())).split())
        if kind == 4:
            return rng.choice(words.EMOJI)
        if kind == 5:
            return "".join(rng.choice(rng.choice(codes)) for _ in range(rng.randrange(1, 5)))
        if kind == 6:
            return rng.choice("aeiouncsz") + "".join(
                chr(rng.randrange(0x300, 0x370)) for _ in range(rng.randrange(4))
            )
        if kind == 7:
            return rng.choice(
                [
                    "'s",
                    "'LL",
                    "'",
                    "<|endoftext|>",
                    "<|STARTOFTEXT|>",
                    "..",
                    "--",
                    "42",
                    "½",
                    "Ⅷ",
                    "!?",
                ]
            )
        word = rng.choice(rng.choice(words.SUBJECTS).split())
        return rng.choice(
            [word.upper(), word.title(), unicodedata.normalize("NFD", word), word[::-1], word * 3]
        )

    gaps = [" "] * 8 + ["", "", ", ", "\n", "\u00a0", "\u3000", "\t ", "\u200b", "-"]
    return "".join(
        piece() + rng.choice(gaps) for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 21, 34, 55, 80]))
    )


def prompts():
    """All prompts, in a fixed order, without U+0000."""
    rng = random.Random(3)
    by_category = {}
    for code in range(1, 0x110000):
        by_category.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    by_category.pop("Cs"), by_category.pop("Cn")
    codes = [by_category[k] for k in sorted(by_category)]
    out = list(HAND) + list(words.SCRIPTS.values()) + words.EMOJI + words.NEGATIVES[:4]
    out += [unicodedata.normalize("NFD", t) for t in words.SCRIPTS.values()]
    out += [t.upper() for t in words.SCRIPTS.values()]
    out += [tokens.phrase(rng) for _ in range(80)]
    for chars in codes:
        picked = sorted(rng.sample(chars, min(12, len(chars))))
        out += [" ".join(picked), "".join(picked), "".join(f"a{c}b" for c in picked)] + picked[:3]
    out += [random_text(rng, codes) for _ in range(300)]
    return [t for t in dict.fromkeys(out) if usable(t) and len(t.encode()) <= 16384]


WITH_NUL = ["\0", "a\0b", "fox \0 moon", "\0\0.\0", "a\0'sb", "<|endoftext|>\0", "fox\0"]


# Letters, digits and marks that Unicode got after version 14, between what tells the difference.
YOUNG = [
    f"!{chr(c)}! a{chr(c)}b {chr(c)}7{chr(c)} a{chr(c)}\u0323 a\u0301{chr(c)}"
    for ends in (
        (0x10EFD, 0x10EFF), (0x1123F, 0x11240), (0x11F02, 0x11F33), (0x11F41, 0x11F42),
        (0x11F50, 0x11F59), (0x1342F, 0x13446), (0x1B132, 0x1B155), (0x1D2C0, 0x1D2D3),
        (0x1DF25, 0x1DF2A), (0x1E030, 0x1E06D), (0x1E08F, 0x1E08F), (0x1E4D0, 0x1E4F9),
        (0x2B739, 0x2B739), (0x2EBF0, 0x2EE5D), (0x31350, 0x323AF),
    )
    for c in ends
]  # fmt: skip
