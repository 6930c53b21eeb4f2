"""Which edits change only how words are written: case, punctuation, typography, letters that look alike.

Two stretches of words say the same where they are equal after Unicode's NFKC, case folding, look-alike letters and
without punctuation. Signs that carry a value stay: those inside a number (1.5 is not 15, 2-3 is not 23), before or
behind one (-5, 5'), and operators and units (<, +, /, %).
"""

import re
import unicodedata
from collections.abc import Sequence

from medserl.game.align import Alignment

# Letters of other alphabets that a reader takes for Latin ones (a part of Unicode's confusables), small and capital.
_LOOK_ALIKE = str.maketrans(
    "авекмнорстухіјѕԁԛԝһӏгпьүαβγεικνορτυχωμηϲϳօսհոզցɑɡıɩʏᴠᴡᴏᴄᴢᴀʙᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴘʀꜱᴛᴜ",
    "abekmhopctyxijsdqwhlrnbyabyeikvoptuxwuncjouhnqgagiiyvwoczabdefghijklmnprstu",
)
_CAPITALS = str.maketrans(
    "АВЕКМНОРСТУХІЈЅԚԜӀҮЬΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹՕՍՏԼ",
    "ABEKMHOPCTYXIJSQWIYbABEZHIKMNOPTYXCOUSL",
)
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−﹣－", "-"),
        **dict.fromkeys("’‘‛ʼ′`´", "'"),
        **dict.fromkeys("“”„‟″", '"'),
        **dict.fromkeys("º˚", "°"),
        **dict.fromkeys("⁄∕", "/"),
        **dict.fromkeys("·∙⋅", "."),
        **dict.fromkeys("™®©", ""),
        **{"٫": ".", "٬": ",", "∶": ":", "×": "x", "⩽": "≤", "⩾": "≥", "ß": "ss", "→": "->", "≈": "~"},
        **{
            "ø": "o",
            "Ø": "O",
            "ł": "l",
            "Ł": "L",
            "đ": "d",
            "Đ": "D",
            "ħ": "h",
            "æ": "ae",
            "Æ": "AE",
            "œ": "oe",
            "Œ": "OE",
        },
    }
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-", "⁺")
_POWER = re.compile(r"(?<=\d)([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_FRACTION = re.compile("[¼-¾⅐-⅞↉]")
_LETTER = r"[^\W\d_]"
_ONE = re.compile(rf"(?<!{_LETTER})[lI](?=[.,]?\d)|(?<=\d)[lI](?=\d)")
_ZERO = re.compile(rf"(?<=\d)[Oo]+(?!{_LETTER})|(?<!{_LETTER})[Oo](?=[.,]?\d)")
_IN_WORD = re.compile(rf"(?<={_LETTER})[01|](?={_LETTER})|(?<={_LETTER}{{5}})(?:[01]\b|\|(?!\S))")
# Zeros that say nothing of a number's value, but in dates, times, codes and versions: "5.0", "05".
_TAIL = re.compile(r"(?<![\w.,:/'-])(\d+)(?:\.0+|(\.\d*[1-9])0+)(?!\d|[.,:/-]\d)")
_HEAD = re.compile(r"(?<![\w.,:/'-])0+(?=[1-9]\d*(?!\d|[.,:/-]\d))")
_SPELT_SIGN = re.compile(r"\+ ?/ ?-|[<>] ?=")
_UNIT_OF_TWO = re.compile(r"\b(mm|cm) (?=(?:hg|h2o)\b)")
_AMPERSAND = re.compile(r"(?<!\S)&(?!\S)")
_RANGE = re.compile(r"(?<=\d)\s*([-/])\s*(?=\d)|(?<=\d)\s+([.,:x])\s+(?=\d)")
_KEPT = frozenset("%‰/°<>=+±≤≥≠≈~^$€£µ")
_SIGN_GAP = re.compile(r" ?([%‰/°<>=±≤≥≠≈^]) ?")
_PLUS_GAP = re.compile(r"(?<=\d) (?=\+(?: |$))")
_DEGREE = re.compile(r"°(?=[cf]\b)")
_UNIT_GAP = re.compile(rf"(?<=\d) (?={_LETTER})|(?<={_LETTER}) (?=\d)")
# Punctuation that keeps its place inside a word: "1.5", "10:30", "5'2", "C3-C6".
_INSIDE = re.compile(r"(?<=\d)(?:[.,:'^-](?=\d)|-(?=[a-z]{1,2}\d))")
# Deletes what could be written otherwise: punctuation, and what looks like "l", "o", "m", "w" or "and".
_NOT_FIRM = {code: None for code in range(128) if chr(code) not in "bcefghjkpqstuxyz23456789"}
_WORD = re.compile(f"{_LETTER}+")
_FIRM_LETTERS = 3
_EDGES = ".,;:!?()[]{}\"'*_…«»‹›"


def only_cosmetic(before: Sequence[str], after: Sequence[str], alignment: Alignment) -> bool:
    """Whether in every place of an edit only the writing differs."""
    i = j = 0
    for start_a, start_b, length in (*alignment.runs, (len(before), len(after), 0)):
        if start_a > i or start_b > j:
            # With a word on either side, which says whether a lone sign stands between numbers.
            old, new = before[max(i - 1, 0) : start_a + 1], after[max(j - 1, 0) : start_b + 1]
            if not same_words(" ".join(old), " ".join(new)):
                return False
        i, j = start_a + length, start_b + length
    return True


def same_words(a: str, b: str) -> bool:
    """Whether two texts differ in how they are written only."""
    if a.isascii() and b.isascii() and a.lower().translate(_NOT_FIRM) != b.lower().translate(_NOT_FIRM):
        return False  # nearly every edit: cheaper by far
    # "follow-up" is "followup", and it is "follow up". A capital I may stand for a small l.
    for old, new in ((_written(a), _written(b)), (_written(a.replace("I", "l")), _written(b.replace("I", "l")))):
        if any(_looks_like(_bare(old, filler), _bare(new, filler)) for filler in ("", " ")):
            return True
    return False


def _looks_like(old: str, new: str) -> bool:
    """Equal, but for letters of whatever other alphabet in words that have three Latin ones besides."""
    if old == new or len(old) != len(new) or (old.isascii() and new.isascii()):
        return old == new
    places = {i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b}
    if not all(old[i].isalpha() and new[i].isalpha() and old[i].isascii() != new[i].isascii() for i in places):
        return False
    words = (set(range(*match.span())) for match in _WORD.finditer(old))
    return all(len(word - places) >= _FIRM_LETTERS for word in words if word & places)


def _written(text: str) -> str:
    """The text in one case and one alphabet, with its punctuation."""
    if not text.isascii():
        text = _POWER.sub(lambda m: "^" + m.group(1).translate(_RAISED), text).translate(_SIGNS)
        text = _FRACTION.sub(lambda m: f" {unicodedata.normalize('NFKC', m.group())} ", text)
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text))
        text = (
            "".join(_digit(c) for c in text if unicodedata.category(c) != "Mn").translate(_SIGNS).translate(_CAPITALS)
        )
    text = _ZERO.sub(lambda m: "0" * len(m.group()), _ONE.sub("1", text)).casefold()
    text = text if text.isascii() else text.translate(_LOOK_ALIKE)
    text = _IN_WORD.sub(lambda m: "o" if m.group() == "0" else "l", text).replace("rn", "m").replace("vv", "w")
    text = _RANGE.sub(lambda m: m.group(1) or m.group(2), _AMPERSAND.sub("and", text))
    text = _SPELT_SIGN.sub(lambda m: {"+": "±", "<": "≤", ">": "≥"}[m.group()[0]], _UNIT_OF_TWO.sub(r"\1", text))
    text = _HEAD.sub("", _TAIL.sub(lambda m: m.group(1) + (m.group(2) or ""), text))
    return " ".join(text.split())


def _digit(c: str) -> str:
    """A digit of any script as the one of ours."""
    return c if c.isascii() or not c.isdecimal() else str(unicodedata.decimal(c))


def _bare(text: str, filler: str) -> str:
    """Without punctuation, ``filler`` in its place inside words."""
    quoted = text.count('"') % 2 == 0
    words = " ".join(" ".join(_bare_word(word, filler, quoted) for word in text.split()).split())
    return _UNIT_GAP.sub("", _DEGREE.sub("", _SIGN_GAP.sub(r"\1", _PLUS_GAP.sub("", words))))


def _bare_word(word: str, filler: str, quoted: bool) -> str:
    if word.isalnum():
        return word
    if len(word) > 2 and not any(map(str.isalnum, word)):
        return ""  # a rule, an arrow, a face
    kept = {match.start() for match in _INSIDE.finditer(word)}
    body = word.strip(_EDGES.replace(".", ""))
    if body[:1] in "-." and body[1:2].isdigit():
        kept.add(word.index(body))
    end = len(word.rstrip(".,;:!?()[]{}*_…")) - 1
    if end > 0 and word[end - 1].isdigit() and (word[end] == "'" or (word[end] == '"' and not quoted)):
        kept.add(end)
    if 0 < end < 6 and word[end] == "-":  # "CD4-", "Rh-"
        kept.add(end)
    bare = "".join(
        c if c.isalnum() or i in kept or c in _KEPT else (filler if 0 < i < len(word) - 1 else "")
        for i, c in enumerate(word)
    )
    return "0" + bare if bare[:1] == "." else bare
