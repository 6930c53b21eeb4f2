"""The near-duplicate search finds what comparing every pair finds."""

import random
import tempfile
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.data.near import MAX_HASHES, MISS, Signer, TextSpool, band_layout, near_pairs, sign_texts
from medserl.data.text import normalised
from medserl.errors import ConfigError
from medserl.game.vcf import shingle_similarity, visible_words

WORDS = ("pain", "fever", "left", "right", "knee", "daily", "warfarin", "500", "mg", "cough", "acute", "rash", "of")


def found(texts: Sequence[str], others: Sequence[str], threshold: float) -> dict[int, float]:
    with tempfile.TemporaryFile() as file:
        spool = TextSpool(file)
        for text in (*texts, *others):
            spool.append(text.encode())
        spool.close_writing()
        signer = Signer(threshold)
        queries = sign_texts(signer, spool, np.arange(len(texts)), lambda done: None)
        rest = sign_texts(signer, spool, np.arange(len(texts), len(spool)), lambda done: None)
        pairs = list(near_pairs(spool, signer, threshold, queries, rest))
    for pair in pairs:
        assert shingle_similarity(texts[pair.text], others[pair.other - len(texts)]) == pair.similarity
    return {pair.text: pair.similarity for pair in pairs}


def make_texts(rng: random.Random, count: int) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(count)]


def edited(rng: random.Random, text: str) -> str:
    words = text.split()
    for _ in range(rng.randint(0, 4)):
        words[rng.randrange(len(words))] = rng.choice(["zinc", "QQQ", "é", "12.5"])
    return " ".join(words)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.sampled_from([0.5, 0.7, 0.85, 0.95, 1.0]))
def test_exactly_the_pairs_of_the_plain_search(seed: int, threshold: float) -> None:
    rng = random.Random(seed)
    texts = make_texts(rng, 25)
    others = [edited(rng, text) for text in texts[:15]] + make_texts(rng, 10)
    plain = {i for i, text in enumerate(texts) if any(shingle_similarity(text, other) >= threshold for other in others)}
    assert found(texts, others, threshold).keys() == plain


def test_short_and_empty_sides() -> None:
    assert found(["a", "ab", "abc"], ["ab", "x"], 0.85) == {1: 1.0}
    assert found([], ["a"], 0.85) == found(["a"], [], 0.85) == {}


def test_the_layout_misses_few_pairs() -> None:
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.99, 1.0):
        width, bands = band_layout(threshold)
        assert width * bands <= MAX_HASHES
        assert (1 - threshold**width) ** bands <= MISS
    for bad in (0.0, 0.49, 1.01):
        with pytest.raises(ConfigError, match="--near-threshold"):
            band_layout(bad)


def test_sketches_estimate_the_similarity() -> None:
    """Else every candidate would have to be compared exactly."""
    rng, signer = random.Random(5), Signer(0.85)
    for _ in range(20):
        text, other = make_texts(rng, 2)
        alike = edited(rng, text)
        for a, b in ((text, other), (text, alike)):
            agree = float((signer.sign(a)[1] == signer.sign(b)[1]).mean())
            assert abs(agree - shingle_similarity(a, b)) < 0.25


@given(st.text() | st.text(alphabet=" \t\nab\u200b\x1c\x85"))
def test_normalised_is_what_the_change_filter_compares(text: str) -> None:
    assert normalised(text) == " ".join(visible_words(text))
