"""The numbers of MEDEC's official script, exactly.

Source: the evaluation script of MEDIQA-CORR 2024 (github.com/abachaa/MEDIQA-CORR-2024, also used by MEDEC,
arXiv 2412.19260): ``compute_accuracy``, ``get_nlg_eval_data``, ``NLGMetrics``. Predictions and references are
keyed by text id; a missing prediction counts as wrong. ROUGE is the package ``rouge`` (1.0.1) there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from medserl.game.metrics import mean, ratio

_EPSILON = 1e-8
NA = "NA"


def sentence_accuracy(references: Mapping[str, int], predictions: Mapping[str, int]) -> float:
    """Share of the references (error sentence ids, -1 for a text without an error) whose prediction is equal.

    Over ALL texts, a clean one counting as right at -1 only. The script's error flag accuracy is
    `medserl.game.metrics.Confusion.accuracy`.
    """
    return mean(float(predictions.get(key) == value) for key, value in references.items())


def rouge1(candidate: str, reference: str) -> float:
    """ROUGE-1 F of the package ``rouge``: sets of words, full stops cut out, case kept.

    2PR / (P + R + 1e-8). Upstream fails on a text of nothing but full stops; it scores 0 here.
    """
    words, wanted = _words(candidate), _words(reference)
    if not words or not wanted:
        return 0.0
    overlap = len(words & wanted)
    precision, recall = overlap / len(words), overlap / len(wanted)
    return 2.0 * ((precision * recall) / (precision + recall + _EPSILON))


def _words(text: str) -> set[str]:
    """Upstream's words; a stretch of white space between two full stops gives the empty word, as there."""
    return {word for part in text.split(".") if part for word in " ".join(part.split()).split(" ")}


@dataclass(frozen=True, slots=True)
class CorrectionCases:
    """Which texts the correction scores are computed on.

    ``total`` texts; in ``both_na`` of them neither side has a correction (scored 1); where both have one the
    pair (id, candidate, reference) is in ``pairs``; every other text scores 0.
    """

    total: int
    both_na: int
    pairs: tuple[tuple[str, str, str], ...]

    def composite(self, scores: list[float]) -> float:
        """``(Σ scores + both_na) / total`` (R1FC, BERTC, BLEURTC of the script); one score per pair."""
        assert len(scores) == len(self.pairs)
        return ratio(sum(scores) + self.both_na, self.total)


def correction_cases(references: Mapping[str, str | None], predictions: Mapping[str, str | None]) -> CorrectionCases:
    """``get_nlg_eval_data``: None (or "NA") is no correction; an id may be missing from ``predictions``.

    Quotation marks around a prediction are cut off first, as the script's parser does.
    """
    both, pairs = 0, []
    for key, wanted in references.items():
        if key not in predictions:
            continue
        given = _unquoted(predictions[key])
        if _is_na(wanted) and _is_na(given):
            both += 1
        elif wanted is not None and given is not None and not _is_na(wanted) and not _is_na(given):
            pairs.append((key, given, wanted))
    return CorrectionCases(len(references), both, tuple(pairs))


def _unquoted(text: str | None) -> str | None:
    """A candidate without the quotation marks around it; one character is left."""
    while text and text.startswith('"') and len(text) > 1:
        text = text[1:]
    while text and text.endswith('"') and len(text) > 1:
        text = text[:-1]
    return text


def _is_na(text: str | None) -> bool:
    return text is None or text == NA


def clip(score: float) -> float:
    """To [0, 1], as the script does with BERTScore and BLEURT."""
    return max(0.0, min(1.0, score))


def rouge_scores(cases: CorrectionCases) -> dict[str, float]:
    """``composite`` (R1FC) over all texts and ``pairs_mean`` over those where both sides have a correction."""
    scores = [rouge1(given, wanted) for _, given, wanted in cases.pairs]
    return {"composite": cases.composite(scores), "pairs_mean": mean(scores), "pairs": float(len(scores))}
