"""Settings of ``medserl sft``: the ``medserl`` section of its configuration, typed, with every default here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from medserl.config.settings import NotesSettings


@dataclass
class MixtureSettings:
    """What a batch of demonstrations consists of."""

    assessor_pairs: int = 14
    """Pairs of a note with and without an error; unpaired demonstrations taught a tiny model nothing."""
    injector_turns: int = 24
    """Turns of the injector, half of them benign edits and half errors."""
    label_noise: float = 0.0
    """Share of the assessor's pairs whose two answers are swapped, so that verdicts do not saturate."""
    missed_errors: float = 0.0
    """Ward only: share of the erroneous notes that the assessor is taught to call correct, like a reader who overlooks
    errors, so that the warm start errs on one side."""
    proved_errors: float = 0.0
    """Notes from files only: share of the injector's error turns that make an error which the ``rules`` referee proves
    (another side, an opposite, another dose or time) where the note has room for one, instead of its gold error. Such
    errors stand in any sentence, and notes without a gold error have them too."""
    thinking: float = 0.0
    """Share of the turns in which the model itself writes the empty thought (``<think></think>``)."""
    benign_variant: float = 0.5
    """Ward only: share of the assessor's correct notes that carry a benign edit, as they do in the game."""
    gold_error: float = 0.3
    """Ward only: share of the assessor's erroneous notes that carry the note's own gold error."""
    habit: float = 0.85
    """Share of the injector's edits that replace a phrase with its usual successor instead of a random one; in notes
    from files, of those that are no gold error, which then change the first such phrase of their sentence."""
    hard_places: float = 1.0
    """Ward only: share of the injector's turns that may change a sentence in which a tiny model's edits often fail."""
    least_similarity: float = 0.0
    """Ward only: minimum shingle similarity of the injector's edits, where the note offers such an edit; elsewhere the
    filter's own bound applies."""
    learn_text: float = 1.0
    """Ward only: share of the correct notes whose text is learnt too, with ``text_weight``."""


FILES_ONLY = frozenset({"proved_errors"})
"""Keys of the mixture that only demonstrations of notes from files look at."""
WARD_ONLY = frozenset(
    {"missed_errors", "benign_variant", "gold_error", "hard_places", "least_similarity", "learn_text"}
)
"""Keys of the mixture that only the ward's demonstrations look at."""


def of_the_ward(mixture: MixtureSettings) -> dict[str, Any]:
    """The keys of a mixture that the ward's demonstrations look at, with their values."""
    return {key: value for key, value in vars(mixture).items() if key not in FILES_ONLY}


@dataclass
class SftSettings:
    """The ``medserl`` section of a fine-tuning configuration."""

    device: str = "auto"
    """``cuda``, ``cpu``, or ``auto``: cuda if there is an NVIDIA device."""
    seed: int = 1
    """Seed of the demonstrations and of untrained weights."""
    run_dir: str = "outputs/sft"
    """The directory of everything that a run writes; the finished model is in ``model/``."""
    notes: NotesSettings = field(default_factory=NotesSettings)
    prompt_set: str = "clinical"
    """A shipped prompt set or a directory with prompt files; ``auto``: ``ward`` for the ward's tiny model, ``clinical``
    for every other."""
    injector_format: str = "edit"
    """``edit`` (sentence number and new sentence), ``note`` (the whole note) or ``phrase`` (words of the note, and what
    stands in their place)."""
    steps: int = 1000
    """Optimizer steps."""
    max_demonstrations: int = 40000
    """Maximum number of demonstrations, which are made before training; further steps use them again."""
    mixture: MixtureSettings = field(default_factory=MixtureSettings)
    late_mixture: MixtureSettings | None = None
    """Ward only: the mixture for the last part of the run, with the same number of demonstrations per batch; null: no
    change."""
    late_after: float = 0.6
    """Share of the batches after which ``late_mixture`` applies."""
    answer_weight: float = 1.0
    """Loss weight of each token of an answer."""
    verdict_weight: float = 1.0
    """Loss weight of each token of the assessor's verdict: one token decides, among many that are only format."""
    change_weight: float = 1.0
    """Loss weight of each token of the first word in which the injector's edit differs from the note. A model that is
    unsure there copies the old word and then the whole sentence, which the filter rejects."""
    place_weight: float | None = None
    """Loss weight of each token that says what is edited, the sentence's number or the old phrase; null:
    ``answer_weight``. Whether anything there can be changed is decided before the change is written."""
    text_weight: float = 0.0
    """Loss weight of each token of a correct note in the prompt, so that a tiny model learns the language of the
    notes."""
    trackers: list[str] = field(default_factory=list)
    """Experiment trackers that get the run's numbers, and nothing but numbers: any of ``wandb``, ``mlflow`` and
    ``swanlab`` (docs/trackers.md)."""


def batch_size(settings: SftSettings) -> int:
    """Demonstrations per optimizer step."""
    return 2 * settings.mixture.assessor_pairs + settings.mixture.injector_turns


def batches_made(settings: SftSettings) -> int:
    """Batches that are made before training: each step's own, or as many as ``max_demonstrations`` allows."""
    return max(1, min(settings.steps, settings.max_demonstrations // batch_size(settings)))


def epochs(settings: SftSettings) -> int:
    """Passes over the demonstrations that ``steps`` take."""
    return math.ceil(settings.steps / batches_made(settings))
