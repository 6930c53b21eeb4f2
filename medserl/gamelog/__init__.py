"""The game log: every game and every held-out answer of a run, one Parquet file a round, private.

``rows`` says what stands in it, ``log`` writes it, ``read`` reads it back. No torch.
"""
