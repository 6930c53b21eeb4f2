"""Everything that can be known to be wrong before anything starts. No torch; transformers for the tokenizer
only."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medserl.config.load import game_settings
from medserl.config.plugins import described, has_validation_notes
from medserl.config.settings import JUDGE, GameSettings, labelled_per_round, make_setup
from medserl.data.rounds import check_no_leak, labelled_notes, training_notes, validation_notes
from medserl.errors import ConfigError, DataError
from medserl.game import Note
from medserl.planning.shapes import check_divides, shape_of
from medserl.preflight.devices import check_device, check_ray
from medserl.preflight.fit import check_memory
from medserl.preflight.host import check_machine, check_writable
from medserl.preflight.model_files import MODEL, check_weights, model_path, read_model_config
from medserl.preflight.notes_fit import LONGEST_PROMPT, check_prompt_lengths, labelled_extra, settle_prompt_length
from medserl.run.layout import parallel_of
from medserl.run.run_dir import RunDir
from medserl.serving.servers import check_servers

_log = logging.getLogger("medserl.data")


def check_all(config: DictConfig, run_dir: RunDir, asked: Collection[str] = ()) -> None:
    """Raise the first problem found, cheapest checks first; settle what follows from the notes.

    Args:
        config: The run's configuration; `settle_labelled_share` and `settle_prompt_length` may change it.
        run_dir: The run directory.
        asked: Keys that the user set, and that nothing here changes.

    Raises:
        ConfigError: sizes that do not divide, an unusable model directory or run directory, an unknown
        prompt set.
        DataError: unusable notes, or prompts longer than configured.
    """
    settle_labelled_share(config)
    settings = game_settings(config)
    check_layout(config)
    check_device(config)
    make_setup(settings)
    check_servers(settings)
    if JUDGE in (settings.referee.name, settings.second_referee.name):
        check_judge(config)
    parallel, rollout = parallel_of(config), config.actor_rollout_ref.rollout
    path = model_path(config.actor_rollout_ref.model.path, MODEL)
    model = check_model(
        path,
        MODEL,
        parallel.tp,
        parallel.pp,
        rollout.tensor_model_parallel_size,
    )
    check_weights(path, MODEL, model)
    measured = settle_prompt_length(config, model) if LONGEST_PROMPT not in asked else frozenset[Note]()
    check_lengths(config, model)
    check_memory(config, model, str(path))
    check_ray(config)
    run_dir.check(config)
    check_writable(run_dir.path)
    check_machine(config)
    notes = training_notes(settings)
    check_notes(settings, notes)
    held_out = check_validation(config, settings, notes)
    check_prompt_lengths(config, settings, [note for note in (*notes, *held_out) if note not in measured], model)


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


def check_layout(config: DictConfig) -> None:
    """Devices, parallel sizes and batch sizes must divide each other."""
    actor, rollout, trainer = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.trainer
    parallel = parallel_of(config)
    tp, pp, cp = parallel.tp, parallel.pp, parallel.cp
    world = trainer.nnodes * trainer.n_gpus_per_node
    _divides(
        world,
        tp * pp * cp,
        f"trainer.nnodes * trainer.n_gpus_per_node = {world} workers",
        f"TP {tp} x PP {pp} x CP {cp} = {tp * pp * cp} (actor_rollout_ref.actor.megatron)",
    )
    rollout_tp = rollout.tensor_model_parallel_size
    _divides(
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
    mini = actor.ppo_mini_batch_size * rollout.n
    _divides(
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
        _divides(
            mini // dp,
            micro,
            f"{mini // dp} trajectories per replica and mini-batch",
            f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu {micro}",
        )
    for part in ("rollout", "ref"):  # verl asserts it in the first round only
        section = config.actor_rollout_ref[part]
        micro = section.log_prob_micro_batch_size_per_gpu
        if micro and not section.log_prob_use_dynamic_bsz:
            _divides(
                mini // dp,
                micro,
                f"{mini // dp} trajectories per replica and mini-batch",
                f"actor_rollout_ref.{part}.log_prob_micro_batch_size_per_gpu {micro}",
            )
    longest = config.data.max_prompt_length + config.data.max_response_length
    if longest > rollout.max_model_len:
        raise ConfigError(
            f"actor_rollout_ref.rollout.max_model_len: {rollout.max_model_len} is less than "
            f"data.max_prompt_length + data.max_response_length = {longest}"
        )


def _divides(whole: int, part: int, whole_name: str, part_name: str) -> None:
    if part < 1 or whole % part:
        raise ConfigError(f"{whole_name} cannot be divided by {part_name}; change one of them")


def check_model(path: Path, key: str, tp: int, pp: int, rollout_tp: int = 1) -> dict[str, Any]:
    """The model directory must hold a model of a known family with its tokenizer that the layout can split; returns
    config.json."""
    model = read_model_config(path, key)
    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise ConfigError(f"{key}: {path} has no tokenizer (tokenizer.json); copy the model's tokenizer files there")
    if not any(file.is_file() for file in path.glob("*.safetensors")):
        old = "; *.bin is not read: save it again with transformers' save_pretrained" if any(path.glob("*.bin")) else ""
        raise ConfigError(f"{key}: {path} has no weights (*.safetensors){old}")
    check_divides(shape_of(model, f"{key}: {path}"), tp, pp, rollout_tp)
    return model


def check_lengths(config: DictConfig, model: dict[str, Any]) -> None:
    """What a game may take must fit the model's context; vLLM would refuse it after minutes."""
    length, longest = config.actor_rollout_ref.rollout.max_model_len, model.get("max_position_embeddings")
    if isinstance(longest, int) and length > longest:
        raise ConfigError(
            f"actor_rollout_ref.rollout.max_model_len: {length} (data.max_prompt_length + data.max_response_length, "
            f"where it is not set) is more than the model's max_position_embeddings {longest}"
        )


def check_judge(config: DictConfig) -> None:
    """A judge's model directory must hold a model."""
    model = config.reward.reward_model
    if model.enable and not (Path(model.model_path) / "config.json").is_file():
        raise ConfigError(
            f"medserl.referee.options.model: {model.model_path} is no model directory (config.json); give one, or "
            "leave it out for the model that training starts from"
        )


def check_notes(settings: GameSettings, notes: Sequence[Note]) -> None:
    """There must be at least one round's worth of notes, and gold labels where they are to be mixed in."""
    source = described(settings.notes)
    if len(notes) < settings.rollout_batch_size:
        raise DataError(
            f"{source}: {len(notes)} notes are fewer than one round's medserl.rollout_batch_size "
            f"{settings.rollout_batch_size}; give more notes or a smaller batch"
        )
    if settings.notes.labelled_path is not None and not labelled_per_round(settings):
        raise ConfigError(
            "medserl.notes.labelled_path: no labelled note is played in a round of "
            f"{settings.rollout_batch_size} (medserl.labelled_share {settings.labelled_share:g}); raise "
            "medserl.labelled_share or set medserl.labelled_batch_size, or leave the path out"
        )
    if labelled_per_round(settings) and not labelled_notes(settings, list(notes)):
        raise DataError(
            f"{settings.notes.labelled_path or source}: no note has an error variant, so there is nothing to "
            "mix in; set medserl.labelled_batch_size=0 or medserl.notes.labelled_path"
        )


def check_validation(config: DictConfig, settings: GameSettings, notes: Sequence[Note]) -> list[Note]:
    """Held-out notes, when the run validates: there must be some, with both classes, and none that trains.

    Returns:
        The held-out notes; empty when the run does not validate, or has none to validate on (the plan says so).
    """
    if (config.trainer.test_freq <= 0 and not config.trainer.val_before_train) or not has_validation_notes(settings):
        return []
    held_out = validation_notes(settings)
    where = settings.validation.path or described(settings.notes)
    if not any(note.error_text is not None for note in held_out):
        raise DataError(f"{where}: no note has an error variant, so there is nothing to find; choose another file")
    check_no_leak([*notes, *labelled_extra(settings, notes)], held_out, where)
    return held_out
