"""What is asked of a real model, in which order, and with how much of everything. Pure; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medserl.errors import ConfigError
from medserl.evaluation.readiness import Readiness
from medserl.planning.shapes import shape_of
from medserl.preflight.model_files import read_model_config

TRAIN, HELD_OUT = "train", "valid"
"""What stands in the names of MEDEC's files, whatever the case."""
_MEGATRON = "actor_rollout_ref.actor.megatron"
ENDINGS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Course:
    """Model, notes, and how much of everything: what two cores do in an hour with a hundred million parameters."""

    model: Path
    train: Path
    """Notes with gold errors: of the warm start and of self-play."""
    held_out: Path
    out: Path
    sentences: int = 5
    """Of a note that is trained on or edited: those around its gold error."""
    longest: int = 250
    """Characters of any of these sentences: notes with a longer one, usually a list of laboratory values, are left out,
    because prompts have 512 tokens in self-play."""
    texts: int = 40
    """That each evaluation judges."""
    probed: int = 40
    """Notes that are edited, and judged with and without their error, to see whether a warm start is done."""
    steps: int = 48
    """Of one round of the warm start."""
    warm_rounds: int = 3
    """At most; more learn what these did not, in longer than an hour."""
    rounds: int = 3
    """Of self-play."""
    games: int = 6
    """Notes that are played in one."""
    learning_rate: float = 2e-4
    """Of the warm start, down to a quarter of it."""
    dtype: str = "float32"
    """Of vLLM's weights when a model is judged: bfloat16 is half as large, and slower or faster by the processor."""
    temperature: float = 0.5
    """Of every reply that is drawn: at 1 a model of this size writes words that are none."""
    accepted: float = 0.6
    """Least share of first edits that pass the filter before self-play."""
    parsed: float = 0.95
    """Least share of answers that can be read before self-play."""

    def ready(self, found: Readiness) -> bool:
        """Whether a warm start is done."""
        return found.first_share >= self.accepted and found.parsed_share >= self.parsed

    def cut(self) -> str:
        """In a sentence, what was cut to fit into an hour."""
        return (
            "Cut to fit an hour on two cores: notes that are trained on or edited are "
            f"{self.sentences} sentences around their gold error, none of more than {self.longest} characters, "
            f"evaluations judge {self.texts} whole texts, readiness is of {self.probed} notes, a warm start has up to "
            f"{self.warm_rounds} rounds of {self.steps} steps, and self-play "
            f"{self.rounds} rounds of {self.games} notes."
        )

    @property
    def notes(self) -> Path:
        """The training notes, cut, as pairs."""
        return self.out / "notes.jsonl"

    @property
    def probed_notes(self) -> Path:
        """The held-out notes, cut, as pairs; evaluations take the whole ones."""
        return self.out / "held-out.jsonl"

    def zero_shot(self) -> list[str]:
        """Arguments of ``medserl`` that judge a model as it is."""
        return self._evaluate(self.model, "zero-shot")

    def warm_up(self, number: int) -> list[str]:
        """Arguments of a round of the warm start, from 1 on: each goes on from the one before with other notes first.

        The verdict's form is learnt in some steps, words of the note that can be changed are not: so most are edits.
        Most errors are proved ones, and each sentence is changed in one way: where a change may come at any word, or be
        any word, as in gold errors, a model of this size changes nothing.
        """
        start = self.model if number == 1 else self.warm_model(number - 1)
        return [
            *("sft", "--model", str(start), "--data", str(self.notes), "--steps", str(self.steps)),
            *("--run-dir", str(self.out / f"warm-{number}")),
            *(f"medserl.seed={number}", "medserl.mixture.assessor_pairs=1", "medserl.mixture.injector_turns=6"),
            *("medserl.mixture.proved_errors=0.9", "medserl.mixture.habit=1.0"),
            *(f"optim.lr={self.learning_rate:g}", f"optim.min_lr={self.learning_rate / 4:g}"),
            f"trainer.save_freq={self.steps}",
        ]

    def warm_model(self, number: int) -> Path:
        """The model that a round of the warm start leaves."""
        return self.out / f"warm-{number}" / "model"

    def play(self, start: Path) -> list[str]:
        """Arguments of self-play from a warm model, the layers in two stages (PP 2) where memory is enough for two
        workers.

        Its checkpoint loads in this layout only, which takes less memory to write.
        """
        return [
            *("train", "--model", str(start), "--prompt-data", str(self.notes), "--run-dir", str(self.out / "game")),
            *("--max-rounds", str(self.rounds), f"trainer.save_freq={self.rounds}", "trainer.test_freq=-1"),
            *(f"medserl.rollout_batch_size={self.games}", self._drawn, "data.max_prompt_length=512"),
            f"{_MEGATRON}.dist_ckpt_optim_fully_reshardable=false",
        ]

    def export(self) -> list[str]:
        """Arguments that make a model directory of the last checkpoint."""
        return ["export", str(self.out / "game"), "--out", str(self.trained_model)]

    @property
    def trained_model(self) -> Path:
        """What self-play made of the model."""
        return self.out / "model"

    def trained(self) -> list[str]:
        """Arguments that judge it, on the texts of before."""
        return self._evaluate(self.trained_model, "trained")

    def probe(self, model: Path, name: str, attempts: int = 1) -> list[str]:
        """Arguments of `medserl.evaluation.readiness`."""
        return [
            *(str(model), str(self.probed_notes), "--count", str(self.probed), "--attempts", str(attempts)),
            *("--out", str(self.out / f"{name}.json"), self._drawn, self._width),
        ]

    @property
    def _drawn(self) -> str:
        return f"actor_rollout_ref.rollout.temperature={self.temperature}"

    def _evaluate(self, model: Path, name: str) -> list[str]:
        return [
            *("evaluate", "--model", str(model), "--data", str(self.held_out), "--count", str(self.texts)),
            *("--out", str(self.out / name), self._width),
        ]

    @property
    def _width(self) -> str:
        return f"actor_rollout_ref.rollout.dtype={self.dtype}"


LARGE = 0.25e9
"""Parameters from which a course has fewer and smaller steps: each takes three times as long as with SmolLM2-135M."""


def course_of(model: Path, notes: Path, out: Path) -> Course:
    """The course of a model, as long as its size lets it be in an hour.

    Args:
        model: Its directory.
        notes: The folder with MEDEC's files.
        out: Where everything is kept.

    Raises:
        ConfigError: not one of each of MEDEC's files, no model.
    """
    course = Course(model, *find_notes(notes), out)
    shape = shape_of(read_model_config(model, "--real"), f"--real: {model}")
    if shape.parameters < LARGE:
        return course
    return replace(course, steps=32, games=4, learning_rate=5e-5, dtype="bfloat16")


def find_notes(folder: Path) -> tuple[Path, Path]:
    """MEDEC's files in a folder: the one to train on and the one that is held out.

    Raises:
        ConfigError: not one of each.
    """
    if not folder.is_dir():
        raise ConfigError(f"--notes {folder}: is not a directory; give the folder with MEDEC's files")
    files = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file())
    train, held_out = (_one(folder, files, word) for word in (TRAIN, HELD_OUT))
    return train, held_out


def _one(folder: Path, files: Sequence[Path], word: str) -> Path:
    found = [path for path in files if word in path.name.lower()]
    if len(found) == 1:
        return found[0]
    told = "there is none" if not found else f"there are {', '.join(path.name for path in found)}"
    raise ConfigError(
        f"--notes {folder}: one file ({', '.join(ENDINGS)}) with '{word}' in its name is needed, and {told}; "
        "leave MEDEC's training pairs and its validation file there"
    )
