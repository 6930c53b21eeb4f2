"""Rows of like length come together, each once, within the limit."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from medserl.cpu.micro_batches import like_lengths


@given(st.lists(st.integers(1, 1024), max_size=60), st.integers(1, 9000))
def test_every_row_is_in_one_group_within_the_limit(lengths: list[int], limit: int) -> None:
    groups = like_lengths(lengths, limit)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= limit
    bounds = [(max(lengths[i] for i in group), min(lengths[i] for i in group)) for group in groups]
    assert all(shorter[0] <= longer[1] for longer, shorter in itertools.pairwise(bounds))


@given(st.lists(st.integers(200, 800), min_size=24, max_size=60))
def test_little_is_padded(lengths: list[int]) -> None:
    """On rows as MEDEC has them: less than where each is as long as the longest of all, and never more."""
    padded = sum(len(group) * max(lengths[i] for i in group) for group in like_lengths(lengths, 2048))
    assert padded <= len(lengths) * max(lengths)
    assert padded - sum(lengths) <= 10 * (max(lengths) - min(lengths))  # at most ten rows a group, sorted
