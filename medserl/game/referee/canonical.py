"""Canonical tokens of a note: what the whitelist calls the same becomes the same token."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from medserl.game.clinical_words import LETTERED

_TOKEN = re.compile(
    r"""
      \d{1,3}(?:,\d{3})+(?:\.\d+)? | \d+(?:\.\d+)? | \.\d+   # numbers
    | (?:[^\W\d_]\.){2,}                                     # b.i.d., p.o.
    | [^\W\d_]+\d\w* | [^\W\d_]+                             # hba1c, q12h; words
    | (?<![\w)])[-−](?=\d)                                   # a sign, not a hyphen
    | [%/<>=+±°≤≥]
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    """A word (``kind`` is empty) or a quantity in its base unit; same fields, same meaning."""

    text: str
    kind: str = ""
    """"number", "dose", "lab", "time", "age" or "frequency"."""
    dimension: str = ""
    value: float = 0.0


class Lexicon:
    """The word lists of the rules referee, compiled. Build one with `shipped_lexicon`."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._units = {
            unit: (dimension, float(factor))
            for dimension, units in data["units"].items()
            for unit, factor in units.items()
        }
        self._rates: dict[str, str | int] = data["rate_denominators"]  # its name, nothing, or its seconds
        self._labs = frozenset(data["lab_denominators"])
        self._numbers: dict[str, int] = data["number_words"]
        self._phrases: dict[str, list[tuple[tuple[str, ...], Token]]] = {}
        for phrase, per_day in data["frequencies"].items():
            self._add_phrase(phrase, Token("", "frequency", "per day", float(per_day)))
        self.synonym_groups = tuple(tuple(group) for group in data["synonyms"])
        for group in data["synonyms"]:
            for phrase in group:
                self._add_phrase(phrase, Token("=" + group[0]))
        for candidates in self._phrases.values():
            candidates.sort(key=lambda entry: -len(entry[0]))
        self.fillers = frozenset(data["fillers"])
        self.companions = self._texts(data["negation_companions"])
        self.negators = self._texts(data["negators"])
        self.negation_ends = self._texts(data["negation_ends"])
        # "afebrile" denies as "without fever" does.
        groups = [group for group in data["synonyms"] if any(_split(p)[0] in self.negators for p in group)]
        self.denials = self.negators | {"=" + group[0] for group in groups}
        self.joints = self._texts(data["joints"])
        self.qualifiers = self._texts(data["qualifiers"])
        self.wording = self._texts(data["wording"])
        self.exclusive_groups = tuple(tuple(group) for groups in data["exclusive"].values() for group in groups)
        self._exclusive: dict[frozenset[str], str] = {}
        for name, groups in data["exclusive"].items():
            for group in groups:
                members = [self._text(word) for word in group]
                pairs = (frozenset((a, b)) for a in members for b in members if a != b)
                self._exclusive.update(dict.fromkeys(pairs, name))

    def tokens(self, text: str) -> list[Token]:
        """The canonical tokens of a text."""
        words = _split(text)
        tokens: list[Token] = []
        i = 0
        while i < len(words):
            if _means_something_else(words, i):
                token, used = Token(f"={words[i]}"), 1
            else:
                token, used = self._quantity(words, i) or self._phrase(words, i) or (Token(words[i]), 1)
            tokens.append(token)
            i += used
        return tokens

    def written(self, quantity: Token) -> list[float]:
        """The numbers that a quantity may have been written with, one for each unit of its dimension."""
        dimension = quantity.dimension.partition("/")[0]
        return [quantity.value / factor for own, factor in self._units.values() if own == dimension]

    def exclusive_class(self, old: str, new: str) -> str | None:
        """ "laterality", "location" or "polarity" where the two words cannot both be true."""
        return self._exclusive.get(frozenset((old, new)))

    def _add_phrase(self, phrase: str, token: Token) -> None:
        words = tuple(_split(phrase))
        self._phrases.setdefault(words[0], []).append((words, token))

    def _phrase(self, words: list[str], i: int) -> tuple[Token, int] | None:
        for phrase, token in self._phrases.get(words[i], ()):
            if tuple(words[i : i + len(phrase)]) == phrase:
                return token, len(phrase)
        return None

    def _quantity(self, words: list[str], i: int) -> tuple[Token, int] | None:
        """A number with its unit, denominators and age marker, and how many words it takes."""
        value = self._number(words[i])
        if value is None:
            return None
        following = words[i + 1] if i + 1 < len(words) else ""
        # "two times a day" is a frequency, not the number two.
        if found := self._phrase(words, i):
            return found
        if following not in self._units:
            return Token("", "number", "", value), 1
        dimension, factor = self._units[following]
        kind, used = ("time" if dimension == "time" else "dose"), 2
        per: list[str] = []
        while i + used + 1 < len(words) and words[i + used] == "/":
            denominator = words[i + used + 1]
            if denominator not in self._rates and denominator not in self._labs:
                break
            # "mg/dL" is a laboratory value; "mg/kg/day" a dose.
            kind = kind if denominator in self._rates and denominator not in self._labs else "lab"
            over = self._rates.get(denominator, denominator)
            if isinstance(over, int):  # "mL/hr" is "mL/h", and a rate an hour can be said a day
                factor, over = factor / over, "time"
            per += [over] if over else []  # "mg/kg/dose" is "mg/kg"
            used += 2
        dimension = "/".join([dimension, *sorted(per)])
        if kind == "time" and i + used < len(words) and words[i + used] == "old":
            kind, used = "age", used + 1
        return Token("", kind, dimension, float(f"{value * factor:.6g}")), used

    def _number(self, word: str) -> float | None:
        if word in self._numbers:
            return float(self._numbers[word])
        if not (word[0].isdecimal() or (word[0] == "." and len(word) > 1)):
            return None
        return float(word.replace(",", ""))

    def _text(self, word: str) -> str:
        """The canonical text of a listed word or phrase; one that stays several tokens cannot be listed."""
        tokens = self.tokens(word)
        if len(tokens) != 1:
            raise ValueError(f"{word!r} is not one token of the lexicon")
        return tokens[0].text

    def _texts(self, words: Iterable[str]) -> frozenset[str]:
        return frozenset(self._text(word) for word in words)


def _means_something_else(words: list[str], i: int) -> bool:
    """Whether a word is not what the lists take it for: "hepatitis A" has no article, "cranial nerve IV" no vein, "ASA
    class" no aspirin, an "ER positive" tumor no emergency room."""
    word = words[i]
    before, after = (words[i - 1] if i else ""), (words[i + 1] if i + 1 < len(words) else "")
    if word in ("a", "iv"):
        return before in LETTERED or before in ("nerve", "nerves", "cn", "cns")
    if word == "er":
        return before not in ("the", "an", "our", "local", "to", "in", "from", "via", "at", "through")
    return (word == "asa" and after in _SCORED) or (word in ("sc", "im") and after in _ANATOMY)


_SCORED = frozenset(
    ["class", "classification", "grade", "physical", "ps", "score", "status", "i", "ii", "iii", "iv", "v"]
)
_ANATOMY = frozenset(["joint", "joints", "dislocation", "nail", "nails", "nailing", "rod", "rods", "vein"])


def _split(text: str) -> list[str]:
    """Words, numbers and signs in lower case; punctuation that carries no value is gone."""
    # "b.i.d." and "bid" are one word; so are "don't" and "dont".
    return [
        word if word[0].isdecimal() or word[0] == "." else word.replace(".", "")
        for word in _TOKEN.findall(text.casefold().replace("'", "").replace("’", ""))
    ]


@cache
def shipped_lexicon() -> Lexicon:
    """The lexicon of ``rules.json``, which lies beside this module."""
    return Lexicon(json.loads((Path(__file__).parent / "rules.json").read_text(encoding="utf-8")))
