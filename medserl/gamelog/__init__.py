"""The game log: every game and every held-out answer of a run, one Parquet file a round, private.

``kinds`` and ``rows`` say what stands in it, ``parts`` where, ``log`` writes it, ``read`` reads it back. No torch.
"""
