"""One process of ``medserl sft``: verl's supervised trainer over verl's Megatron engine.

Started by torch's launcher, one process per worker: ``python -m medserl.sft.worker CONFIG``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from omegaconf import OmegaConf

from medserl.sft.checkpoints import layout_of, make_whole


def main(config_path: str) -> None:
    """Train as the resolved configuration in ``config_path`` says."""
    import torch.distributed
    import verl.trainer.sft_trainer as upstream
    from verl.utils.device import get_torch_device
    from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group_ray

    from medserl.imports import after_import
    from medserl.training.verl_plugin import mend_bridges

    after_import({"verl.models.mcore.mbridge": mend_bridges})
    config = OmegaConf.load(config_path)
    if config.trainer.device == "cpu":
        from medserl.cpu.plugin import assert_active

        assert_active()
    # The function that TrainingWorker itself calls: its sibling names the CPU's backend twice where there is no GPU.
    initialize_global_process_group_ray()
    get_torch_device().set_device(int(os.environ["LOCAL_RANK"]))
    trainer = upstream.SFTTrainer(config)
    begin_epoch(trainer)
    make_whole(trainer.ckpt_handler, layout_of(config), torch.distributed.barrier)
    # Batches are made whole (a pair's two notes belong together), so their order is the file's.
    trainer.train_sampler.shuffle = False
    trainer.fit()
    destroy_global_process_group()


def begin_epoch(trainer: Any) -> None:
    """Where the run goes on from a checkpoint at an epoch's end, begin the next epoch with all of its batches.

    verl saves the data loader's state inside its loop, at the last batch, and then begins the next epoch with it, which
    so has no batch left (verl 0.9.1, trainer/sft_trainer.py, fit; torchdata 0.11, StatefulDataLoader). A loader without
    a state is what the uninterrupted run has there. tests/sft/test_worker.py fails when verl changes one of these.

    Args:
        trainer: verl's ``SFTTrainer`` with its checkpoint loaded.
    """
    if trainer.resume_global_step and trainer.resume_global_step % trainer.steps_per_epoch == 0:
        trainer._build_dataloader()
        trainer.ckpt_handler.train_dataloader = trainer.train_dataloader


if __name__ == "__main__":
    main(sys.argv[1])
