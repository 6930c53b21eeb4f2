"""What follows from other keys is set here, in one place; and what contradicts itself is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from medserl.config import sft_settings as sft
from medserl.config.mistakes import keys_of
from medserl.config.model_at_hand import prompts_for
from medserl.config.plugins import has_validation_notes, resolved_source
from medserl.config.refused import GAE, NO_CRITIC
from medserl.config.settings import (
    BUILTIN_MODEL,
    DEVICES,
    FILES,
    JUDGE,
    NORMALISATIONS,
    ORACLE,
    ROLE_BASELINE,
    TRAIN_ROLES,
    VERDICT_CREDITS,
    WARD,
    AdvantageSettings,
    GameSettings,
    labelled_per_round,
    passes,
    validation_metrics,
)
from medserl.config.sft_settings import SftSettings
from medserl.errors import ConfigError
from medserl.game.prompts import FORMATS
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


def complete(config: DictConfig, settings: GameSettings) -> DictConfig:
    """Set what follows from other keys, so that it is written in one place only.

    Raises:
        ConfigError: settings that contradict each other.
    """
    check_choices(settings)
    _check_estimator(config, settings)
    _check_validation(config, settings)
    settings.notes.source = resolved_source(settings.notes)
    if settings.prompt_set == AUTO:
        settings.prompt_set = prompts_for(_model(config.actor_rollout_ref))
    if settings.referee.name == AUTO:
        settings.referee.name = ORACLE if settings.notes.source == WARD else "instruction"
    if config.data.train_batch_size is not None:
        raise ConfigError("data.train_batch_size: follows from medserl.rollout_batch_size; set that one instead")
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
        _complete_judge(config, settings)
    return config


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


def complete_sft(config: DictConfig, settings: SftSettings) -> DictConfig:
    """As ``complete``, for ``medserl sft``.

    Raises:
        ConfigError: settings that contradict each other.
    """
    _check_sft(config, settings)
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


def _check_sft(config: DictConfig, settings: SftSettings) -> None:
    check_one_of("injector_format", settings.injector_format, FORMATS)
    check_one_of("device", settings.device, DEVICES)
    settings.notes.source = resolved_source(settings.notes)
    if settings.notes.source not in (FILES, WARD):
        raise ConfigError(f"medserl.notes.source: fine-tuning reads {FILES} or the {WARD}, not a source of your own")
    for key in ("labelled_path", "labelled_conditions", "options"):
        if getattr(settings.notes, key):
            raise ConfigError(f"medserl.notes.{key}: fine-tuning learns from medserl.notes alone; leave it out")
    if sft.batch_size(settings) == 0:
        raise ConfigError(
            "medserl.mixture: assessor_pairs 0 and injector_turns 0 make an empty batch; raise one of them"
        )
    if settings.max_demonstrations < sft.batch_size(settings):
        raise ConfigError(
            f"medserl.max_demonstrations: {settings.max_demonstrations} are fewer than one batch of medserl.mixture, "
            f"{sft.batch_size(settings)}; raise it"
        )
    late = settings.late_mixture
    if late is not None and 2 * late.assessor_pairs + late.injector_turns != sft.batch_size(settings):
        raise ConfigError("medserl.late_mixture: must make as many demonstrations per batch as medserl.mixture")
    if config.optim.min_lr > config.optim.lr:
        raise ConfigError(f"optim.min_lr: {config.optim.min_lr} is more than optim.lr {config.optim.lr}")
    if (config.optim.lr_warmup_steps or 0) >= settings.steps:
        raise ConfigError(
            f"optim.lr_warmup_steps: {config.optim.lr_warmup_steps} steps of warm-up leave none of medserl.steps "
            f"{settings.steps}"
        )


def check_mixture(settings: sft.SftSettings, overrides: Sequence[str]) -> None:
    """Refuse a key of the mixture that was asked for and that the demonstrations of these notes do not look at; what a
    configuration brings along for other notes is left alone.

    Raises:
        ConfigError: names the key.
    """
    from_files = settings.notes.source == FILES
    idle, whose = (sft.WARD_ONLY, "of the ward's notes") if from_files else (sft.FILES_ONLY, "of notes from files")
    asked = sorted(keys_of(overrides))
    if settings.injector_format == "note" and "medserl.place_weight" in asked:
        raise ConfigError("medserl.place_weight: has no effect: a whole note does not say its place; leave it out")
    for key in asked:
        section, _, name = key.rpartition(".")
        late = section == "medserl.late_mixture" or key == "medserl.late_after"
        if (late and from_files) or ((late or section == "medserl.mixture") and name in idle):
            raise ConfigError(f"{key}: has no effect: only demonstrations {whose} look at it; leave it out")


def check_one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError for a word that is not one of those that a key of ours takes."""
    if value not in choices:
        raise ConfigError(f"medserl.{key}: {value!r} is not one of {', '.join(choices)}")


def check_choices(settings: GameSettings) -> None:
    """Our own settings against each other; single values have their bounds in medserl.config.values."""
    check_one_of("device", settings.device, DEVICES)
    check_one_of("injector_format", settings.injector_format, FORMATS)
    check_one_of("train_roles", settings.train_roles, TRAIN_ROLES)
    check_one_of("advantage.normalisation", settings.advantage.normalisation, NORMALISATIONS)
    check_one_of("advantage.verdict_credit", settings.advantage.verdict_credit, VERDICT_CREDITS)
    if (settings.frozen_injector or settings.injector_url) and settings.train_roles != "assessor":
        raise ConfigError(
            f"medserl.train_roles: {settings.train_roles!r}, but the injector is another model "
            "(medserl.frozen_injector, medserl.injector_url), so that only the assessor can train; say assessor"
        )
    if settings.frozen_injector and settings.injector_url:
        raise ConfigError(
            "medserl.injector_url: medserl.frozen_injector starts a server of its own; give only one of the two"
        )
    from medserl.config.servers import api_of

    api_of(settings.injector_url, "medserl.injector_url")
    notes = settings.notes
    if notes.labelled_conditions is not None and (notes.path or notes.labelled_path):
        raise ConfigError(
            "medserl.notes.labelled_conditions: only the ward's notes name their conditions; leave it out, or "
            "medserl.notes.path and medserl.notes.labelled_path"
        )
    _check_batch(settings)
    vcf = settings.vcf
    if not 0.0 <= vcf.min_jaccard <= vcf.max_jaccard <= 1.0:
        raise ConfigError(
            f"medserl.vcf: min_jaccard {vcf.min_jaccard} and max_jaccard {vcf.max_jaccard} must satisfy "
            "0 <= min <= max <= 1"
        )


def _check_estimator(config: DictConfig, settings: GameSettings) -> None:
    """What has no meaning beside a critic, and what has none without one."""
    rule, usual = settings.advantage, AdvantageSettings()
    if config.algorithm.adv_estimator != GAE:
        if config.algorithm.lam != 1.0:
            raise ConfigError(f"algorithm.lam: {config.algorithm.lam} {NO_CRITIC}")
        return
    if rule.normalisation == ROLE_BASELINE:
        raise ConfigError(
            "medserl.advantage.normalisation: role_baseline, but the critic is the baseline "
            "(algorithm.adv_estimator=gae); choose per_role or global"
        )
    if rule.baseline_decay != usual.baseline_decay:
        raise ConfigError(
            f"medserl.advantage.baseline_decay: {rule.baseline_decay} has no effect beside a critic "
            "(algorithm.adv_estimator=gae); leave it out"
        )
    if rule.verdict_credit != usual.verdict_credit:
        raise ConfigError(
            f"medserl.advantage.verdict_credit: {rule.verdict_credit} takes the reward's place, so that a critic "
            "(algorithm.adv_estimator=gae) would have nothing to say; choose one of the two"
        )


def _check_validation(config: DictConfig, settings: GameSettings) -> None:
    """What chooses the best checkpoint and ends a run early must be measured, or neither ever happens."""
    validation = settings.validation
    measured = [name for kind in passes(validation) for name in validation_metrics(kind)]
    if validation.best_metric not in measured:
        raise ConfigError(
            f"medserl.validation.best_metric: {validation.best_metric} is not measured by this configuration, or is "
            f"not better when it is greater; choose one of {', '.join(measured)}"
        )
    if validation.patience is not None and not (has_validation_notes(settings) and config.trainer.test_freq > 0):
        raise ConfigError(
            f"medserl.validation.patience: {validation.patience}, but nothing is validated between rounds; set "
            "trainer.test_freq and medserl.validation.path, or leave patience out"
        )


def _check_batch(settings: GameSettings) -> None:
    if settings.rollout_batch_size == 0 and not settings.labelled_batch_size:
        raise ConfigError("medserl.rollout_batch_size: 0, and no medserl.labelled_batch_size: nothing to train on")
    if settings.rollout_batch_size == 1:
        raise ConfigError("medserl.rollout_batch_size: 1 is less than 2, one note of each mode")
    if labelled_per_round(settings) % 2:
        raise ConfigError(
            f"medserl.labelled_batch_size: {labelled_per_round(settings)} is odd; give an even number, half per class"
        )
    if settings.replay_batch_size % 2:
        raise ConfigError(
            f"medserl.replay_batch_size: {settings.replay_batch_size} is odd; give an even number, half per class"
        )
    if settings.replay_batch_size and settings.rollout_batch_size == 0:
        raise ConfigError(
            f"medserl.replay_batch_size: {settings.replay_batch_size}, but medserl.rollout_batch_size is 0, so that "
            "there is no play to ask about again; leave it out"
        )
