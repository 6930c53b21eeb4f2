"""Whether devices, parallel sizes and batch sizes divide each other."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from medserl.config.refused import GAE
from medserl.errors import ConfigError, Problems, all_told
from medserl.run.layout import parallel_of

_ACTOR, _LOG_PROBS = "actor_rollout_ref.actor", "log_prob_micro_batch_size_per_gpu"
_UPDATES = f"{_ACTOR}.ppo_micro_batch_size_per_gpu"
# Tokens of a micro-batch, where it is filled by tokens: key, section, and whether it is.
_TOKENS = (
    ("ppo_max_token_len_per_gpu", "actor", "use_dynamic_bsz"),
    ("log_prob_max_token_len_per_gpu", "ref", "log_prob_use_dynamic_bsz"),
    ("log_prob_max_token_len_per_gpu", "rollout", "log_prob_use_dynamic_bsz"),
)


def check_layout(config: DictConfig, problems: Problems | None = None) -> None:
    """Devices, parallel sizes and batch sizes must divide each other.

    Args:
        config: A completed configuration.
        problems: Takes what does not; None: it is raised.

    Raises:
        ConfigError: names the sizes that do not.
    """
    with all_told(problems) as found:
        replicas = _check_workers(config, found)
        too_large = _check_rounds(config, found)
        if replicas is not None and not too_large:
            _check_batches(config, replicas, found)
        _check_lengths(config, found)


def _check_workers(config: DictConfig, found: Problems) -> int | None:
    """Copies of the model among the workers; None where they cannot be divided into such."""
    parallel, rollout = parallel_of(config), config.actor_rollout_ref.rollout
    tp, pp, cp = parallel.tp, parallel.pp, parallel.cp
    world = config.trainer.nnodes * config.trainer.n_gpus_per_node
    with found.noted():
        divides(
            world,
            parallel.workers,
            f"trainer.nnodes * trainer.n_gpus_per_node = {world} workers",
            f"TP {tp} x PP {pp} x CP {cp} = {tp * pp * cp} (actor_rollout_ref.actor.megatron)",
        )
        served = rollout.tensor_model_parallel_size
        with found.noted():
            key = "actor_rollout_ref.rollout.tensor_model_parallel_size"
            divides(world, served, f"{world} workers", f"{key} {served}")
        return int(world // parallel.workers)
    return None


def _check_rounds(config: DictConfig, found: Problems) -> bool:
    """A round must fill a mini-batch, and rounds without an update must be ones that verl can cut; returns whether a
    mini-batch is too large."""
    actor, gae = config.actor_rollout_ref.actor, config.algorithm.adv_estimator == GAE
    sizes = {"actor_rollout_ref.actor": actor.ppo_mini_batch_size}
    if gae:
        sizes["critic"] = config.critic.ppo_mini_batch_size
    most = config.data.train_batch_size
    too_large = {section: size for section, size in sizes.items() if size > most}
    for section, size in too_large.items():
        found.add(
            ConfigError(
                f"{section}.ppo_mini_batch_size: {size} is more than the {most} notes of a round "
                "(medserl.rollout_batch_size and its labelled share)"
            )
        )
    # verl pads the rounds without an update to whole replicas only, or to a critic's mini-batches
    if not actor.use_dynamic_bsz and config.trainer.critic_warmup > 1 and not gae:
        found.add(
            ConfigError(
                f"trainer.critic_warmup: {config.trainer.critic_warmup} leaves rounds without an update, whose "
                "trajectories need not fill micro-batches of a fixed size; leave it out, or set "
                "actor_rollout_ref.actor.use_dynamic_bsz=true"
            )
        )
    return bool(too_large)


def _check_batches(config: DictConfig, dp: int, found: Problems) -> None:
    """Mini-batches must be made of whole micro-batches on every replica."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    if config.algorithm.adv_estimator == GAE:
        _check_critic(config, dp, found)
    mini = actor.ppo_mini_batch_size * rollout.n
    told = f"a mini-batch of ppo_mini_batch_size * rollout.n = {mini} trajectories"
    if mini % dp:  # of no replica's share can anything be said then
        with found.noted():
            divides(mini, dp, told, f"{dp} data-parallel replicas")
        return
    if not actor.use_dynamic_bsz and not actor.ppo_micro_batch_size_per_gpu:
        found.add(ConfigError(f"{_UPDATES}: needed unless use_dynamic_bsz is true", (_UPDATES,)))
    for name, micro in _micro_batches(config, updates=True).items():  # verl asserts it in the first round only
        with found.noted():
            divides(mini // dp, micro, f"{mini // dp} trajectories per replica and mini-batch", f"{name} {micro}")


def _micro_batches(config: DictConfig, updates: bool) -> dict[str, int]:
    """Sizes of the micro-batches that have a fixed one, by key, each size once: of log-probabilities, and of
    updates."""
    sizes: dict[str, int] = {}
    keys = [(f"actor_rollout_ref.{part}", "log_prob_use_dynamic_bsz", _LOG_PROBS) for part in ("rollout", "ref")]
    for section, dynamic, key in [(_ACTOR, "use_dynamic_bsz", "ppo_micro_batch_size_per_gpu")] * updates + keys:
        own = OmegaConf.select(config, section)
        micro = own[key]
        if micro and not own[dynamic] and micro not in sizes.values():
            sizes[f"{section}.{key}"] = micro
    return sizes


def _check_lengths(config: DictConfig, found: Problems) -> None:
    """The longest row must fit vLLM, and a micro-batch that is filled by tokens."""
    rollout = config.actor_rollout_ref.rollout
    longest = config.data.max_prompt_length + config.data.max_response_length
    if config.trainer.device == "cuda":
        told = set()
        for key, part, dynamic in _TOKENS:
            section = config.actor_rollout_ref[part]
            if section[dynamic] and section[key] not in told:  # of those that follow the policy's, the policy's is told
                told.add(section[key])
                with found.noted():
                    check_takes_longest(f"actor_rollout_ref.{part}.{key}", section[key], longest)
    if longest > rollout.max_model_len:
        found.add(
            ConfigError(
                f"actor_rollout_ref.rollout.max_model_len: {rollout.max_model_len} is less than "
                f"data.max_prompt_length + data.max_response_length = {longest}"
            )
        )


def _check_critic(config: DictConfig, dp: int, found: Problems) -> None:
    """Its mini-batches; in rounds that train it alone (trainer.critic_warmup), trajectories fill those only."""
    mini = config.critic.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
    told = f"a mini-batch of critic.ppo_mini_batch_size * rollout.n = {mini} trajectories"
    with found.noted():
        divides(mini, dp, told, f"{dp} data-parallel replicas")
    if config.trainer.critic_warmup > 1:
        for name, micro in _micro_batches(config, updates=False).items():
            share = f"{mini // dp} trajectories per replica and mini-batch of the critic"
            with found.noted():
                divides(mini // dp, micro, share, f"{name} {micro}")


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
