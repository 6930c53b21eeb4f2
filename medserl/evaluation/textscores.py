"""BERTScore and BLEURT of corrections, where their packages and weights are on this machine.

Neither is a dependency of this project and nothing is downloaded: what is missing is said in one line. Settings
are those of MEDEC's official script (`medserl.evaluation.official`).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from medserl.evaluation.official import clip

BERTSCORE_MODEL = "microsoft/deberta-xlarge-mnli"
BLEURT_VARIABLE = "BLEURT_CHECKPOINT"


def bertscore(candidates: Sequence[str], references: Sequence[str]) -> list[float] | str:
    """Rescaled F1 per pair, clipped to [0, 1]; or the sentence that says why there is none."""
    if importlib.util.find_spec("bert_score") is None:
        return "BERTScore: not computed, the package bert_score is not installed"
    if not candidates:
        return []
    from bert_score import score

    try:
        found = score(
            list(candidates), list(references), model_type=BERTSCORE_MODEL, lang="en", rescale_with_baseline=True
        )
    except OSError as error:
        return f"BERTScore: not computed, the weights of {BERTSCORE_MODEL} are not here ({_first_line(error)})"
    return [clip(float(value)) for value in found[2]]


def bleurt(candidates: Sequence[str], references: Sequence[str]) -> list[float] | str:
    """BLEURT-20 per pair, clipped to [0, 1]; or the sentence that says why there is none."""
    if importlib.util.find_spec("bleurt") is None:
        return "BLEURT: not computed, the package bleurt is not installed"
    checkpoint = Path(os.environ.get(BLEURT_VARIABLE, "BLEURT-20"))
    if not checkpoint.is_dir():
        return f"BLEURT: not computed, {checkpoint} is not a folder; set {BLEURT_VARIABLE} to that of BLEURT-20"
    if not candidates:
        return []
    from bleurt.score import BleurtScorer

    values = BleurtScorer(str(checkpoint)).score(references=list(references), candidates=list(candidates), batch_size=1)
    return [clip(float(value)) for value in values]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
