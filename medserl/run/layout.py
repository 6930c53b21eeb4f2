"""How a run's weights are split over workers, and when a run may go on with another split. No torch.

verl writes model weights in Hugging Face's format, whatever the layout. The optimizer's state can be loaded in another
layout if it was written in megatron-core's ``fully_reshardable`` format, which
``actor.megatron.dist_ckpt_optim_fully_reshardable`` asks for and configs/base.yaml sets. Random states belong to a
rank of a layout (a megatron ``ShardedObject`` of shape PP x TP); in another one they start anew from the seed.
Nothing that MedSeRL trains draws from them: Qwen3 has no dropout, and vLLM's sampling has a seed per request.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from medserl.run import checkpoint

logger = logging.getLogger("medserl.run")
_ACTOR = "actor_rollout_ref.actor.megatron"
LAYOUT_KEYS = (
    *(
        f"actor_rollout_ref.{role}.megatron.{kind}_model_parallel_size"
        for role in ("actor", "ref")
        for kind in ("tensor", "pipeline")
    ),
    *(
        f"actor_rollout_ref.rollout.{key}"
        for key in ("tensor_model_parallel_size", "data_parallel_size", "n_gpus_per_node", "nnodes")
    ),
    "trainer.n_gpus_per_node",
    "trainer.nnodes",
)
"""Keys that say how a run is split, and nothing about what it computes."""


@dataclass(frozen=True)
class Parallel:
    """How one copy of the model is split: over ``tp`` x ``pp`` x ``cp`` workers, each copy of them a replica."""

    engine: str
    tp: int
    pp: int
    cp: int

    @property
    def workers(self) -> int:
        """Of one copy."""
        return self.tp * self.pp * self.cp


def parallel_of(config: DictConfig) -> Parallel:
    """What a configuration says of it; FSDP (``model_engine=dp``) splits over the data-parallel workers themselves."""
    megatron = OmegaConf.select(config, _ACTOR)
    if megatron is None:
        return Parallel("FSDP", 1, 1, 1)
    tp, pp = megatron.tensor_model_parallel_size, megatron.pipeline_model_parallel_size
    return Parallel("Megatron", tp, pp, megatron.get("context_parallel_size", 1))


def layout_of(config: DictConfig) -> dict[str, Any]:
    """What a checkpoint remembers of the layout that wrote it."""
    parallel = parallel_of(config)
    return {
        "engine": parallel.engine,
        "tp": parallel.tp,
        "pp": parallel.pp,
        "workers": config.trainer.nnodes * config.trainer.n_gpus_per_node,
        "reshardable": bool(OmegaConf.select(config, f"{_ACTOR}.dist_ckpt_optim_fully_reshardable")),
    }


def why_not_resharded(root: Path) -> str | None:
    """Why a run whose checkpoints lie in ``root`` cannot go on in another layout; None when it can."""
    newest, _ = checkpoint.latest_usable(root)
    if newest is None:
        return None
    layout = checkpoint.load_state(newest).get("layout") or {}
    if layout.get("reshardable"):
        return None
    if (newest / "model").is_dir():  # of `medserl sft`; `medserl train` has an actor there
        return f"{newest.name} of `medserl sft` loads in its own layout only"
    if layout.get("engine") == "FSDP":
        return f"{newest.name} was written by FSDP, whose checkpoints load only on the same number of workers"
    return f"{newest.name} was written without {_ACTOR}.dist_ckpt_optim_fully_reshardable and loads in its own layout"


def choose_checkpoint(config: DictConfig, newest: Path | None) -> None:
    """Say in the configuration which checkpoint a run goes on from.

    Args:
        config: The run's configuration, changed in place.
        newest: `medserl.run.run_dir.RunDir.newest`.
    """
    with open_dict(config):
        config.trainer.resume_mode = "disable" if newest is None else "resume_path"
        config.trainer.resume_from_path = None if newest is None else str(newest)
    leave_random_states(config, newest)


def leave_random_states(config: DictConfig, newest: Path | None) -> bool:
    """Where the checkpoint is of another TP or PP, have verl load all of it but the random states.

    Args:
        config: The run's configuration, changed in place.
        newest: The checkpoint that the run goes on from.

    Returns:
        Whether the layout is another one.
    """
    written = (checkpoint.load_state(newest).get("layout") or {}) if newest is not None else {}
    present = layout_of(config)
    if not written or all(written[key] == present[key] for key in ("tp", "pp")):
        return False
    logger.info(
        "the checkpoint is of TP %d x PP %d, this run is TP %d x PP %d: weights and optimizer are resharded, "
        "random states start anew",
        *(written["tp"], written["pp"], present["tp"], present["pp"]),
    )
    with open_dict(config):
        for trained in (config.actor_rollout_ref.actor, config.critic):
            loaded = trained.checkpoint.load_contents
            trained.checkpoint.load_contents = [item for item in loaded if item != "extra"]
    return True
