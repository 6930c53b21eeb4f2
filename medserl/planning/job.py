"""What a configuration asks of its machines, as numbers that the planner can vary. No torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.config.refused import GAE
from medserl.errors import ConfigError
from medserl.planning.shapes import Ends, Shape, find_shape, stage_layers


@dataclass(frozen=True)
class Training:
    """How a training is split, and what it moves to the host: verl's actor, or its supervised trainer."""

    nodes: int
    gpus_per_node: int
    tp: int
    pp: int
    tokens: int
    """Of one micro-batch on one GPU; where rows are counted, of that many longest ones."""
    sequence_parallel: bool
    recomputes: bool
    entropy_copies: float
    """Float32 tensors of logits in the old log-probs' pass; 0 where there is none."""
    update_copies: float
    """The same in an update."""
    rows: int | None = None
    """Of one micro-batch, where rows are counted and not tokens."""
    recomputes_attention: bool = False
    """The attention's core only, in the backward pass."""
    param_offload: bool = False
    optimizer_offload: bool = False
    cpu_adam: float = 0.0
    """Share of the optimizer that lives and computes on the host."""
    precision_aware: bool = False
    """Without it, megatron-core keeps a float32 copy of the weights on the GPU although Adam is on the host."""
    reference: bool = False
    reference_offload: bool = False
    reshardable: bool = False
    first_layers: int | None = None
    last_layers: int | None = None
    updates: bool = True
    """False where no round of the run makes an optimizer step: Adam's moments are made by the first."""

    @property
    def world(self) -> int:
        """GPUs."""
        return self.nodes * self.gpus_per_node

    @property
    def dp(self) -> int:
        """Data-parallel replicas."""
        return max(1, self.world // (self.tp * self.pp))

    def layers(self, shape: Shape) -> tuple[int, ...]:
        """Layers of each stage."""
        return stage_layers(shape, self.pp, self.first_layers, self.last_layers)


@dataclass(frozen=True)
class Rollout:
    """vLLM's engines, on the same GPUs."""

    tp: int
    share: float
    """Of each GPU's memory: ``gpu_memory_utilization``."""
    max_model_len: int
    max_num_seqs: int
    max_batched: int
    eager: bool
    bucket: float
    """Bytes of one portion of weights under way from trainer to vLLM."""
    full_precision: bool = False
    """Float32, as on CPUs."""
    cache: float | None = None
    """Bytes of the KV cache where they are given, instead of what the share leaves."""
    sleeps: bool = True
    """False where it keeps its weights and cache on the GPU while the trainer computes."""


@dataclass(frozen=True)
class Round:
    """The work of one round."""

    fresh: int
    """Notes that are played."""
    labelled: int
    """Gold-labelled notes, assessed only."""
    mini: int
    """Trajectories of one optimizer step."""
    epochs: int
    """Passes over a round's trajectories."""
    prompt: int
    response: int
    attempts: int
    """Most attempts at an edit."""
    rounds: int | None = None
    """Of the run, where the configuration says so."""
    save_every: int = 0
    kept: int | None = None
    workers: int = 0
    """Processes of agent loops on a node."""


@dataclass(frozen=True)
class Critic:
    """A model of values beside the policy: as large, split alike, on the same GPUs."""

    mini: int
    """Trajectories of one optimizer step."""
    epochs: int
    """Passes over a round's trajectories."""


@dataclass(frozen=True)
class Served:
    """A frozen model that verl serves beside the training, as judge or injector."""

    gpus: int
    rollout: Rollout
    shape: Shape | None
    """None where its directory is not seen from here."""


@dataclass(frozen=True)
class Job:
    """All of it."""

    training: Training
    round: Round
    rollout: Rollout | None
    """None for supervised fine-tuning."""
    served: Served | None = None
    critic: Critic | None = None

    def with_training(self, **changes: Any) -> Job:
        """The same with another split."""
        return dataclasses.replace(self, training=dataclasses.replace(self.training, **changes))

    @property
    def longest(self) -> int:
        """Tokens of the longest trajectory."""
        return self.round.prompt + self.round.response

    @property
    def gpus(self) -> int:
        """All GPUs, those of a frozen model too."""
        return self.training.world + (self.served.gpus if self.served else 0)


def unplanned(config: DictConfig) -> str | None:
    """Why nothing is known of a configuration's memory and time; None where it can be worked out."""
    if "engine" in config:
        return None
    if "megatron" not in config.actor_rollout_ref.actor:
        return (
            "model_engine: memory and time are worked out for Megatron only, not for FSDP's shards; "
            "leave model_engine=dp out"
        )
    return None


def job_of(config: DictConfig) -> Job:
    """What a configuration of ``load_config`` or ``load_sft_config`` asks for.

    Raises:
        ConfigError: as ``unplanned`` says.
    """
    if (reason := unplanned(config)) is not None:
        raise ConfigError(reason)
    return _supervised(config) if "engine" in config else _reinforced(config)


def _reinforced(config: DictConfig) -> Job:
    actor, _rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    reference = config.actor_rollout_ref.ref.megatron
    rows = None if actor.use_dynamic_bsz else int(actor.ppo_micro_batch_size_per_gpu or 1)
    longest = config.data.max_prompt_length + _response(config)
    entropy = bool(actor.calculate_entropy or actor.entropy_coeff)
    # verl 0.9.1, transformer_impl.py, logits_processor: the logits and, for the entropy, a clone of them and what its
    # formula makes of them; in pieces where it is chunked, which keeps them all for a backward pass. Half a tensor is
    # the bf16 output that the float32 logits are made of.
    chunked = bool(actor.entropy_from_logits_with_chunking)
    training = Training(
        **_split(config, actor.megatron, actor.optim),
        tokens=rows * longest if rows else actor.ppo_max_token_len_per_gpu,
        rows=rows,
        entropy_copies=2.5 if chunked else 3.5,
        update_copies=4.0 if entropy else 2.5,
        reference=bool(config.algorithm.use_kl_in_reward or actor.use_kl_loss),
        reference_offload=bool(reference.param_offload),
        updates=not 0 < (config.medserl.max_rounds or 0) < config.trainer.critic_warmup,
    )
    return Job(training, _round(config), _sharing(config), _served(config), _critic(config))


def _response(config: DictConfig) -> int:
    return int(config.data.max_response_length)


def _round(config: DictConfig) -> Round:
    settings, actor = config.medserl, config.actor_rollout_ref.actor
    return Round(
        fresh=settings.rollout_batch_size,
        labelled=config.data.train_batch_size - settings.rollout_batch_size,
        mini=actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n,
        epochs=actor.ppo_epochs,
        prompt=config.data.max_prompt_length,
        response=_response(config),
        attempts=settings.max_attempts,
        rounds=settings.max_rounds,
        save_every=max(0, config.trainer.save_freq),
        kept=config.trainer.max_actor_ckpt_to_keep,
        workers=settings.rollout_workers,
    )


def _rollout(rollout: DictConfig) -> Rollout:
    return Rollout(
        tp=rollout.tensor_model_parallel_size,
        share=rollout.gpu_memory_utilization,
        max_model_len=rollout.max_model_len,
        max_num_seqs=rollout.max_num_seqs,
        max_batched=rollout.max_num_batched_tokens,
        eager=bool(rollout.enforce_eager),
        bucket=(OmegaConf.select(rollout, "checkpoint_engine.update_weights_bucket_megabytes") or 0) * 2.0**20,
        full_precision=rollout.dtype in ("float32", "float"),
        cache=OmegaConf.select(rollout, "engine_kwargs.vllm.kv_cache_memory_bytes"),
    )


def _sharing(config: DictConfig) -> Rollout:
    """The policy's engines; those on CPUs cannot sleep, which medserl/planning/cpus.py counts."""
    rollout = config.actor_rollout_ref.rollout
    sleeps = bool(rollout.free_cache_engine) or config.trainer.device != "cuda"
    return dataclasses.replace(_rollout(rollout), sleeps=sleeps)


def has_critic(config: DictConfig) -> bool:
    """Whether a configuration of either kind trains one."""
    return bool(OmegaConf.select(config, "algorithm.adv_estimator") == GAE)


def _critic(config: DictConfig) -> Critic | None:
    if not has_critic(config):
        return None
    return Critic(config.critic.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n, config.critic.ppo_epochs)


def _served(config: DictConfig) -> Served | None:
    model = config.reward.reward_model
    if not model.enable:
        return None
    try:
        shape = find_shape(str(model.model_path), "reward.reward_model.model_path")
    except ConfigError:  # check_judge says so, where the run itself looks for it
        shape = None
    return Served(int(model.n_gpus_per_node * model.nnodes), _rollout(model.rollout), shape)


def _supervised(config: DictConfig) -> Job:
    data = config.data
    rows = None if data.use_dynamic_bsz else int(data.micro_batch_size_per_gpu)
    training = Training(
        **_split(config, config.engine, config.optim),
        tokens=rows * data.max_length if rows else data.max_token_len_per_gpu,
        rows=rows,
        entropy_copies=0.0,
        update_copies=2.5,
    )
    work = Round(
        fresh=0,
        labelled=data.train_batch_size,
        mini=data.train_batch_size,
        epochs=1,
        prompt=data.max_length,
        response=0,
        attempts=0,
        rounds=config.medserl.steps,
        save_every=max(0, config.trainer.save_freq),
        kept=config.trainer.max_ckpt_to_keep,
    )
    return Job(training, work, None)


def _split(config: DictConfig, megatron: DictConfig, optim: DictConfig) -> dict[str, Any]:
    own = optim.get("override_optimizer_config") or {}
    given = megatron.get("override_transformer_config") or {}
    return {
        "nodes": config.trainer.nnodes,
        "gpus_per_node": config.trainer.n_gpus_per_node,
        "tp": megatron.tensor_model_parallel_size,
        "pp": megatron.pipeline_model_parallel_size,
        "sequence_parallel": bool(megatron.sequence_parallel),
        "recomputes": given.get("recompute_granularity") == "full",
        "recomputes_attention": given.get("recompute_granularity") == "selective",
        "param_offload": bool(megatron.param_offload),
        "optimizer_offload": bool(megatron.optimizer_offload),
        "cpu_adam": float(own.get("optimizer_offload_fraction", 0.0)) if own.get("optimizer_cpu_offload") else 0.0,
        "precision_aware": bool(optim.get("use_precision_aware_optimizer")),
        "reshardable": bool(megatron.get("dist_ckpt_optim_fully_reshardable")),
        "first_layers": ends_of(megatron)[0],
        "last_layers": ends_of(megatron)[1],
    }


def ends_of(megatron: DictConfig) -> Ends:
    """What a configuration's Megatron section says of its pipeline's first and last stage."""
    given = megatron.get("override_transformer_config") or {}
    return given.get("num_layers_in_first_pipeline_stage"), given.get("num_layers_in_last_pipeline_stage")
