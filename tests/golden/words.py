"""Our own words and phrases: what the tokenizers are trained on and the prompts are made of."""

SUBJECTS = """
a red fox|an old lighthouse|the astronaut|a sleeping cat|two swans|a steam engine
a mountain village|the harbour|a glass of water|an owl with round glasses|a robot gardener
a wooden bridge|the queen of winter|a bowl of cherries|a fishing boat|an empty theatre
a paper crane|the baker's window|a violin|a field of sunflowers|a tiny dragon|a lantern in the fog
the watchmaker|a street market|a horse without a rider|an apple tree|the moon over the river
a clay teapot|a girl flying a kite|a portrait of a sailor|seven candles|a whale above the clouds
a garden shed
""".strip().replace("\n", "|").split("|")

PLACES = """
in a quiet forest|by the sea|on a rooftop at night|under heavy rain|in deep snow
at the edge of the desert|inside a library|on the kitchen table|behind a stone wall
near the railway station|among tall grass|in the year 1893|beneath the northern lights|on Mars
in my grandmother's house|along the canal|after the storm|before sunrise
""".strip().replace("\n", "|").split("|")

STYLES = """
oil painting|watercolour|pencil sketch|photograph, 35mm|studio lighting|low angle|very detailed
soft focus|in the style of a woodcut|isometric view|pastel colours|high contrast|black and white
cinematic|concept art|stained glass|ink on paper|trending|sharp edges|warm light|wide angle lens
macro shot|minimalist poster
""".strip().replace("\n", "|").split("|")

NEGATIVES = """
blurry|low quality|watermark|text, signature|extra fingers|cropped|jpeg artifacts|out of frame
dull colours
""".strip().replace("\n", "|").split("|")

SCRIPTS = {
    "french": "le renard rouge dort près de l'église où l'été s'achève déjà, "
    "garçon naïf, cœur, à Noël",
    "german": "der große Fuchs läuft über die Straße, schöne Grüße, Äpfel und Öl, STRASSE, Maß, ẞ",
    "spanish": "el niño come piñas y sueña con el corazón de la montaña, ¿qué más?, ¡ay!",
    "portuguese": "a manhã de verão, coração, três irmãs, avô e avó, não há pão",
    "polish": "zażółć gęślą jaźń, wąż śpi, łódź płynie, źródło",
    "czech": "příliš žluťoučký kůň úpěl ďábelské ódy",
    "turkish": "İstanbul'da ılık bir ışık, şiir, göğüs, DİYARBAKIR, ırmak, IĞDIR",
    "vietnamese": "một con cáo đỏ đứng dưới ánh trăng, phở, người, nước Việt Nam, đẹp quá",
    "icelandic": "það er ævintýri í þorpinu, hús og eyjar, ÞÓRÐUR",
    "romanian": "țară și oraș, înțelept, dimineața",
    "greek": "η αλεπού κοιμάται κάτω από τον ουρανό, ΟΔΥΣΣΕΥΣ, Σίσυφος, φως της θάλασσας, ΑΣ ΣΑΣ",
    "polytonic": "ἄνδρα μοι ἔννεπε, Μοῦσα, πολύτροπον, ᾧ ᾠδή, Ὀδυσσεύς",
    "russian": "рыжая лиса спит под деревом, ёлка, объём, ПОДЪЕЗД, синее море и белый снег",
    "ukrainian": "їжак і лелека, ґанок, щастя, Київ, сонце сходить",
    "serbian": "љубав и њива, џеп, ћирилица, ђак",
    "georgian": "წითელი მელა ტყეში, ᲗᲑᲘᲚᲘᲡᲘ, მთვარე",
    "armenian": "կարմիր աղվես անտառում, ԵՐԵՎԱՆ, և լուսին",
    "hebrew": "שועל אדום ישן ביער, שָׁלוֹם, יְרוּשָׁלַיִם, ירח מלא",
    "arabic": "الثعلب الأحمر ينام تحت القمر، السَّلَامُ عَلَيْكُمْ، ١٢٣٤، مدينة",
    "persian": "روباه سرخ در جنگل، می‌خواهم، ۴۵۶، گل و پرنده",
    "urdu": "لال لومڑی چاند کے نیچے، ٹھنڈا پانی",
    "syriac": "ܫܠܡܐ ܥܠܝܟܘܢ",
    "hindi": "लाल लोमड़ी चाँद के नीचे सोती है, नमस्ते, क्षत्रिय, ज़मीन, १२३",
    "bengali": "লাল শিয়াল চাঁদের নিচে, কোথায়, ১২৩",
    "tamil": "சிவப்பு நரி நிலவின் கீழ், கோவில், ௧௨௩",
    "telugu": "ఎర్ర నక్క చంద్రుని కింద, ౧౨",
    "kannada": "ಕೆಂಪು ನರಿ ಚಂದ್ರನ ಕೆಳಗೆ",
    "malayalam": "ചുവന്ന കുറുക്കൻ, ചന്ദ്രൻ, ൧൨",
    "sinhala": "රතු නරියා සඳ යට, ශ්‍රී ලංකා",
    "thai": "จิ้งจอกแดงนอนใต้แสงจันทร์ น้ำใจ ๑๒๓",
    "lao": "ໝາຈອກແດງ ນອນ ໑໒",
    "tibetan": "ཝ་མོ་དམར་པོ་ བཀྲ་ཤིས་བདེ་ལེགས། ༡༢",
    "burmese": "မြေခွေးနီ လရောင်အောက် ၁၂",
    "khmer": "កញ្ជ្រោងក្រហម ក្រោមព្រះចន្ទ ១២",
    "amharic": "ቀይ ቀበሮ በጫካ ፩፪",
    "cherokee": "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ꭰꭱꭲ",
    "mongolian": "улаан үнэг, ᠮᠣᠩᠭᠣᠯ",
    "chinese": "一只红色的狐狸在月光下睡觉，水墨画，山水，龍與鳳，三百六十五，〇〇七",
    "japanese": "赤い狐が月の下で眠る、ガラスの城、東京タワー、がぎぐげご、ｶﾞｷﾞｸﾞ、㍿、第１章",
    "korean": "붉은 여우가 달빛 아래에서 잠을 잔다, 한국어, 값어치, ㄱㄴㄷ",
    "jamo": "한국 각 가까",
    "fullwidth": "ＡＢＣ ａｂｃ １２３ ！？ ｆｏｘ",
    "maths": "𝐟𝐨𝐱 𝔣𝔬𝔵 ℝ ∑ ∫ √2 ≠ ≤ ∞ x² y₃ ½ ¾ ⅔ π≈3.14159 𝟘𝟙𝟚",
    "deseret": "𐐔𐐯𐑅𐐨𐑉𐐯𐐻",
    "gothic": "𐌲𐌿𐍄𐌹𐍃𐌺",
    "runes": "ᚠᚢᚦᚨᚱᚲ ᛗᛟᚾ",
    "ogham": "ᚅᚑᚌ ᚋᚐᚊᚔ",
    "coptic": "ⲁⲃⲅ ⲀⲂⲄ",
    "glagolitic": "ⰀⰁⰂ ⰰⰱⰲ",
}

EMOJI = """
🦊|🌙|🏔️|👩‍🚀|👨‍👩‍👧‍👦|👍🏽|🧑🏿‍🎨|🏳️‍🌈|❤️|❤️‍🔥|🇩🇪🇫🇷|1️⃣|#️⃣|😀😃😄|🐈‍⬛|🫠|☕︎|☕️|🧙🏻‍♀️|⛄|🎨🖌️|🏴󠁧󠁢󠁳󠁣󠁴󠁿
""".strip().split("|")
