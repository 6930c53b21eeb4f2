"""``medserl export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from medserl.errors import EXIT_OK


def export(options: argparse.Namespace) -> int:
    """Write a checkpoint as a Hugging Face model directory."""
    from medserl.training.export import export_checkpoint, find_checkpoint, readers

    source = find_checkpoint(Path(options.checkpoint))
    out = export_checkpoint(source, Path(options.out).absolute())
    print(f"{source} -> {out}, {readers(out)}")
    return EXIT_OK
