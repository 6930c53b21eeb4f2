"""Micro-batches of rows of like length, so that a row is not padded to the length of another.

Packed sequences need Transformer Engine, so that on CPUs the rows of a micro-batch are as long as the longest of them.
verl balances its dynamic micro-batches by work, for GPUs whose sequences are packed: long rows with short ones
(`patches.MICRO_BATCHES`). Here rows are sorted by length and cut where the padded tokens would exceed the same limit.
On MEDEC's notes next to nothing is padded then; benchmarks/padding.py measures what that saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def like_lengths(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of rows in groups of like length, the longest rows first.

    Args:
        lengths: Tokens of each row.
        limit: Most tokens of a group, padding included; a longer row is a group by itself.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= limit:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def prepare_micro_batches(data: Any, *args: Any, **kwargs: Any) -> tuple[list[Any], list[list[int]] | None]:
    """verl's function of this name, with micro-batches of like length where they are dynamic (``use_dynamic_bsz``).

    Ranks of data parallelism may have different numbers of them: none of their collectives is inside one.

    Returns:
        The micro-batches, and the rows of each; None for the latter where they are consecutive.
    """
    import verl.utils.tensordict_utils as tu
    from verl.workers.engine import utils

    if not tu.get_non_tensor_data(data=data, key="use_dynamic_bsz", default=True):
        upstream: tuple[list[Any], list[list[int]] | None] = utils.prepare_micro_batches(data, *args, **kwargs)
        return upstream
    lengths = data["input_ids"].offsets().diff().tolist()
    groups = like_lengths(lengths, int(data["max_token_len_per_gpu"]))
    return [tu.index_select_tensor_dict(data, group) for group in groups], groups
