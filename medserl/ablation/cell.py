"""One run of a bench, in a process of its own: train, then judge the last round's weights on test patients.

The last round, not the best by validation: every arm has had the same number of them, and nothing was chosen.

``python -m medserl.ablation.cell FOLDER NOTES CONFIG train|sft FINGERPRINT [OVERRIDE…]``; writes ``FOLDER/result.json``
last, with the fingerprint (JSON) of what it was started with.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from medserl.ablation.fingerprint import FINGERPRINT
from medserl.ablation.runner import COMMON_TEST_SPLITS, RESULT
from medserl.files import write_atomically
from medserl.run import checkpoint
from medserl.run.run_log import METRICS_FILE, read_metrics

SEED = 5
LAST_ROUNDS = 10
LABELLED, UNLABELLED = "labelled_conditions", "test_unlabelled"
ACCEPTANCE, VOID, STEPS = "vcf_acceptance_rate", "referee/void_rate", "medserl/optimizer_steps"
CURVES = (
    "val/greedy/balanced_accuracy",
    "val/sampled/balanced_accuracy",
    ACCEPTANCE,
    "label_inversion_rate",
    "label_inversion_rate/second_referee",
    "injector/win_rate",
    "edit/novel_rate",
    "edit/table_coverage",
    "assessor/balanced_accuracy",
)


def main(arguments: list[str]) -> int:
    folder, notes, config, kind = Path(arguments[0]), int(arguments[1]), arguments[2], arguments[3]
    overrides = [*arguments[5:], f"medserl.run_dir={folder}"]
    began = time.monotonic()
    if kind == "sft":
        from medserl.sft.train import SftRun

        run = SftRun(config, overrides)
        model = run.run()
        result: dict[str, Any] = {"whole": {"optimizer_steps": run.settings.steps}}
    else:
        model, result = _train(config, overrides, folder)
    result[FINGERPRINT] = json.loads(arguments[4])
    result["minutes"] = (time.monotonic() - began) / 60
    result |= judge_splits(model, notes, result.get(LABELLED))
    write_atomically(folder / RESULT, json.dumps(result) + "\n")
    return 0


def judge_splits(model: Path, notes: int, labelled_conditions: int | None) -> dict[str, Any]:
    """Both test splits, and where gold labels were known for some conditions only, the others' patients alone."""
    found: dict[str, Any] = {split: judge(model, split, notes) for split in COMMON_TEST_SPLITS}
    if labelled_conditions is not None:
        from medserl.ward.generator import some_conditions
        from medserl.ward.table import load_table

        table = load_table()
        unknown = frozenset(table.conditions) - some_conditions(table, labelled_conditions)
        found[UNLABELLED] = judge(model, "test", notes, unknown)
    return found


def _train(config: str, overrides: list[str], folder: Path) -> tuple[Path, dict[str, Any]]:
    from medserl.training.api import MedSeRLTrainer
    from medserl.training.export import export_checkpoint

    trainer = MedSeRLTrainer(config, overrides, verbose=False)
    try:
        trainer.fit()
        if trainer.stopped_by:
            raise SystemExit(128 + trainer.stopped_by)
    finally:
        trainer.close()
    last, _ = checkpoint.latest_usable(folder / "checkpoints")
    assert last is not None, "training saves its last round"
    model = folder / "model"
    if not model.exists():
        export_checkpoint(last, model)
    found = summary(read_metrics(folder / METRICS_FILE))
    return model, found | {LABELLED: trainer.settings.notes.labelled_conditions}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Curves of a run, means over its last rounds, and what its whole length shows."""
    curves = {name: [(row["round"], row[name]) for row in rows if name in row] for name in CURVES}
    played = [row for row in rows if not row.get("validation")]
    last = played[-LAST_ROUNDS:]
    means = {}
    for name in CURVES:
        values = [row[name] for row in last if name in row]
        means[name] = sum(values) / len(values) if values else None
    undecided = [row[VOID] for row in played if row.get(VOID) is not None]
    accepted = [row[ACCEPTANCE] for row in played if row.get(ACCEPTANCE) is not None]
    whole = {
        "undecided": sum(undecided) / len(undecided) if undecided else None,
        "least_acceptance": min(accepted, default=None),
        "optimizer_steps": sum(row.get(STEPS, 0) for row in played),
    }
    return {"rounds": rows[-1]["round"] if rows else 0, "curves": curves, "last": means, "whole": whole}


def judge(model: Path, split: str, count: int, conditions: Collection[str] | None = None) -> dict[str, float]:
    """The assessor on patients that nothing was chosen by: balanced accuracy, greedy, sampled, and expected of sampling
    between the two verdicts; and saturation.

    Args:
        model: Model directory.
        split: Split of the ward.
        count: Patients, each judged with and without an error.
        conditions: Judge only those of them who have one of these.
    """
    import torch

    from medserl.game import Label, labelled_from_notes, load_prompt_set
    from medserl.game.metrics import answer_metrics, mean, ranking_auc
    from medserl.ward.demonstrations import PROMPT_SET
    from medserl.ward.generator import ward_notes
    from medserl.ward.player import Player, ask_assessor, verdict_probabilities

    torch.set_num_threads(1)
    player, prompts = Player.load(model), load_prompt_set(PROMPT_SET)
    labelled = labelled_from_notes(ward_notes(split, count, SEED, conditions=conditions))
    found: dict[str, float] = {}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        torch.manual_seed(SEED)
        figures = answer_metrics(ask_assessor(player, prompts, labelled, temperature))
        found[name] = figures["balanced_accuracy"]
        found[f"{name}_recall_correct"] = figures["recall_correct"]
        found[f"{name}_recall_incorrect"] = figures["recall_incorrect"]
    probabilities = verdict_probabilities(player, prompts, labelled)
    found["mean_min_p"] = mean(min(p, 1 - p) for p in probabilities)
    right = [(note.label, p if note.label is Label.INCORRECT else 1 - p)
             for note, p in zip(labelled, probabilities, strict=True)]  # fmt: skip
    found["sampled_expected"] = mean(mean(p for label, p in right if label is each) for each in Label)
    found["auc"] = ranking_auc((note.label, p) for note, p in zip(labelled, probabilities, strict=True))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
