"""MedSeRL: self-play reinforcement learning that teaches one model to find medical errors in clinical notes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medserl.game import VCFRolloutGenerator, apply_vcf
    from medserl.training.api import MedSeRLTrainer

__version__ = "0.1.0"

__all__ = ["MedSeRLTrainer", "VCFRolloutGenerator", "__version__", "apply_vcf"]

_HOMES = {
    "MedSeRLTrainer": "medserl.training.api",
    "VCFRolloutGenerator": "medserl.game",
    "apply_vcf": "medserl.game",
}


def __getattr__(name: str) -> object:
    """What ``__all__`` names, imported when asked for: ``import medserl`` itself stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'medserl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
