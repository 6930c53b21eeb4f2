"""Whether devices, parallel sizes and batch sizes divide each other."""

from __future__ import annotations

from omegaconf import DictConfig

from medserl.config.refused import GAE
from medserl.errors import ConfigError
from medserl.run.layout import parallel_of

# Tokens of a micro-batch, where it is filled by tokens: key, section, and whether it is.
_TOKENS = (
    ("ppo_max_token_len_per_gpu", "actor", "use_dynamic_bsz"),
    ("log_prob_max_token_len_per_gpu", "ref", "log_prob_use_dynamic_bsz"),
    ("log_prob_max_token_len_per_gpu", "rollout", "log_prob_use_dynamic_bsz"),
)


def check_layout(config: DictConfig) -> None:
    """Devices, parallel sizes and batch sizes must divide each other."""
    actor, rollout, trainer = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.trainer
    parallel = parallel_of(config)
    tp, pp, cp = parallel.tp, parallel.pp, parallel.cp
    world = trainer.nnodes * trainer.n_gpus_per_node
    divides(
        world,
        tp * pp * cp,
        f"trainer.nnodes * trainer.n_gpus_per_node = {world} workers",
        f"TP {tp} x PP {pp} x CP {cp} = {tp * pp * cp} (actor_rollout_ref.actor.megatron)",
    )
    rollout_tp = rollout.tensor_model_parallel_size
    divides(
        world,
        rollout_tp,
        f"{world} workers",
        f"actor_rollout_ref.rollout.tensor_model_parallel_size {rollout_tp}",
    )
    if actor.ppo_mini_batch_size > config.data.train_batch_size:
        raise ConfigError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size: {actor.ppo_mini_batch_size} is more than the "
            f"{config.data.train_batch_size} notes of a round (medserl.rollout_batch_size and its "
            "labelled share)"
        )
    dp = world // (tp * pp * cp)
    if config.algorithm.adv_estimator == GAE:
        _check_critic(config, dp)
    mini = actor.ppo_mini_batch_size * rollout.n
    divides(
        mini,
        dp,
        f"a mini-batch of ppo_mini_batch_size * rollout.n = {mini} trajectories",
        f"{dp} data-parallel replicas",
    )
    if not actor.use_dynamic_bsz:
        micro = actor.ppo_micro_batch_size_per_gpu
        if not micro:
            raise ConfigError(
                "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu: needed unless use_dynamic_bsz is true"
            )
        divides(
            mini // dp,
            micro,
            f"{mini // dp} trajectories per replica and mini-batch",
            f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu {micro}",
        )
        # verl pads the rounds without an update to whole replicas only, or to a critic's mini-batches
        if trainer.critic_warmup > 1 and config.algorithm.adv_estimator != GAE:
            raise ConfigError(
                f"trainer.critic_warmup: {trainer.critic_warmup} leaves rounds without an update, whose trajectories "
                "need not fill micro-batches of a fixed size; leave it out, or set "
                "actor_rollout_ref.actor.use_dynamic_bsz=true"
            )
    for part in ("rollout", "ref"):  # verl asserts it in the first round only
        section = config.actor_rollout_ref[part]
        micro = section.log_prob_micro_batch_size_per_gpu
        if micro and not section.log_prob_use_dynamic_bsz:
            divides(
                mini // dp,
                micro,
                f"{mini // dp} trajectories per replica and mini-batch",
                f"actor_rollout_ref.{part}.log_prob_micro_batch_size_per_gpu {micro}",
            )
    longest = config.data.max_prompt_length + config.data.max_response_length
    if trainer.device == "cuda":
        for key, part, dynamic in _TOKENS:
            section = config.actor_rollout_ref[part]
            if section[dynamic]:
                check_takes_longest(f"actor_rollout_ref.{part}.{key}", section[key], longest)
    if longest > rollout.max_model_len:
        raise ConfigError(
            f"actor_rollout_ref.rollout.max_model_len: {rollout.max_model_len} is less than "
            f"data.max_prompt_length + data.max_response_length = {longest}"
        )


def _check_critic(config: DictConfig, dp: int) -> None:
    """Its mini-batches; in rounds that train it alone (trainer.critic_warmup), trajectories fill those only."""
    size = config.critic.ppo_mini_batch_size
    if size > config.data.train_batch_size:
        raise ConfigError(
            f"critic.ppo_mini_batch_size: {size} is more than the {config.data.train_batch_size} notes of a round "
            "(medserl.rollout_batch_size and its labelled share)"
        )
    mini = size * config.actor_rollout_ref.rollout.n
    told = f"a mini-batch of critic.ppo_mini_batch_size * rollout.n = {mini} trajectories"
    divides(mini, dp, told, f"{dp} data-parallel replicas")
    for part in ("rollout", "ref"):
        section = config.actor_rollout_ref[part]
        micro = section.log_prob_micro_batch_size_per_gpu
        if config.trainer.critic_warmup > 1 and micro and not section.log_prob_use_dynamic_bsz:
            name = f"actor_rollout_ref.{part}.log_prob_micro_batch_size_per_gpu {micro}"
            divides(mini // dp, micro, f"{mini // dp} trajectories per replica and mini-batch of the critic", name)


def check_takes_longest(key: str, tokens: int, longest: int) -> None:
    """Raise ConfigError where a micro-batch, filled up to ``tokens``, cannot take the longest row.

    verl 0.9.1 asserts it in ``rearrange_micro_batches`` (verl/utils/seqlen_balancing.py), after vLLM's start and the
    games of a round; ``medserl/cpu/micro_batches.py``, which replaces that on CPUs, makes such a row one of its own.
    """
    if tokens < longest:
        raise ConfigError(
            f"{key}: {tokens} is less than the {longest} tokens that a prompt and its reply may have together "
            "(data.max_prompt_length + data.max_response_length); raise it"
        )


def divides(whole: int, part: int, whole_name: str, part_name: str) -> None:
    """Raise ConfigError where a number cannot be divided by another, naming both."""
    if part < 1 or whole % part:
        raise ConfigError(f"{whole_name} cannot be divided by {part_name}; change one of them")
