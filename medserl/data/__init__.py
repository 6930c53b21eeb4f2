"""From published files to data that training and evaluation read: splits, leak checks, Parquet, statistics."""

from medserl.data.records import CORRECTED_SUFFIX, LabelledExample, base_id

__all__ = ["CORRECTED_SUFFIX", "LabelledExample", "base_id"]
