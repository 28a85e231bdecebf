"""Strings that are hard on a tokenizer: every class boundary of the GPT-2 pattern, all planes."""

SPACES = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
NOT_SPACES = "\u180e\u200b\u200c\u200d\u2060\ufeff\x1c\x1d\x1e\x1f\x00\x7f"
MARKS = "\u0300\u0301\u0308\u0327\u0489\u093f\u20dd\u3099\ufe0f\U0001d165\U000e0100"
EMOJI = ("\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea",
         "\u2764\ufe0f", "\U0001f44d\U0001f3fd", "1\ufe0f\u20e3")
NUMBERS = "0123456789\u00b2\u00bd\u0661\u06f5\u0966\u2167\u3007\u3280\U0001d7d8\U00010107"
LETTERS = ("aAzZ\u00e4\u00df\u00e9\u0130\u03b1\u0416\u05d0\u0627\u0e01\u4e2d\uac00\u3042"
           "\U00020000\u02b0\u01c5")
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'", "''", "'r", "'l",
                "'v", "\u2019s", " 's", "'sa", "'lla", "'s's")
WORDS = ("the", "Hello", "world", "token", "ization", "Straße", "naïve", "don't", "I'll", "we've",
         "<|endoftext|>", "<|endoftext", "|>", "<unk>", "@-@", "http://a.b/c?d=e&f", "3.14",
         "1,000", "a_b", "C++", "...", "--", "\u00ad")


def code_point(source):
    while True:
        kind = source.randrange(4)
        code = (source.randrange(0x80) if kind == 0 else source.randrange(0x3000) if kind == 1 else
                source.randrange(0x10000) if kind == 2 else source.randrange(0x110000))
        if not 0xD800 <= code < 0xE000:  # surrogates are no characters
            return chr(code)


def piece(source):
    kind = source.randrange(12)
    if kind < 3:
        return source.choice(WORDS)
    if kind == 3:
        return source.choice(CONTRACTIONS)
    if kind == 4:
        return source.choice(SPACES) * source.randrange(1, 4)
    if kind == 5:
        return " " * source.randrange(1, 5)
    if kind == 6:
        return source.choice(LETTERS) + source.choice(MARKS)
    if kind == 7:
        return source.choice(EMOJI)
    if kind == 8:
        return "".join(source.choice(NUMBERS) for _ in range(source.randrange(1, 4)))
    if kind == 9:
        return source.choice(NOT_SPACES)
    if kind == 10:
        return source.choice(LETTERS) * source.choice((1, 1, 2, 3, 40))
    return "".join(code_point(source) for _ in range(source.randrange(1, 6)))


def random_strings(source, count):
    for i in range(count):
        if i % 5 == 0:
            yield "".join(code_point(source) for _ in range(source.randrange(0, 24)))
        else:
            yield "".join(piece(source) for _ in range(source.randrange(0, 12)))


def every_code_point():
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            c = chr(code)
            yield f"a{c}1{c}! {c}{c} x{c}"
