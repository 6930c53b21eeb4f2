"""From published files to data that training and evaluation read: splits, leak checks, Parquet, statistics."""

from medserl.data.labelled import read_labelled, read_labelled_with_report
from medserl.data.records import CORRECTED_SUFFIX, LabelledExample, base_id

__all__ = ["CORRECTED_SUFFIX", "LabelledExample", "base_id", "read_labelled", "read_labelled_with_report"]
