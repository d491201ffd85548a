"""The tokenizers' test corpus: hand-written seeds in many scripts, code, emoji, odd white space, digits,
control characters and invalid UTF-8, and lines mixed from them by a seeded generator. Written for this
project; nothing is quoted. corpus(seed) gives bytes objects, most of them valid UTF-8."""
import random
import unicodedata

SENTENCES = [
    "The baker's oven wasn't hot enough, so we'll wait; they've got 25 loaves and I'm hungry.",
    "WE'LL SEE WHAT THEY'VE DONE, SHE'D SAID: IT'S 9 O'CLOCK, DON'T'VE WORRIED.",
    "Could you send the invoice (no. 2024-117) to our office by Friday, please?",
    "A quick note: prices rose 3.5% to $1,299.00 in 2023/24 -- see page 12, table 4.b!",
    "Die Bäckerin öffnet früh; Straßenbahnen fahren über die Brücke, außer sonntags.",
    "L'été dernier, nous n'avions qu'une règle : « ne jamais gâcher le pain » -- d'accord ?",
    "El niño compró un kilo de harina; ¿cuánto cuesta? ¡Demasiado caro, señora!",
    "A padaria não abre às segundas-feiras, mas há pão de ontem no balcão.",
    "Il forno è già caldo: perché non c'è più lievito nella città?",
    "Ekmek fırını sabah erkenden açılır; İstanbul'da ılık bir gün, şimdi çıkıyoruz.",
    "Piekarz wstaje wcześnie, żeby chleb był gotów; łódź płynie rzeką.",
    "Pekař přišel příliš pozdě, těsto už kynulo; ďábel čekal, až vyjde měsíc.",
    "Toko roti itu buka pukul enam pagi, dan nasi goreng tersedia setiap hari kerja.",
    "Người thợ bánh dậy sớm để nướng bánh mì; giá hôm nay là mười lăm nghìn đồng.",
    "Пекарь встаёт рано, чтобы хлеб был готов к семи утра; объём муки -- пятьдесят килограммов.",
    "Пекар уранці їде до міста, щоб з'їсти ще теплий хліб; ґанок порожній.",
    "Ο φούρναρης ξυπνά νωρίς· το ψωμί είναι έτοιμο στις επτά, έτσι δεν είναι;",
    "يستيقظ الخباز باكرًا، والخبز جاهز في السابعة صباحًا؛ السعر ١٢٫٥ دينار.",
    "نانوا صبح زود بیدار می‌شود و نان را می‌پزد؛ قیمت ۱۲۳۴ تومان است.",
    "האופה קם מוקדם, והלחם מוכן בשבע; שָׁלוֹם לכל השכנים!",
    "रोटी बनाने वाला सुबह जल्दी उठता है और सात बजे तक रोटी तैयार होती है। मूल्य ₹१२३ है।",
    "রুটি প্রস্তুতকারক ভোরে ওঠে, সাতটার মধ্যে রুটি তৈরি হয়; দাম ৪৫ টাকা।",
    "ரொட்டி செய்பவர் அதிகாலையில் எழுகிறார்; ஏழு மணிக்கு ரொட்டி தயார்.",
    "రొట్టె చేసేవాడు ఉదయాన్నే లేస్తాడు; ధర ౧౨౩ రూపాయలు.",
    "คนทำขนมปังตื่นแต่เช้า ขนมปังพร้อมตอนเจ็ดโมง ราคา ๑๒๓ บาท",
    "អ្នកដុតនំក្រោកពីព្រលឹម នំប៉័ងរួចរាល់នៅម៉ោងប្រាំពីរ។",
    "မုန့်ဖုတ်သမား မနက်စောစောထသည်။ ဈေးနှုန်း ၁၂၃ ကျပ်။",
    "面包师每天很早起床，七点钟面包就准备好了。价格是１２３元（含税）。",
    "麵包師傅清晨四點起床，揉麵、發酵、烘烤；價格一百二十三元。",
    "パン屋さんは朝早く起きて、七時までにパンを焼きます。値段は１２３円です。ｶﾀｶﾅも。",
    "제빵사는 아침 일찍 일어나서 일곱 시까지 빵을 굽습니다. 가격은 1,230원입니다.",
    "მცხობელი ადრე დგება, პური შვიდ საათზე მზადაა.",
    "Հացթուխը վաղ է արթնանում, հացը պատրաստ է ժամը յոթին։",
    "ዳቦ ጋጋሪው በማለዳ ይነሳል፤ ዳቦው በሰባት ሰዓት ይደርሳል። ዋጋ ፲፪ ብር።",
    "Ọmọ ilé-búrẹ́dì máa ń jí ní òwúrọ̀; ẹ kú iṣẹ́ o!",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎦᏚ ᎠᏰᏙᏗ.",
]
CODE = [
    "def bake(loaves: int, *, oven=None) -> list[str]:\n    return [f\"loaf-{i:03d}\" for i in range(loaves)]",
    "for (size_t i = 0; i < n; ++i) {\n\tif (a[i] != b[i]) return -1;  // first difference\n}\n",
    "SELECT name, COUNT(*) FROM orders WHERE price >= 9.99 AND city <> 'Jakarta' GROUP BY name;",
    "{\"id\": 42, \"tags\": [\"rye\", \"spelt\"], \"nested\": {\"ok\": true, \"none\": null, \"x\": -1.5e-7}}",
    "<div class=\"loaf\" id='l1'>&nbsp;<b>Rye</b>&#x20AC; 4</div>",
    "$ grep -rn 'flour' ./recipes | sort -u > /tmp/out.txt 2>&1",
    "x = 0xDEADBEEF ^ (1 << 31); y = ~x & 0b1010'1010;",
    "template <class T, int N>\nstruct Tray { T loaves[N]; };\r\n#define BAKE(x) ((x) * (x))\r\n",
    "https://example.org/bread?type=rye&size=L#price or mail baker@example.org",
    "def f():\n        pass\n\n\n        return None\n\n",
    "let crumbs = flour.filter(f => f?.grams > 100 && !f.old) ?? [];",
]
SYMBOLS = [
    "👩‍🍳🥖👨‍👩‍👧‍👦 family", "🇮🇩🇧🇷🇸🇬🇩🇪", "👍🏽👍🏿✌️☺️", "1️⃣2️⃣#️⃣", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "❤️‍🔥 and ♥︎", "∑∫√∞≠≤≥±×÷",
    "→←↑↓⇒⇔", "½¼¾²³⁴₅ⅧⅫ①②㊿", "€£¥₹₽₿¢", "“quoted” ‘single’ „low“ ‹angle›", "—–‒―…•·", "™®©℠℃℉№",
    "ﬁne ﬂour ﬀ ﬆ ŉ Ǆ", "𝒷𝓇𝑒𝒶𝒹 𝔟𝔯𝔢𝔞𝔡 𝟙𝟚𝟛", "ＦＵＬＬ　ＷＩＤＴＨ", "a̐éö̲ Å Å Å", "b\u0335\u0322\u031br\u0337e\u0338\u034e\u035da\u0301\u0323d", "zero​width‌joiner‍here⁠x",
    "soft­hyphen", "‮right to left‬", "\ufeffbyte order mark", "'ſ 'S 'ſtart I'ſ 'VE 'Ll 'rE 'D 'M", "''s '' 't'", "▁▁ already ▁escaped ▁",
    "<|im_start|>user\nhello<|im_end|>", "text<|endoftext|>text", "<|im_start|><|im_end|><|im_end", "<s> </s> <unk> <pad> <0x41> <0x0A>",
    "say <tool>  now </tool>   then @word or x@word, @words @word!", "cafe\u0301 café cafe\u0301s", "[INST] <<SYS>> [/INST]", "<table><td>  x</td></table>",
]
SPACES = [
    " ", "  ", "   ", "        ", "\t", "\t\t", " \t ", "\n", "\n\n", "\r\n", "\r", "\n \n", "  \n  ", "\u00a0", "\u3000", "\u2003",
    "\u2028", "\u0085", "\v", "\f", "\u202f", "\u1680", " \u00a0 ", "\n\t\n", "\r\r\n",
]
DIGITS = [
    "0", "7", "42", "123", "1234", "12345", "3.14159", "1,000,000", "2024-02-29T23:59:59Z", "+62 812-3456-7890", "0x1F", "1e-9",
    "٠١٢٣٤٥", "۱۲۳", "१२३४", "๑๒๓", "１２３４", "²³", "Ⅷ", "½", "①②", "10%", "$5", "v1.2.3", "00000000", "999999999999",
]
CONTROLS = ["\x00", "\x01\x02", "\x07", "\x1b[31m", "\x7f", "\u0080\u009f", "\x04\x06\x13\x14\x16\x1d", "\ufffd", "\ufffe", "\uffff", "\U0010ffff"]
INVALID = [
    b"\xff", b"\xfe\xff", b"\x80", b"\xbf\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xe2\x82", b"\xe2\x28\xa1", b"\xe0\x80\x80",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x9f\x98", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80",
    b"\xf1\xf2\xf6\xf7\xf9\xfa\xfb\xfc\xfd", b"\xe4\xbd", b"\xa0",
]


def _words():
    return [w for s in SENTENCES for w in s.split(" ")]


def _random_points(rng, count):
    """Assigned characters; this Python's Unicode is older than those of all libraries compared."""
    out = []
    while len(out) < count:
        plane = rng.choice([0x250, 0x3000, 0xFFFF, 0xFFFF, 0x1FFFF, 0x10FFFF])
        c = chr(rng.randrange(1, plane))
        if unicodedata.category(c) not in ("Cn", "Cs"):
            out.append(c)
    return "".join(out)


def _mixed(rng, words):
    parts = []
    for _ in range(rng.randrange(1, 14)):
        kind = rng.random()
        if kind < 0.55:
            parts.append(rng.choice(words))
        elif kind < 0.65:
            parts.append(rng.choice(DIGITS))
        elif kind < 0.72:
            parts.append(rng.choice(SYMBOLS))
        elif kind < 0.78:
            parts.append(rng.choice(CODE)[: rng.randrange(4, 40)])
        elif kind < 0.82:
            parts.append(rng.choice(CONTROLS))
        elif kind < 0.87:
            parts.append(rng.choice("!?.,;:'\"()[]{}<>|/\\@#%^&*-_=+~`") * rng.randrange(1, 5))
        elif kind < 0.92:
            parts.append(_random_points(rng, rng.randrange(1, 6)))
        elif kind < 0.95:
            parts.append(unicodedata.normalize("NFD", rng.choice(words)))
        else:
            parts.append(rng.choice(words).upper())
        parts.append(rng.choice(SPACES) if rng.random() < 0.25 else rng.choice([" ", " ", " ", ""]))
    return "".join(parts)


def corpus(seed, lines=2400):
    rng = random.Random(seed)
    words = _words()
    out = [s.encode() for s in SENTENCES + CODE + SYMBOLS + SPACES + DIGITS + CONTROLS]
    out += [s.encode() for s in ("", "a", "aa", " a", "a ", "  a  b  ", "a" * 300, " " * 300, "1" * 100, "\n" * 70, "ab" * 200, "語" * 90, "é" * 60)]
    out += INVALID
    while len(out) < lines:
        kind = rng.random()
        if kind < 0.20:
            line = " ".join(rng.choice(words) for _ in range(rng.randrange(3, 15))).encode()
        elif kind < 0.86:
            line = _mixed(rng, words).encode()
        elif kind < 0.93:
            line = _random_points(rng, rng.randrange(1, 25)).encode()
        else:
            line = bytearray(_mixed(rng, words).encode())
            for _ in range(rng.randrange(1, 4)):
                at = rng.randrange(len(line) + 1)
                line[at : at + rng.randrange(2)] = rng.choice(INVALID)
            line = bytes(line)
        out.append(line)
    return out


def is_valid(line):
    try:
        line.decode()
        return True
    except UnicodeDecodeError:
        return False
