"""Checkpoints of ``medserl sft`` that are whole or absent, as those of ``medserl train`` (medserl.run.checkpoint).

verl's handler writes into its folder and moves the tracker when it is done (verl 0.9.1,
utils/checkpoint/checkpoint_handler.py:CheckpointHandler.save_checkpoint); retention is Megatron's manager's, which
removes the one before without a look at the new one. Here the handler writes beside, and the first process publishes
what was written, with a manifest of sizes and checksums. tests/sft/test_checkpoints.py fails when verl changes what is
relied on. No torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medserl.errors import ConfigError
from medserl.run import checkpoint

logger = logging.getLogger("medserl.sft")


def layout_of(config: DictConfig) -> dict[str, Any]:
    """What a checkpoint remembers of the layout that wrote it. verl keeps the position in the data per replica, and
    Megatron the optimizer per worker: so it loads in its own layout only."""
    engine, trainer = config.engine, config.trainer
    return {
        "tp": engine.tensor_model_parallel_size,
        "pp": engine.pipeline_model_parallel_size,
        "workers": trainer.nnodes * trainer.n_gpus_per_node,
        "reshardable": False,
    }


def make_whole(handler: Any, layout: dict[str, Any], barrier: Callable[[], object]) -> None:
    """Have verl's handler write its checkpoints beside, and publish them whole.

    Args:
        handler: verl's ``CheckpointHandler``; its method ``save_checkpoint`` is replaced.
        layout: Of `layout_of`.
        barrier: Waits until every process has come there.
    """
    write, root, keep = handler.save_checkpoint, Path(handler.default_local_dir), handler.max_ckpt_to_keep
    publishes = handler.rank == 0

    def save_checkpoint(step: int) -> None:
        with checkpoint.saving(root, step, "step") if publishes else nullcontext():
            barrier()  # the folder is there
            handler.default_local_dir = str(root / checkpoint.STAGING)
            handler.max_ckpt_to_keep = None  # retention is ours: Megatron's manager would look for staged paths
            try:
                write(step=step)
            finally:
                handler.default_local_dir, handler.max_ckpt_to_keep = str(root), keep
            if publishes:
                checkpoint.publish(root, step, {"layout": layout}, keep)
        barrier()

    handler.save_checkpoint = save_checkpoint


def newest(root: Path) -> Path | None:
    """The newest whole checkpoint, every file of it read; the log names those that are passed over."""
    found, complaints = checkpoint.latest_usable(root)
    for complaint in complaints:
        logger.warning("%s", complaint)
    return found


def check_described(root: Path) -> None:
    """Raise ConfigError where there are checkpoints and no manifest: a start would begin anew in their place."""
    folders = [checkpoint.folder(root, step) for step in checkpoint.steps(root)]
    if folders and not any((folder / checkpoint.MANIFEST).exists() for folder in folders):
        raise ConfigError(
            f"run directory {root.parent}: its checkpoints have no {checkpoint.MANIFEST}, so an earlier version wrote "
            "them, and nobody can say whether they are whole; go on with that version, or give another --run-dir"
        )
