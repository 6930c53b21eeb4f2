"""What a pipeline is to do: its settings, its stages, its folders. Pure; nothing heavy is imported."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medserl.config.quoting import literal
from medserl.errors import ConfigError

STAGES = ("prepare", "sft", "train", "evaluate", "report")
DONE, SETTINGS, PAGE = "done.json", "pipeline.json", "index.html"
SPLITS = ("train", "validation", "test")
WRITTEN = {
    "prepare": ("data/manifest.json", *(f"data/{split}.parquet" for split in SPLITS)),
    "sft": ("run/model/config.json",),
    "train": ("model/config.json", "run/metrics.jsonl"),
    "evaluate": ("start/results.json", "trained/results.json"),
    "report": ("comparison.json", "comparison.md"),
}
"""What a stage has written when its last file is there, and a later stage or the page reads."""
RECORDED: dict[str, dict[str, type]] = {
    "prepare": {"splits": dict, "dropped": dict},
    "sft": {},
    "train": {"rounds": int, "checkpoint": str, "sentences": list},
    "evaluate": {},
    "report": {"sentence": str},
}
"""What the page reads of a stage's last file."""
AGAIN = "restore it, or give another --out"
TEST_FREQ = 5
"""Rounds between validations where the training configuration does not validate."""
_OVERRIDE = re.compile(r"(train|sft):(.+=.*)", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """What the command line asks for; the same request goes on in its directory."""

    out: Path
    sources: tuple[Path, ...] = ()
    """Files of notes; none: the synthetic ward."""
    config: str = "embedded"
    sft_config: str | None = None
    """None: the one that goes with ``embedded`` or ``real_cpu``; others must name one."""
    train: tuple[str, ...] = ()
    """Overrides of the training configuration, which evaluation uses too."""
    sft: tuple[str, ...] = ()
    """Overrides of the warm start's configuration."""
    model: str | None = None
    skip_warm_start: bool = False
    count: int = 384
    """Ward: notes of each split."""
    seed: int = 7
    """Ward: seed of the notes."""
    given_splits: tuple[str, ...] = ()
    ratios: str = "0.8,0.1,0.1"
    leaks: str = "error"
    max_prompt_tokens: int | None = None

    @property
    def ward(self) -> bool:
        """Whether the notes are the synthetic ward's."""
        return not self.sources and not self.given_splits

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of this request, in order."""
        return tuple(name for name in STAGES if name != "sft" or not self.skip_warm_start)

    def record(self) -> dict[str, Any]:
        """Everything but the directory, as plain values."""
        plain = json.loads(json.dumps(asdict(self), default=str))
        del plain["out"]
        return dict(plain)


def split_items(items: Sequence[str]) -> tuple[list[Path], list[str], list[str]]:
    """Sources, ``train:`` overrides and ``sft:`` overrides among the command line's arguments.

    Raises ConfigError for an override without its stage.
    """
    sources: list[Path] = []
    overrides: dict[str, list[str]] = {"train": [], "sft": []}
    for item in items:
        if match := _OVERRIDE.fullmatch(item):
            overrides[match[1]].append(match[2])
        elif "=" in item and not Path(item).exists():
            raise ConfigError(f"{item}: name its stage, train:{item} or sft:{item}; there is no file of that name")
        else:
            sources.append(Path(item))
    return sources, overrides["train"], overrides["sft"]


def quoted(key: str, value: str | Path) -> str:
    """An override whose value survives Hydra's grammar, whatever is in it."""
    return literal(key, str(value))


@dataclass(frozen=True)
class Folders:
    """Where the stages of a pipeline write."""

    out: Path
    data: Path = field(init=False)
    """Prepared splits and their manifest."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", self.out / "prepare" / "data")

    def done(self, stage: str) -> Path:
        """The file that a stage writes last."""
        return self.out / stage / DONE

    @property
    def sft_run(self) -> Path:
        """Run directory of the warm start."""
        return self.out / "sft" / "run"

    @property
    def warm_model(self) -> Path:
        """The warm start's finished model."""
        return self.sft_run / "model"

    @property
    def train_run(self) -> Path:
        """Run directory of the training."""
        return self.out / "train" / "run"

    @property
    def trained_model(self) -> Path:
        """The chosen checkpoint as a model directory."""
        return self.out / "train" / "model"

    def results(self, which: str) -> Path:
        """An evaluation's results; ``which`` is ``start`` or ``trained``."""
        return self.out / "evaluate" / which


def sft_overrides(request: Request, data: Path, run: Path, model: str | None) -> list[str]:
    """Overrides of the warm start: the train split only.

    Args:
        request: The request.
        data: Folder of prepared splits.
        run: Run directory.
        model: The model to start from; None: the configuration's own.
    """
    if request.ward:
        # The generator's own demonstrations of the same notes: it knows harmless edits, the files do not.
        notes = [
            "medserl.notes.path=null",
            f"medserl.notes.count={request.count}",
            f"medserl.notes.seed={request.seed}",
        ]
    else:
        notes = [quoted("medserl.notes.path", data / "train.parquet")]
    own = [quoted("model.path", model)] if model else []
    return [*notes, *own, quoted("medserl.run_dir", run), *request.sft]


def train_overrides(request: Request, data: Path, run: Path, model: str | None, validates: bool) -> list[str]:
    """Overrides of the training: the train split trains, the validation split chooses the checkpoint.

    Args:
        request: The request.
        data: Folder of prepared splits.
        run: Run directory.
        model: The model to start from; None: the configuration's own.
        validates: Whether the configuration says itself how often to validate.
    """
    found = [quoted("medserl.notes.path", data / "train.parquet")]
    found.append(quoted("medserl.validation.path", data / "validation.parquet"))
    if request.ward:
        found.append("medserl.referee.name=oracle")
    if not validates:
        found.append(f"trainer.test_freq={TEST_FREQ}")
    if model:
        found.append(quoted("actor_rollout_ref.model.path", model))
    return [*found, quoted("medserl.run_dir", run), *request.train]


def evaluate_arguments(request: Request, data: Path, model: str, out: Path) -> list[str]:
    """The command line of one evaluation on the test split, with the training's engine and prompts."""
    options = ["--model", model, "--data", str(data / "test.parquet"), "--config", request.config, "--out", str(out)]
    return ["evaluate", *options, *request.train]


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings in which two requests differ, a phrase each."""
    keys = sorted(before.keys() | now.keys())
    return [f"{k}: {before.get(k)!r} there, {now.get(k)!r} now" for k in keys if before.get(k) != now.get(k)]
