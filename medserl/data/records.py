"""What the data commands, training and evaluation share: one labelled text."""

from medserl.game.records import CORRECTED_SUFFIX, LabelledExample, base_id

__all__ = ["CORRECTED_SUFFIX", "LabelledExample", "base_id"]
