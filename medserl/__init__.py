"""MedSeRL: self-play reinforcement learning that teaches one model to find medical errors in clinical notes."""

__version__ = "0.1.0"

__all__ = ["MedSeRLTrainer", "__version__"]


def __getattr__(name: str) -> object:
    """``medserl.MedSeRLTrainer``, imported when asked for: ``import medserl`` itself stays light."""
    if name == "MedSeRLTrainer":
        from medserl.training.api import MedSeRLTrainer

        return MedSeRLTrainer
    raise AttributeError(f"module 'medserl' has no attribute {name!r}")
