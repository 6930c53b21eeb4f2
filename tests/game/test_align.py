"""Bounded word alignment against the textbook matrix."""

from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st

from medserl.game.align import align_words

WORDS = st.lists(st.sampled_from("abc"), max_size=40)


@given(WORDS, WORDS, st.integers(0, 12))
def test_distance_and_script_equal_the_textbook(textbook: ModuleType, a: list[str], b: list[str], bound: int) -> None:
    matrix = textbook.distance_matrix(a, b)
    alignment = align_words(a, b, bound)
    if matrix[-1][-1] > bound:
        assert alignment is None
        return
    assert alignment is not None
    expected = textbook.walk_back(a, b, matrix, 0, 0)
    assert alignment.distance == expected.distance
    assert alignment.substituted == expected.substituted
    assert alignment.deleted == expected.deleted
    assert alignment.inserted == expected.inserted
    matched = [(i + k, j + k) for i, j, length in alignment.runs for k in range(length)]
    assert matched == [(i, j) for i, j, _ in expected.runs]


@given(WORDS, WORDS)
def test_shared_ends_are_shared_and_do_not_overlap(a: list[str], b: list[str]) -> None:
    alignment = align_words(a, b, 80)
    assert alignment is not None
    head, tail = alignment.prefix, alignment.suffix
    assert a[:head] == b[:head]
    assert a[len(a) - tail :] == b[len(b) - tail :]
    assert head + tail <= min(len(a), len(b))


@given(WORDS, WORDS)
def test_distance_is_symmetric(a: list[str], b: list[str]) -> None:
    forth, back = align_words(a, b, 80), align_words(b, a, 80)
    assert forth is not None and back is not None
    assert forth.distance == back.distance
