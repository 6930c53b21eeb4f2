"""What verl can do and MedSeRL does not: other engines and estimators, and keys of verl's that have no effect here.

Left alone, a run that names one of them would pass every check and then train something else than it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from medserl.errors import ConfigError, Problems, all_told

_POLICY = ("actor_rollout_ref.actor", "actor_rollout_ref.ref")
GAE = "gae"
_ESTIMATORS = {
    GAE: "verl 0.9.1 loads a critic for FSDP with flash-attn, which the pins lack; use Megatron, or leave it out",
    None: "it compares several answers to one prompt, of which a game has one; leave it out",
}
"""By estimator; None: every other one."""
_ABSENT = object()
NO_CRITIC = "has no effect without a critic; set algorithm.adv_estimator=gae, or leave it out"
_BY_ESTIMATOR = "algorithm.adv_estimator says whether there is a critic"
CRITIC_KEYS = ("optim", "ppo_mini_batch_size", "ppo_epochs", "cliprange_value", "loss_agg_mode")
"""Of the critic's section, what can be set; the rest follows from the policy's."""


@dataclass(frozen=True)
class OneOf:
    """Several values that were tested here."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " or ".join("null" if value is None else repr(value) for value in self.values)


Why = str | Mapping[Any, str]
Only = tuple[tuple[str, Any, Why], ...]
"""Key, the value or values that were tested here, why there is no other (by value where the reasons differ)."""
_ENGINE = "MedSeRL trains with Megatron, or with FSDP (model_engine=dp)"
_WHOLE = "MedSeRL trains all weights of a model, and nothing beside them"
_UNTESTED = "it was not tested here"
_MODEL: Only = (
    ("lora_rank", 0, _WHOLE),
    ("lora.rank", 0, _WHOLE),
    ("mtp.enable", False, _WHOLE),
    ("use_fused_kernels", False, "verl's kernels for the loss were not tested here"),
    ("use_liger", False, "it is for FSDP only, and needs the package liger-kernel, which the pins lack"),
    ("tiled_mlp.enabled", False, _UNTESTED),
)
"""Below a model's section, in both kinds of configuration."""
_DENSE = "the models that MedSeRL trains have no experts"
_VLLM = "an engine of vLLM is split by tensor_model_parallel_size only"
ENGINES: Only = (("model_engine", OneOf(("megatron", "dp")), _ENGINE),)
_TRAIN: Only = (
    *ENGINES,
    *((f"actor_rollout_ref.model.{key}", *rest) for key, *rest in _MODEL),
    ("actor_rollout_ref.hybrid_engine", True, "trainer and vLLM share the GPUs here"),
    ("actor_rollout_ref.rollout.nnodes", 0, "trainer and vLLM share the GPUs here"),
    ("actor_rollout_ref.rollout.data_parallel_size", 1, _VLLM),
    ("actor_rollout_ref.rollout.pipeline_model_parallel_size", 1, _VLLM),
    ("actor_rollout_ref.rollout.expert_parallel_size", 1, _DENSE),
    ("actor_rollout_ref.rollout.enable_rollout_routing_replay", False, _DENSE),
    ("actor_rollout_ref.rollout.quantization", None, "new weights go to vLLM as they are"),
    ("actor_rollout_ref.rollout.multi_turn.enable", False, "the game has turns of its own (medserl.max_attempts)"),
    ("actor_rollout_ref.rollout.checkpoint_engine.backend", "naive", "others were not tested here"),
    ("actor_rollout_ref.rollout.load_format", "dummy", "vLLM gets its weights from the trainer before the first game"),
    ("actor_rollout_ref.rollout.prometheus.enable", False, "metrics come from metrics.jsonl, TensorBoard and trackers"),
    ("actor_rollout_ref.rollout.disaggregation.enabled", False, "verl has it for SGLang only"),
    ("actor_rollout_ref.actor.policy_loss.loss_mode", "vanilla", "verl's other losses were not tested here"),
    ("actor_rollout_ref.actor.qat.enable", False, _WHOLE),
    ("algorithm.use_pf_ppo", False, _UNTESTED),
    ("algorithm.filter_groups.enable", False, "it compares several answers to one prompt, of which a game has one"),
    ("algorithm.rollout_correction.rollout_is", None, _UNTESTED),
    ("algorithm.rollout_correction.rollout_rs", None, _UNTESTED),
    ("algorithm.rollout_correction.bypass_mode", False, _UNTESTED),
    ("distillation.enabled", False, "MedSeRL trains by its games' rewards only"),
    ("actor_rollout_ref.rollout.name", "vllm", "MedSeRL generates with vLLM only"),
    ("actor_rollout_ref.rollout.mode", "async", "MedSeRL plays its games through verl's asynchronous server only"),
    ("critic.enable", None, _BY_ESTIMATOR),
    ("trainer.use_v1", True, "MedSeRL works with verl's v1 trainer only"),
    ("trainer.v1.trainer_mode", "sync", "MedSeRL trains on-policy, round by round, only"),
    ("trainer.val_only", False, "use `medserl evaluate` to judge a model"),
    ("reward.num_workers", 0, "the game scores its own trajectories"),
)
_SPLITS = (
    ("expert_model_parallel_size", 1, _DENSE),
    ("expert_tensor_parallel_size", None, _DENSE),
    ("virtual_pipeline_model_parallel_size", None, "interleaved pipelines were not tested here"),
)
_MCORE: Only = (
    ("dtype", "bfloat16", "weights of another type were not tested here"),
    ("use_distributed_optimizer", True, "an optimizer that each replica holds whole was not tested here"),
    ("use_dist_checkpointing", False, "weights are read and written in Hugging Face's format"),
    ("qat.enable", False, _WHOLE),
    *_SPLITS,
)
"""Below each section of Megatron's, in both kinds of configuration."""
_MEGATRON: Only = (
    ("algorithm.adv_estimator", OneOf(("reinforce_plus_plus", GAE)), _ESTIMATORS),
    *((f"{part}.strategy", "megatron", _ENGINE) for part in _POLICY),
    ("actor_rollout_ref.actor.megatron.use_mbridge", True, "MedSeRL loads and exports models through mbridge only"),
    ("actor_rollout_ref.actor.megatron.vanilla_mbridge", True, "Megatron-Bridge was not tested here"),
    ("actor_rollout_ref.actor.megatron.context_parallel_size", 1, "context parallelism was not tested here"),
    *((f"{part}.megatron.{key}", *rest) for part in _POLICY for key, *rest in _MCORE),
    ("actor_rollout_ref.actor.megatron.use_megatron_fsdp", False, "MedSeRL trains with Megatron's own DDP only"),
    ("actor_rollout_ref.actor.megatron.dynamic_context_parallel", False, "context parallelism was not tested here"),
    ("actor_rollout_ref.actor.megatron.router_replay.mode", "disabled", _DENSE),
)
_PACKED = "packed sequences need flash-attn in transformers"
_ON_HOST = "FSDP with weights or optimizer on the host was not tested here"
_SHARDS: Only = (
    ("model_dtype", "fp32", "weights of another type were not tested here"),
    ("dtype", "bfloat16", "products of another type were not tested here"),
    ("fsdp_size", -1, "the weights are divided by all workers"),
    ("reshard_after_forward", True, _UNTESTED),
    ("param_offload", False, _ON_HOST),
    ("optimizer_offload", False, _ON_HOST),
    ("offload_policy", False, _ON_HOST),
    ("entropy_checkpointing", False, _UNTESTED),
    ("use_no_sync_for_gradient_accumulation", False, _UNTESTED),
    ("full_determinism", False, _UNTESTED),
    ("pad_to_length", False, _PACKED),
    ("qat.enable", False, _WHOLE),
)
"""Below each section of FSDP's."""
_TORCHS = "FSDP was tested with torch's AdamW only"
_FSDP: Only = (
    ("algorithm.adv_estimator", "reinforce_plus_plus", _ESTIMATORS),
    *((f"{part}.strategy", "fsdp2", "FSDP1 cannot be tested without a GPU") for part in _POLICY),
    *((f"{part}.ulysses_sequence_parallel_size", 1, _UNTESTED) for part in _POLICY),
    ("actor_rollout_ref.model.use_remove_padding", False, _PACKED),
    *((f"{part}.entropy_checkpointing", False, _UNTESTED) for part in _POLICY),
    *((f"{part}.pad_to_length", False, _PACKED) for part in _POLICY),  # what FSDP's own section follows
    ("actor_rollout_ref.actor.use_prefix_grouper", False, _UNTESTED),
    *((f"{part}.fsdp_config.{key}", *rest) for part in _POLICY for key, *rest in _SHARDS),
    ("actor_rollout_ref.actor.optim.optimizer", "AdamW", _TORCHS),
    ("actor_rollout_ref.actor.optim.optimizer_impl", "torch.optim", _TORCHS),
    ("actor_rollout_ref.actor.optim.warmup_style", None, "verl has lr_scheduler_type instead; set that"),
)
TRAIN_ONLY = {False: (*_TRAIN, *_MEGATRON), True: (*_TRAIN, *_FSDP)}
"""By whether the engine is FSDP."""
SFT_ONLY: Only = (
    ("engine.strategy", "megatron", "MedSeRL fine-tunes with Megatron only"),
    ("engine.vanilla_mbridge", True, "Megatron-Bridge was not tested here"),
    ("engine.context_parallel_size", 1, "context parallelism was not tested here"),
    ("engine.dynamic_context_parallel", False, "context parallelism was not tested here"),
    ("engine.use_mbridge", True, "MedSeRL loads and exports models through mbridge only"),
    ("engine.use_megatron_fsdp", False, "MedSeRL trains with Megatron's own DDP only"),
    *((f"model.{key}", *rest) for key, *rest in _MODEL),
    *((f"engine.{key}", *rest) for key, *rest in _MCORE),
    ("trainer.resume_from_path", None, "a run goes on in its own --run-dir"),
)
_OWN_LOGS = "MedSeRL writes metrics.jsonl and TensorBoard itself, and medserl.trackers names others"
_OWN_GAMES = "use medserl.game_log.enabled=true, which keeps every game in RUN_DIR/games"
_ADAM = "set {}.override_optimizer_config.adam_beta1 and adam_beta2 (with + before the key)"
_MEMORY = (
    ("enable_gradient_checkpointing", "Megatron reads {}.override_transformer_config.recompute_granularity"),
    ("enable_activation_offload", "Megatron reads {}.override_transformer_config.recompute_granularity"),
)
_OF_FSDP1 = (
    ("strategy", "verl takes that of the section above, which is fsdp2; leave it out"),
    ("forward_prefetch", "it is for FSDP1; leave it out"),
    ("use_orig_params", "it is for FSDP1; leave it out"),
)
# Key, what to use instead.
TRAIN_WITHOUT_EFFECT: tuple[tuple[str, str], ...] = (
    ("trainer.logger", _OWN_LOGS),
    ("trainer.rollout_data_dir", _OWN_GAMES),
    ("trainer.validation_data_dir", _OWN_GAMES),
    ("trainer.log_val_generations", _OWN_GAMES),
    ("trainer.default_local_dir", "it follows from medserl.run_dir (--run-dir)"),
    ("trainer.experiment_name", "it follows from medserl.run_dir (--run-dir)"),
    ("trainer.resume_from_path", "a run goes on in its own --run-dir"),
    ("custom_reward_function.path", "rewards are medserl.rewards and the referee's (medserl.plugins registers one)"),
    ("reward.custom_reward_function.path", "rewards are medserl.rewards and the referee's (medserl.plugins)"),
    ("reward_model.enable", "for a model that judges use medserl.referee.name=judge"),
    ("reward.reward_model.enable", "for a model that judges use medserl.referee.name=judge"),
    ("data.train_files", "notes come from medserl.notes.path (--prompt-data)"),
    ("data.val_files", "held-out notes come from medserl.validation.path"),
    ("data.seed", "set medserl.seed"),
    ("actor_rollout_ref.rollout.seed", "set medserl.seed"),
    ("actor_rollout_ref.actor.data_loader_seed", "set medserl.seed"),
    ("trainer.max_critic_ckpt_to_keep", "a checkpoint holds both; set trainer.max_actor_ckpt_to_keep"),
    ("critic.optim.betas", f"Megatron's Adam does not read it; {_ADAM}"),
    ("actor_rollout_ref.actor.optim.betas", f"Megatron's Adam does not read it; {_ADAM}"),
    ("actor_rollout_ref.rollout.agent.num_workers", "set medserl.rollout_workers"),
    *((f"actor_rollout_ref.model.{key}", why.format("actor_rollout_ref.actor.megatron")) for key, why in _MEMORY),
    *((f"{part}.fsdp_config.{key}", why) for part in _POLICY for key, why in _OF_FSDP1),
)
SFT_WITHOUT_EFFECT: tuple[tuple[str, str], ...] = (
    ("optim.betas", f"Megatron's Adam does not read it; {_ADAM}"),
    ("trainer.logger", "`medserl sft` reads verl's console lines and writes TensorBoard"),
    ("trainer.default_local_dir", "it follows from medserl.run_dir (--run-dir)"),
    ("trainer.experiment_name", "it follows from medserl.run_dir (--run-dir)"),
    ("trainer.total_epochs", "set medserl.steps (--steps)"),
    ("trainer.total_training_steps", "set medserl.steps (--steps)"),
    ("data.train_batch_size", "it is the sum of medserl.mixture"),
    *((f"model.{key}", why.format("engine")) for key, why in _MEMORY),
    ("trainer.seed", "set medserl.seed"),
    ("engine.seed", "set medserl.seed"),
    ("data.train_files", "demonstrations are made from medserl.notes.path (--data)"),
    ("data.val_files", "`medserl evaluate` judges the finished model"),
    ("data.custom_cls.path", "demonstrations are MedSeRL's own"),
)


def check_supported(config: DictConfig, only: Iterable[tuple[str, Any, Why]], problems: Problems | None = None) -> None:
    """Refuse what was never tested here.

    Args:
        config: A composed configuration; what is refused gives way to what works.
        only: ``TRAIN_ONLY[...]`` or ``SFT_ONLY``.
        problems: Takes what is refused; None: it is raised.

    Raises:
        ConfigError: names the key, the value that works, and why.
    """
    with all_told(problems) as found:
        for key, works, why in only:
            given = OmegaConf.select(config, key, default=_ABSENT)
            several = works if isinstance(works, OneOf) else OneOf((works,))
            if given is not _ABSENT and given not in several.values:
                reason = why if isinstance(why, str) else why.get(given, why[None])
                said = f"{key}: {_plain(given)!r} is not supported, only {several}; {reason}"
                found.add(ConfigError(said, (key,)))
                OmegaConf.update(config, key, several.values[0], merge=False)


def check_effects(
    config: DictConfig,
    base: DictConfig,
    defaults: DictConfig,
    without_effect: tuple[tuple[str, str], ...],
    problems: Problems | None = None,
) -> None:
    """Refuse a value for a key that nothing reads, or that MedSeRL sets itself.

    Args:
        config: The configuration that was asked for.
        base: The file that every configuration of its family stands on.
        defaults: verl's own configuration, for what that file leaves alone.
        without_effect: ``TRAIN_WITHOUT_EFFECT`` or ``SFT_WITHOUT_EFFECT``.
        problems: Takes what is refused; None: it is raised.

    Raises:
        ConfigError: names the key and what to use instead.
    """
    with all_told(problems) as found:
        if "critic" in config:
            for error in _critics(config, base, defaults):
                found.add(error)
        for key, instead in without_effect:
            given = _written(config, key)
            if given != _written(base, key, _written(defaults, key)):
                hint = instead.format(key.rpartition(".")[0])
                found.add(ConfigError(f"{key}: {_plain(given)!r} has no effect; {hint}"))


def _critics(config: DictConfig, base: DictConfig, defaults: DictConfig) -> Iterator[ConfigError]:
    """Every key of a critic that there is none of, and those that follow from the policy's where there is one."""
    gae = config.algorithm.adv_estimator == GAE
    usual = OmegaConf.merge(OmegaConf.create({"critic": defaults.critic}), {"critic": base.critic})
    for key in _others(config.critic, usual.critic, "critic"):
        if not gae:
            yield ConfigError(f"{key}: {NO_CRITIC}")
        elif key.split(".")[1] not in CRITIC_KEYS:
            yield ConfigError(f"{key}: cannot be set; it follows from the policy's (actor_rollout_ref), leave it out")


def _others(given: DictConfig, default: Any, name: str) -> Iterator[str]:
    """The keys of a section that are not written as by default."""
    for key in given:
        value, usual = given._get_node(key), default._get_node(key) if isinstance(default, DictConfig) else None
        if isinstance(value, DictConfig) and not value._is_interpolation():
            yield from _others(value, usual, f"{name}.{key}")
        elif _written(given, str(key)) != _written(default, str(key)):
            yield f"{name}.{key}"


def _written(config: DictConfig, key: str, default: Any = None) -> Any:
    """A key's value as it is written, interpolations left alone."""
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, section) if section else config
    if not isinstance(parent, DictConfig) or (node := parent._get_node(name, validate_access=False)) is None:
        return default
    return node if isinstance(node, DictConfig | ListConfig) else node._value()


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value
