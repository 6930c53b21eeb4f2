"""Put a finished warm start into the package, with its recipe: ``python -m medserl.ward.ship RUN_DIR``."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from medserl.files import sha256_of, whole_folder
from medserl.game.labels import Label, Mode
from medserl.game.metrics import answer_metrics, confusion, mean
from medserl.game.parse import ParseFailure, parse_edit
from medserl.game.prompts import PromptSet, load_prompt_set
from medserl.game.records import LabelledNote, Note, labelled_from_notes
from medserl.game.vcf import apply_vcf
from medserl.provenance import package_versions
from medserl.ward import MODEL_DIR
from medserl.ward.demonstrations import PROMPT_SET, prompts_sha256
from medserl.ward.generator import ward_notes
from medserl.ward.player import Player, ask_assessor, verdict_probabilities
from medserl.ward.table import load_table

RECIPE = "recipe.json"
SECTIONS = ("medserl", "model", "optim")
EVAL_SEED = 1


def recipe(run_dir: Path, eval_count: int) -> dict[str, Any]:
    """What made the model in ``run_dir/model``, hashes of what it depends on, and what it measures."""
    model = run_dir / "model"
    config = OmegaConf.load(run_dir / "config.yaml")
    chosen: dict[str, Any] = {
        name: OmegaConf.to_container(config[name]) for name in SECTIONS if OmegaConf.select(config, name) is not None
    }
    chosen["medserl"].pop("run_dir")
    engine = {key: config.engine[f"{key}_model_parallel_size"] for key in ("tensor", "pipeline")}
    player = Player.load(model)
    splits = ("validation", "test_heldout")
    notes = {split: ward_notes(split, eval_count, EVAL_SEED) for split in splits}
    return {
        "command": "medserl sft",
        "settings": {"game": chosen["medserl"], "model": chosen["model"]["path"], "optim": chosen["optim"]},
        "parallel": engine,
        "table_sha256": load_table().sha256,
        "prompts_sha256": prompts_sha256(),
        "weights_sha256": sha256_of(model / "model.safetensors"),
        "tokenizer_sha256": sha256_of(model / "tokenizer.json"),
        "parameters": player.model.num_parameters(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "measured": {
            "notes": eval_count,
            "seed": EVAL_SEED,
            **{split: evaluate(player, notes[split], EVAL_SEED) for split in splits},
            "tokens": token_lengths(player, notes["validation"]),
        },
    }


def injector_figures(player: Player, prompts: PromptSet, notes: Sequence[Note], temperature: float) -> dict[str, Any]:
    """Per mode: share of first attempts that the filter accepts, and the reasons for rejecting the others."""
    figures: dict[str, Any] = {}
    accepted = 0
    for mode in Mode:
        replies = player.answer([prompts.injector(note.text, mode) for note in notes], temperature)
        reasons: Counter[str] = Counter()
        for note, reply in zip(notes, replies, strict=True):
            edit = parse_edit(reply, note.text)
            if isinstance(edit, ParseFailure):
                reasons["unparseable"] += 1
            else:
                reasons[str(apply_vcf(note.text, edit.modified).reason or "accepted")] += 1
        accepted += reasons["accepted"]
        figures[mode.value] = {name: count / len(notes) for name, count in reasons.most_common()}
    figures["vcf_acceptance_rate"] = accepted / (len(Mode) * len(notes))
    return figures


def evaluate(player: Player, notes: Sequence[Note], seed: int) -> dict[str, Any]:
    """All figures of the two roles on ``notes``: greedy, and sampled at temperature 1.0."""
    prompts = load_prompt_set(PROMPT_SET)
    labelled = labelled_from_notes(notes)
    figures: dict[str, Any] = {}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        torch.manual_seed(seed)
        figures[name] = {
            "injector": injector_figures(player, prompts, notes, temperature),
            "assessor": assessor_figures(player, prompts, labelled, temperature),
        }
    figures["mean_min_p"] = mean(min(p, 1 - p) for p in verdict_probabilities(player, prompts, labelled))
    return figures


def assessor_figures(
    player: Player, prompts: PromptSet, labelled: Sequence[LabelledNote], temperature: float
) -> dict[str, Any]:
    """Share of answers that parse, recall of each class and of each error type, and balanced accuracy."""
    answers = ask_assessor(player, prompts, labelled, temperature)
    figures = answer_metrics(answers)
    kinds = sorted({note.error_type for note in labelled if note.error_type})
    of_kind = {
        kind: [pair for note, pair in zip(labelled, answers, strict=True) if note.error_type == kind] for kind in kinds
    }
    return {
        "parse_rate": 1 - figures["parse_failure_rate"],
        "recall": {label.value: figures[f"recall_{label.value.lower()}"] for label in Label},
        "balanced_accuracy": figures["balanced_accuracy"],
        "recall_by_error_type": {kind: confusion(own).recall_incorrect for kind, own in of_kind.items()},
    }


def token_lengths(player: Player, notes: Sequence[Note]) -> dict[str, dict[str, int]]:
    """Median, 95th percentile and maximum of the prompt tokens of each role."""
    prompts = load_prompt_set(PROMPT_SET)
    chats = {
        "injector_prompt": [prompts.injector(note.text, Mode.BENIGN) for note in notes],
        "assessor_prompt": [prompts.assessor(note.error_text or note.text) for note in notes],
    }
    found = {}
    for name, messages in chats.items():
        sizes = sorted(len(player.prompt_ids(chat)) for chat in messages)
        found[name] = {"median": sizes[len(sizes) // 2], "p95": sizes[len(sizes) * 95 // 100], "max": sizes[-1]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, help="run directory of a finished `medserl sft`")
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="directory to replace (default: the package's)")
    parser.add_argument("--eval-notes", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    written = recipe(arguments.run_dir, arguments.eval_notes)
    out: Path = arguments.out.resolve()
    with whole_folder(out, overwrite=True) as made:
        leave = shutil.ignore_patterns("medserl_export.json")
        shutil.copytree(arguments.run_dir / "model", made, ignore=leave, dirs_exist_ok=True)
        (made / RECIPE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
        for file in made.iterdir():
            file.chmod(0o644)
        made.chmod(0o755)
    print(json.dumps(written["measured"], indent=2))


if __name__ == "__main__":
    main()
