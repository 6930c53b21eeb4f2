"""What follows from other keys is set here, in one place."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from medserl.config import sft_settings as sft
from medserl.config.contradictions import check_choices, check_estimator, check_sft, check_validation, source_meant
from medserl.config.model_at_hand import prompts_for
from medserl.config.refused import GAE
from medserl.config.settings import (
    BUILTIN_MODEL,
    JUDGE,
    ORACLE,
    WARD,
    GameSettings,
    labelled_per_round,
)
from medserl.config.sft_settings import SftSettings
from medserl.errors import ConfigError, Problems, all_told
from medserl.game.registry import AUTO

PATHS = (
    "medserl.run_dir",
    "medserl.prompt_set",
    "medserl.notes.path",
    "medserl.notes.labelled_path",
    "medserl.validation.path",
    "actor_rollout_ref.model.path",
    "model.path",
)
"""Keys that name files: ``~`` in them is the home folder, as in a shell."""

CRITIC_TOKENS = "critic.ppo_infer_max_token_len_per_gpu"
"""Of a critic's micro-batch: a key that verl's YAML files do not list."""


def expand_home(config: DictConfig) -> None:
    """Follow ``~`` where a shell did not: behind an option's ``=``, in quotes, in a file."""
    for key in PATHS:
        value = OmegaConf.select(config, key)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(config, key, os.path.expanduser(value))


def complete(config: DictConfig, settings: GameSettings, problems: Problems | None = None) -> DictConfig:
    """Set what follows from other keys, so that it is written in one place only.

    Args:
        config: A composed configuration, whose values are checked one by one.
        settings: Its ``medserl`` section.
        problems: Takes settings that contradict each other; None: they are raised.

    Raises:
        ConfigError: settings that contradict each other.
    """
    with all_told(problems) as found:
        check_choices(settings, found)
        check_estimator(config, settings, found)
        with found.noted():
            check_validation(config, settings)
        settings.notes.source = source_meant(settings.notes, found)
        if settings.prompt_set == AUTO:
            settings.prompt_set = prompts_for(_model(config.actor_rollout_ref))
        if settings.referee.name == AUTO:
            settings.referee.name = ORACLE if settings.notes.source == WARD else "instruction"
        if config.data.train_batch_size is not None:
            found.add(
                ConfigError(
                    "data.train_batch_size: follows from medserl.rollout_batch_size; set that one instead",
                    ("medserl.rollout_batch_size",),
                )
            )
        _follow(config, settings)
        with found.noted():
            _complete_judge(config, settings)
    return config


def _follow(config: DictConfig, settings: GameSettings) -> None:
    with open_dict(config):
        config.medserl = OmegaConf.structured(settings)
        config.data.train_batch_size = (
            settings.rollout_batch_size + labelled_per_round(settings) + settings.replay_batch_size
        )
        config.data.apply_chat_template_kwargs.enable_thinking = settings.thinking
        config.data.seed = settings.seed
        config.actor_rollout_ref.actor.data_loader_seed = settings.seed
        config.actor_rollout_ref.rollout.seed = settings.seed
        config.actor_rollout_ref.rollout.agent.num_workers = max(1, settings.rollout_workers)
        _name_folders(config, settings.run_dir)
        rollout = config.actor_rollout_ref.rollout
        if rollout.max_model_len is None:  # verl would take the model's whole context, in vLLM's tables and kernels too
            rollout.max_model_len = config.data.max_prompt_length + config.data.max_response_length
        if settings.max_rounds is not None:
            config.trainer.total_training_steps = settings.max_rounds
        if config.actor_rollout_ref.model.path == BUILTIN_MODEL:
            config.actor_rollout_ref.model.path = _builtin_model()
        if config.algorithm.adv_estimator == GAE:
            _complete_critic(config)


def _complete_critic(config: DictConfig) -> None:
    """Micro-batches of as many tokens as the policy's, and an optimizer that computes where the policy's does.

    verl 0.9.1 fills a critic's micro-batches by tokens in any case, values and update alike, with a number that its
    YAML files do not list (verl/trainer/ppo/v1/trainer_base.py, PPOTrainer._setup).
    """
    actor, critic = config.actor_rollout_ref.actor, config.critic
    rows = actor.ppo_micro_batch_size_per_gpu or 1
    longest = config.data.max_prompt_length + config.data.max_response_length
    tokens = actor.ppo_max_token_len_per_gpu if actor.use_dynamic_bsz else rows * longest
    OmegaConf.update(config, CRITIC_TOKENS, tokens)
    own = OmegaConf.to_container(critic.optim.override_optimizer_config)
    critic.optim.override_optimizer_config = OmegaConf.merge(actor.optim.override_optimizer_config, own)


def _model(section: DictConfig) -> object:
    """The model that a section names; None where it leaves that to the user."""
    return None if OmegaConf.is_missing(section.model, "path") else section.model.path


def _name_folders(config: DictConfig, run_dir: str) -> None:
    config.trainer.default_local_dir = str(Path(run_dir).absolute() / "checkpoints")
    config.trainer.experiment_name = Path(run_dir).name


def _builtin_model() -> str:
    from medserl.ward import model_dir

    return str(model_dir())


def _complete_judge(config: DictConfig, settings: GameSettings) -> None:
    if JUDGE not in (settings.referee.name, settings.second_referee.name) and not settings.frozen_injector:
        return
    from medserl.config.judge import judge_of, judge_options, serve_with_verl

    judge = judge_of(settings)
    options = judge_options(judge.options) if judge else None
    served = options if options is not None and options.url is None else None
    if served is not None or settings.frozen_injector:
        serve_with_verl(config, served, injector=settings.frozen_injector)


def complete_sft(config: DictConfig, settings: SftSettings, problems: Problems | None = None) -> DictConfig:
    """As ``complete``, for ``medserl sft``.

    Raises:
        ConfigError: settings that contradict each other.
    """
    with all_told(problems) as found:
        check_sft(config, settings, found)
    if settings.prompt_set == AUTO:
        settings.prompt_set = prompts_for(_model(config))
    with open_dict(config):
        config.medserl = OmegaConf.structured(settings)
        config.data.train_batch_size = sft.batch_size(settings)
        config.data.custom_cls.path = "pkg://medserl.sft.data"
        config.data.custom_cls.name = "DemonstrationDataset"
        config.trainer.total_training_steps = settings.steps
        config.trainer.total_epochs = sft.epochs(settings)
        config.trainer.seed = settings.seed
        _name_folders(config, settings.run_dir)
        config.engine.seed = settings.seed
        if config.model.path == BUILTIN_MODEL:
            config.model.path = _builtin_model()
    return config
