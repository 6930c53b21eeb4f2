"""What a round and a run came to: metrics of a round, curves, plots, the report page."""
