"""Settings that contradict each other, or that have no effect beside others."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig

from medserl.config import sft_settings as sft
from medserl.config.mistakes import keys_of
from medserl.config.plugins import has_validation_notes, resolved_source
from medserl.config.refused import GAE, NO_CRITIC
from medserl.config.servers import api_of
from medserl.config.settings import (
    DEVICES,
    FILES,
    NORMALISATIONS,
    ROLE_BASELINE,
    TRAIN_ROLES,
    VERDICT_CREDITS,
    WARD,
    AdvantageSettings,
    GameSettings,
    NotesSettings,
    VcfSettings,
    labelled_per_round,
    passes,
    validation_metrics,
)
from medserl.config.sft_settings import SftSettings
from medserl.errors import ConfigError, Problems, all_told
from medserl.game.prompts import FORMATS

_BATCH = "medserl.rollout_batch_size"
CHOICES = {
    "device": DEVICES,
    "injector_format": FORMATS,
    "train_roles": TRAIN_ROLES,
    "advantage.normalisation": NORMALISATIONS,
    "advantage.verdict_credit": VERDICT_CREDITS,
}


def check_choices(settings: GameSettings, found: Problems) -> None:
    """Our own settings against each other; single values have their bounds in medserl.config.values."""
    for key, choices in CHOICES.items():
        check_one_of(settings, key, choices, found)
    for error in _contradictions(settings):
        found.add(error)
    if found.doubts("medserl.vcf"):
        settings.vcf = VcfSettings()
    try:
        api_of(settings.injector_url, "medserl.injector_url")
    except ConfigError as error:
        found.add(error)
        settings.injector_url = None


def _contradictions(settings: GameSettings) -> Iterator[ConfigError]:
    if (settings.frozen_injector or settings.injector_url) and settings.train_roles != "assessor":
        yield ConfigError(
            f"medserl.train_roles: {settings.train_roles!r}, but the injector is another model "
            "(medserl.frozen_injector, medserl.injector_url), so that only the assessor can train; say assessor"
        )
    if settings.frozen_injector and settings.injector_url:
        yield ConfigError(
            "medserl.injector_url: medserl.frozen_injector starts a server of its own; give only one of the two"
        )
    notes = settings.notes
    if notes.labelled_conditions is not None and (notes.path or notes.labelled_path):
        yield ConfigError(
            "medserl.notes.labelled_conditions: only the ward's notes name their conditions; leave it out, or "
            "medserl.notes.path and medserl.notes.labelled_path"
        )
    yield from _of_the_batch(settings)
    vcf = settings.vcf
    if not 0.0 <= vcf.min_jaccard <= vcf.max_jaccard <= 1.0:
        yield ConfigError(
            f"medserl.vcf: min_jaccard {vcf.min_jaccard} and max_jaccard {vcf.max_jaccard} must satisfy "
            "0 <= min <= max <= 1",
            ("medserl.vcf",),
        )


def _of_the_batch(settings: GameSettings) -> Iterator[ConfigError]:
    if settings.rollout_batch_size == 0 and not settings.labelled_batch_size:
        yield ConfigError(
            "medserl.rollout_batch_size: 0, and no medserl.labelled_batch_size: nothing to train on", (_BATCH,)
        )
    if settings.rollout_batch_size == 1:
        yield ConfigError("medserl.rollout_batch_size: 1 is less than 2, one note of each mode", (_BATCH,))
    if labelled_per_round(settings) % 2:
        yield ConfigError(
            f"medserl.labelled_batch_size: {labelled_per_round(settings)} is odd; give an even number, half per class"
        )
    if settings.replay_batch_size % 2:
        yield ConfigError(
            f"medserl.replay_batch_size: {settings.replay_batch_size} is odd; give an even number, half per class"
        )
    if settings.replay_batch_size and settings.rollout_batch_size == 0:
        yield ConfigError(
            f"medserl.replay_batch_size: {settings.replay_batch_size}, but medserl.rollout_batch_size is 0, so that "
            "there is no play to ask about again; leave it out"
        )


def check_one_of(settings: Any, key: str, choices: tuple[str, ...], found: Problems) -> None:
    """A key of ours must be one of its words; one that is not is told, and gives way to the usual one.

    Args:
        settings: The typed ``medserl`` section.
        key: Below it.
        choices: The words.
        found: Takes the ConfigError.
    """
    *above, name = key.split(".")
    section = functools.reduce(getattr, above, settings)
    value = getattr(section, name)
    if value not in choices:
        error = ConfigError(f"medserl.{key}: {value!r} is not one of {', '.join(choices)}", (f"medserl.{key}",))
        found.add(error)
        setattr(section, name, getattr(type(section)(), name))


def check_estimator(config: DictConfig, settings: GameSettings, found: Problems) -> None:
    """What has no meaning beside a critic, and what has none without one."""
    if config.algorithm.adv_estimator == GAE:
        for error in _beside_a_critic(settings.advantage):
            found.add(error)
    elif config.algorithm.lam != 1.0:
        found.add(ConfigError(f"algorithm.lam: {config.algorithm.lam} {NO_CRITIC}"))


def _beside_a_critic(rule: AdvantageSettings) -> Iterator[ConfigError]:
    usual = AdvantageSettings()
    if rule.normalisation == ROLE_BASELINE:
        yield ConfigError(
            "medserl.advantage.normalisation: role_baseline, but the critic is the baseline "
            "(algorithm.adv_estimator=gae); choose per_role or global"
        )
    if rule.baseline_decay != usual.baseline_decay:
        yield ConfigError(
            f"medserl.advantage.baseline_decay: {rule.baseline_decay} has no effect beside a critic "
            "(algorithm.adv_estimator=gae); leave it out"
        )
    if rule.verdict_credit != usual.verdict_credit:
        yield ConfigError(
            f"medserl.advantage.verdict_credit: {rule.verdict_credit} takes the reward's place, so that a critic "
            "(algorithm.adv_estimator=gae) would have nothing to say; choose one of the two"
        )


def check_validation(config: DictConfig, settings: GameSettings) -> None:
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


def source_meant(notes: NotesSettings, found: Problems) -> str:
    """The note source that is meant; of one that contradicts itself, what the path says."""
    with found.noted():
        return resolved_source(notes)
    return WARD if notes.path is None else FILES


def check_sft(config: DictConfig, settings: SftSettings, found: Problems) -> None:
    for key, choices in (("injector_format", FORMATS), ("device", DEVICES)):
        check_one_of(settings, key, choices, found)
    settings.notes.source = source_meant(settings.notes, found)
    for error in _contradictions_of_sft(config, settings):
        found.add(error)
    if sft.batch_size(settings) == 0:
        settings.mixture = sft.MixtureSettings()  # what is not known is divided by


def _contradictions_of_sft(config: DictConfig, settings: SftSettings) -> Iterator[ConfigError]:
    if settings.notes.source not in (FILES, WARD):
        yield ConfigError(
            f"medserl.notes.source: fine-tuning reads {FILES} or the {WARD}, not a source of your own",
            ("medserl.notes.source",),
        )
    for key in ("labelled_path", "labelled_conditions", "options"):
        if getattr(settings.notes, key):
            yield ConfigError(f"medserl.notes.{key}: fine-tuning learns from medserl.notes alone; leave it out")
    size = sft.batch_size(settings)
    if size == 0:
        yield ConfigError(
            "medserl.mixture: assessor_pairs 0 and injector_turns 0 make an empty batch; raise one of them",
            ("medserl.mixture",),
        )
    elif settings.max_demonstrations < size:
        yield ConfigError(
            f"medserl.max_demonstrations: {settings.max_demonstrations} are fewer than one batch of medserl.mixture, "
            f"{size}; raise it"
        )
    late = settings.late_mixture
    if late is not None and 2 * late.assessor_pairs + late.injector_turns != size:
        yield ConfigError("medserl.late_mixture: must make as many demonstrations per batch as medserl.mixture")
    if config.optim.min_lr > config.optim.lr:
        yield ConfigError(f"optim.min_lr: {config.optim.min_lr} is more than optim.lr {config.optim.lr}")
    if (config.optim.lr_warmup_steps or 0) >= settings.steps:
        yield ConfigError(
            f"optim.lr_warmup_steps: {config.optim.lr_warmup_steps} steps of warm-up leave none of medserl.steps "
            f"{settings.steps}"
        )


def check_mixture(settings: sft.SftSettings, overrides: Sequence[str], problems: Problems | None = None) -> None:
    """Refuse a key of the mixture that was asked for and that the demonstrations of these notes do not look at; what a
    configuration brings along for other notes is left alone.

    Raises:
        ConfigError: names the key.
    """
    from_files = settings.notes.source == FILES
    idle, whose = (sft.WARD_ONLY, "of the ward's notes") if from_files else (sft.FILES_ONLY, "of notes from files")
    asked = sorted(keys_of(overrides))
    with all_told(problems) as found:
        if settings.injector_format == "note" and "medserl.place_weight" in asked:
            found.add(
                ConfigError("medserl.place_weight: has no effect: a whole note does not say its place; leave it out")
            )
        for key in asked:
            section, _, name = key.rpartition(".")
            late = section == "medserl.late_mixture" or key == "medserl.late_after"
            if (late and from_files) or ((late or section == "medserl.mixture") and name in idle):
                found.add(ConfigError(f"{key}: has no effect: only demonstrations {whose} look at it; leave it out"))
