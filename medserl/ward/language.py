"""Whether a model is one of the ward's tiny ones, and whether notes are in their language. No torch."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from medserl.files import read_json
from medserl.ward import MODEL_DIR

TOKENIZER = "tokenizer.json"
LEAST_KNOWN = 0.7
"""Share of a text's words that the tiny model's tokenizer holds: 0.90 of the ward's notes, 0.48 of MEDEC-MS's."""
SEEN = 200
_SAME = 0.95  # of the vocabulary; a tokenizer with a token or two renamed is the same still
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


@functools.cache
def _vocabulary(file: Path) -> frozenset[str]:
    try:
        return frozenset(read_json(file)["model"]["vocab"])
    except (OSError, ValueError, LookupError, TypeError):
        return frozenset()


def is_ward_model(path: str | Path) -> bool:
    """Whether a model directory has the tiny model's vocabulary: the shipped one, or one that was trained from it."""
    own = _vocabulary(MODEL_DIR / TOKENIZER)
    theirs = _vocabulary(Path(path).absolute() / TOKENIZER)
    return len(own & theirs) >= _SAME * max(len(own), len(theirs))


@functools.cache
def _words() -> frozenset[str]:
    pieces = (piece.lstrip("\u0120").lower() for piece in _vocabulary(MODEL_DIR / TOKENIZER))  # \u0120: a space
    return frozenset(piece for piece in pieces if len(piece) > 1)


def known_share(texts: Iterable[str]) -> float:
    """Share of the words of the first `SEEN` texts that the tiny model knows as such; 1.0 where there is no word."""
    found = [word.lower() for text in islice(texts, SEEN) for word in _WORD.findall(text)]
    return sum(word in _words() for word in found) / len(found) if found else 1.0
