"""Settings of ``medserl sft``: the ``medserl`` section of its configuration, typed, with every default here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from medserl.config.settings import NotesSettings


@dataclass
class MixtureSettings:
    """What a batch of demonstrations consists of."""

    assessor_pairs: int = 14
    """A pair is a note with and without an error: unpaired demonstrations taught a tiny model nothing."""
    injector_turns: int = 24
    """Half benign, half error."""
    label_noise: float = 0.0
    """Share of the assessor's pairs whose two answers are swapped, so that verdicts do not saturate."""
    missed_errors: float = 0.0
    """Ward only: share of the assessor's erroneous notes that are called correct, as by a reader who overlooks
    errors: a warm start that errs on one side."""
    thinking: float = 0.0
    """Share of the turns in which the model writes the empty thought itself."""
    benign_variant: float = 0.5
    """Ward only: share of the assessor's correct notes that carry a benign edit, as they do in the game."""
    gold_error: float = 0.3
    """Ward only: share of the assessor's erroneous notes that are the note's own gold error."""
    habit: float = 0.85
    """Ward only: share of the injector's edits that replace a phrase by its usual successor, not a random one."""
    hard_places: float = 1.0
    """Ward only: share of the injector's turns that may change a sentence in which a tiny model's edits often fail."""
    least_similarity: float = 0.0
    """Ward only: shingle similarity that an injector's edit keeps where the note offers such an edit; elsewhere the
    filter's own bound."""
    learn_text: float = 1.0
    """Ward only: share of the correct notes whose words are learnt too, with ``text_weight``."""


@dataclass
class SftSettings:
    """The ``medserl`` section of a fine-tuning configuration."""

    device: str = "auto"
    """``cuda``, ``cpu``, or ``auto``: cuda where there is an NVIDIA device."""
    seed: int = 1
    """Seed of the demonstrations and of untrained weights."""
    run_dir: str = "outputs/sft"
    """Everything a run writes lies here; the finished model in ``model/``."""
    notes: NotesSettings = field(default_factory=NotesSettings)
    prompt_set: str = "clinical"
    """A shipped prompt set or a directory with prompt files; ``auto``: ``ward`` for the ward's tiny model, ``clinical``
    for every other."""
    injector_format: str = "edit"
    """``edit`` (sentence number and new sentence) or ``note`` (the whole note)."""
    steps: int = 1000
    """Optimizer steps."""
    max_demonstrations: int = 40000
    """Demonstrations made before training; more steps go over them again."""
    mixture: MixtureSettings = field(default_factory=MixtureSettings)
    late_mixture: MixtureSettings | None = None
    """Ward only: the mixture of the last part of the run, with as many demonstrations a batch; null: as before."""
    late_after: float = 0.6
    """Share of the batches after which ``late_mixture`` holds."""
    answer_weight: float = 1.0
    """Loss weight of an answer's token."""
    verdict_weight: float = 1.0
    """Loss weight of a token of the assessor's verdict: one token decides, among many of format."""
    change_weight: float = 1.0
    """Loss weight of a token of the first word in which the injector's edit differs from the note: there a model that
    hesitates copies the old word, and with it the whole sentence, which the filter rejects."""
    text_weight: float = 0.0
    """Loss weight of a token of the prompt of a correct note, so that a tiny model learns the notes' language."""
    trackers: list[str] = field(default_factory=list)
    """``wandb``, ``mlflow``, ``swanlab``: which of them get the run's numbers, and nothing but numbers
    (docs/trackers.md)."""


def batch_size(settings: SftSettings) -> int:
    """Demonstrations per optimizer step."""
    return 2 * settings.mixture.assessor_pairs + settings.mixture.injector_turns


def batches_made(settings: SftSettings) -> int:
    """Batches that are made before training: each step's own, or as many as ``max_demonstrations`` allows."""
    return max(1, min(settings.steps, settings.max_demonstrations // batch_size(settings)))


def epochs(settings: SftSettings) -> int:
    """Passes over the demonstrations that ``steps`` take."""
    return math.ceil(settings.steps / batches_made(settings))
