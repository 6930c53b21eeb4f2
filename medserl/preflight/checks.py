"""Everything that can be known to be wrong before anything starts. No torch; transformers for the tokenizer
only."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.config.chat_template import check_chat_template, check_thinking, check_vocabulary
from medserl.config.family import NOTES
from medserl.config.load import game_settings
from medserl.config.plugins import described, has_validation_notes
from medserl.config.settings import JUDGE, GameSettings, labelled_per_round, make_setup
from medserl.data.rounds import check_no_leak, labelled_notes, training_notes, validation_notes
from medserl.errors import ConfigError, DataError, Problems
from medserl.game import Note
from medserl.planning.job import ends_of
from medserl.planning.shapes import check_divides, shape_of
from medserl.preflight.devices import check_device, check_ray
from medserl.preflight.fit import check_memory
from medserl.preflight.host import check_machine, check_writable
from medserl.preflight.layout import check_layout
from medserl.preflight.model_files import (
    MODEL,
    check_language,
    has_tokenizer,
    look_at_model,
    tell_other_format,
)
from medserl.preflight.notes_fit import (
    LONGEST_PROMPT,
    check_prompt_lengths,
    check_referee_knows,
    labelled_extra,
    settle_prompt_length,
)
from medserl.preflight.prompt_lengths import load_tokenizer
from medserl.preflight.ray_address import check_ray_address
from medserl.run.layout import parallel_of
from medserl.run.run_dir import RunDir
from medserl.run.trackers import check_trackers
from medserl.serving.servers import check_servers
from medserl.words import counted

_log = logging.getLogger("medserl.data")
RUN_DIR = "medserl.run_dir"


@dataclass
class Seen:
    """What the checks saw of a run's notes, for its plan."""

    notes: int = 0
    """Notes that the injector edits."""
    gold: int = 0
    """Gold-labelled notes that the assessor may be given."""
    longest: int = 0
    """Tokens that the longest prompt needs, room for an edit included; 0: none was measured."""


def check_all(
    config: DictConfig, run_dir: RunDir, asked: Collection[str] = (), problems: Problems | None = None
) -> Seen:
    """Check everything, cheapest first, and settle what follows from the notes; what stands on something that failed
    is left out.

    Args:
        config: The run's configuration; `settle_labelled_share`, `settle_prompt_length` and `settle_bucket` may change
            it.
        run_dir: The run directory.
        asked: Keys that the user set, and that nothing here changes.
        problems: What was found wrong before; all is told at the end.

    Returns:
        What the notes are.

    Raises:
        UserError: all problems found: sizes that do not divide, an unusable model directory or run directory, an
        unknown prompt set, unusable notes, prompts longer than configured.
    """
    problems = problems or Problems()
    seen = Seen()
    own_notes = not problems.doubts(NOTES)
    with problems.noted():
        if own_notes:
            settle_labelled_share(config)
    settings = game_settings(config)
    playable = _setting_problems(config, settings, problems)
    model, measured = None, frozenset[Note]()
    if not problems.doubts(MODEL):
        model, measured, seen.longest = _model_problems(config, problems, asked if own_notes else {LONGEST_PROMPT})
    _machine_problems(config, run_dir, problems)
    if own_notes:
        settings = game_settings(config)
        prompts = model is not None and playable
        _note_problems(config, settings, problems, measured, MODEL in asked, seen if prompts else None)
        with problems.noted():
            seen.notes, seen.gold = _counts(settings)
    problems.tell()
    return seen


def _setting_problems(config: DictConfig, settings: GameSettings, problems: Problems) -> bool:
    """Check sizes, devices and what is chosen by name; returns whether a game could be played."""
    playable = False
    check_layout(config, problems)
    check_device(config, problems)
    with problems.noted():
        make_setup(settings)
        playable = True
    with problems.noted():
        check_servers(settings)
    with problems.noted():
        check_trackers(settings.trackers)
    if JUDGE in (settings.referee.name, settings.second_referee.name):
        with problems.noted():
            check_judge(config)
    return playable


def _machine_problems(config: DictConfig, run_dir: RunDir, problems: Problems) -> None:
    """Check Ray, the run directory and the machine."""
    check_ray(config, problems)
    with problems.noted():
        check_ray_address(config)
    if not problems.doubts(RUN_DIR):
        with problems.noted():
            run_dir.check(config)
            run_dir.check_checkpoints(content=False)
            check_writable(run_dir.path)
    check_machine(config, problems)


def _counts(settings: GameSettings) -> tuple[int, int]:
    """Training notes, and gold-labelled ones."""
    notes = training_notes(settings)
    return len(notes), len(labelled_notes(settings, notes)) if labelled_per_round(settings) else 0


def _note_problems(
    config: DictConfig,
    settings: GameSettings,
    problems: Problems,
    measured: frozenset[Note],
    named: bool,
    seen: Seen | None,
) -> None:
    """Check the notes, and, where their prompts can be made, those too; ``seen`` takes how long they are."""
    notes, held_out = None, list[Note]()
    model = config.actor_rollout_ref.model.path
    with problems.noted():
        notes = training_notes(settings)
    if notes is not None:
        with problems.noted():
            check_notes(settings, notes)
        with problems.noted():
            check_referee_knows(settings, notes)
    elif settings.notes.labelled_path is not None:
        with problems.noted():
            labelled_notes(settings, [])
    with problems.noted():
        held_out = check_validation(config, settings, notes)
    if notes is None:
        return
    if not problems.doubts(MODEL):
        with problems.noted():
            check_language(settings.notes.path, [note.text for note in notes], model, MODEL, named)
            if seen is not None:
                left = [note for note in (*notes, *held_out) if note not in measured]
                seen.longest = max(seen.longest, check_prompt_lengths(config, settings, left))


def _model_problems(
    config: DictConfig, problems: Problems, asked: Collection[str]
) -> tuple[dict[str, Any] | None, frozenset[Note], int]:
    """Check the model directory; its config.json, or None where no prompt can be made for it, the notes whose prompts
    were measured, and how long those are."""
    parallel, rollout = parallel_of(config), config.actor_rollout_ref.rollout
    path, tokenizer = config.actor_rollout_ref.model.path, None
    model = look_at_model(path, MODEL, problems)
    if model is None:
        return None, frozenset(), 0
    measured: frozenset[Note] = frozenset()
    longest = 0
    settle_bucket(config, model)
    if not config.medserl.injector_url:
        tell_other_format(Path(path), config.medserl.injector_format)
    if has_tokenizer(Path(path)):
        with problems.noted():
            tokenizer = check_tokenizer(config, model)
    if tokenizer is not None:  # else no prompt can be measured, and a limit that follows from prompts says nothing
        with problems.noted():
            check_thinking(tokenizer, path, MODEL, config.medserl.thinking)
        if LONGEST_PROMPT not in asked:
            with problems.noted():
                measured, longest = settle_prompt_length(config, model)
        with problems.noted():
            check_lengths(config, model)
    with problems.noted():
        shape = shape_of(model, f"{MODEL}: {path}")
        megatron = OmegaConf.select(config, "actor_rollout_ref.actor.megatron")  # FSDP has none
        ends = ends_of(megatron) if megatron is not None else (None, None)
        check_divides(shape, parallel.tp, parallel.pp, rollout.tensor_model_parallel_size, ends)
        check_memory(config, model, str(path), asked)
    return (model if tokenizer is not None else None), measured, longest


def settle_labelled_share(config: DictConfig) -> None:
    """Notes of one's own without gold errors leave nothing to mix in: the labelled share falls to 0, and a line says
    so. A number of labelled notes, or a file of them, that was asked for is no share and stays for `check_notes`.

    Raises:
        DataError: unusable notes.
    """
    settings = game_settings(config)
    own = settings.notes.path is not None and settings.notes.labelled_path is None
    if not own or settings.labelled_batch_size is not None or not labelled_per_round(settings):
        return
    if labelled_notes(settings, training_notes(settings)):
        return
    _log.warning(
        "%s: no note has a gold error, so there is nothing to mix in: medserl.labelled_share is 0 instead of %g",
        settings.notes.path,
        settings.labelled_share,
    )
    config.medserl.labelled_share = 0.0
    config.data.train_batch_size = settings.rollout_batch_size


def settle_bucket(config: DictConfig, model: dict[str, Any]) -> None:
    """The buffer that carries new weights to vLLM must hold the largest tensor, the embedding: verl asserts it after
    minutes. Where it is too small it becomes as large as that, and a line says so."""
    engine = config.actor_rollout_ref.rollout.checkpoint_engine
    largest = 4 * model["vocab_size"] * model["hidden_size"]  # float32
    if (needed := largest // 2**20 + 1) > engine.update_weights_bucket_megabytes:
        _log.info(
            "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes is %d instead of %d, for the "
            "model's embedding",
            needed,
            engine.update_weights_bucket_megabytes,
        )
        engine.update_weights_bucket_megabytes = needed


def check_lengths(config: DictConfig, model: dict[str, Any]) -> None:
    """What a game may take must fit the model's context; vLLM would refuse it after minutes."""
    length, longest = config.actor_rollout_ref.rollout.max_model_len, model.get("max_position_embeddings")
    if isinstance(longest, int) and length > longest:
        raise ConfigError(
            f"actor_rollout_ref.rollout.max_model_len: {length} (data.max_prompt_length + data.max_response_length, "
            f"where it is not set) is more than the model's max_position_embeddings {longest}; lower "
            "them, or use a model with a longer context"
        )


def check_judge(config: DictConfig) -> None:
    """A judge's model directory must hold a model."""
    model = config.reward.reward_model
    if model.enable and not (Path(model.model_path) / "config.json").is_file():
        raise ConfigError(
            f"medserl.referee.options.model: {model.model_path} is not a model directory (config.json); give one, or "
            "leave it out for the model that training starts from"
        )


def check_notes(settings: GameSettings, notes: Sequence[Note]) -> None:
    """There must be at least one round's worth of notes, and gold labels where they are to be mixed in."""
    source = described(settings.notes)
    if len(notes) < settings.rollout_batch_size:
        raise DataError(
            f"{source}: {counted(len(notes), 'note')} {'is' if len(notes) == 1 else 'are'} fewer than one round's "
            f"medserl.rollout_batch_size {settings.rollout_batch_size}; give more notes or a smaller batch"
        )
    if settings.notes.labelled_path is not None and not labelled_per_round(settings):
        raise ConfigError(
            "medserl.notes.labelled_path: no labelled note is played in a round of "
            f"{settings.rollout_batch_size} (medserl.labelled_share {settings.labelled_share:g}); raise "
            "medserl.labelled_share or set medserl.labelled_batch_size, or leave the path out"
        )
    gold = labelled_notes(settings, list(notes)) if labelled_per_round(settings) else None
    if gold is not None and not any(note.error_text is not None for note in gold):
        raise DataError(
            f"{settings.notes.labelled_path or source}: no note has an error variant, so there is nothing to "
            "mix in; set medserl.labelled_batch_size=0 or medserl.notes.labelled_path"
        )


def check_validation(config: DictConfig, settings: GameSettings, notes: Sequence[Note] | None) -> list[Note]:
    """Held-out notes, when the run validates: there must be some, with both classes, and none that trains (``notes``;
    None where those cannot be read).

    Returns:
        The held-out notes; empty when the run does not validate, or has none to validate on (the plan says so).
    """
    if (config.trainer.test_freq <= 0 and not config.trainer.val_before_train) or not has_validation_notes(settings):
        return []
    held_out = validation_notes(settings)
    where = settings.validation.path or described(settings.notes)
    if not any(note.error_text is not None for note in held_out):
        raise DataError(f"{where}: no note has an error variant, so there is nothing to find; choose another file")
    if notes is not None:
        check_no_leak([*notes, *labelled_extra(settings, notes)], held_out, where)
    return held_out


def check_tokenizer(config: DictConfig, model: dict[str, Any]) -> Any:
    """The tokenizer, which must belong to the model and have a chat template that renders the game's messages."""
    path = config.actor_rollout_ref.model.path
    tokenizer = load_tokenizer(path)
    check_chat_template(tokenizer, path, MODEL, dict(config.data.apply_chat_template_kwargs))
    check_vocabulary(tokenizer, path, MODEL, model)
    return tokenizer
