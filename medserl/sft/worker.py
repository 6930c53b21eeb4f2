"""One process of ``medserl sft``: verl's supervised trainer over verl's Megatron engine.

Started by torch's launcher, one process per worker: ``python -m medserl.sft.worker CONFIG``.
"""

from __future__ import annotations

import os
import sys

from omegaconf import OmegaConf


def main(config_path: str) -> None:
    """Train as the resolved configuration in ``config_path`` says."""
    import verl.trainer.sft_trainer as upstream
    from verl.utils.device import get_torch_device
    from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group_ray

    config = OmegaConf.load(config_path)
    if config.trainer.device == "cpu":
        from medserl.cpu.plugin import assert_active

        assert_active()
    # The function that TrainingWorker itself calls: its sibling names the CPU's backend twice where there is no GPU.
    initialize_global_process_group_ray()
    get_torch_device().set_device(int(os.environ["LOCAL_RANK"]))
    trainer = upstream.SFTTrainer(config)
    # Batches are made whole (a pair's two notes belong together), so their order is the file's.
    trainer.train_sampler.shuffle = False
    trainer.fit()
    destroy_global_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
