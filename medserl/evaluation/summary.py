"""From predictions to everything that a results file says about them. Needs numpy for the intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from medserl.data.records import LabelledExample
from medserl.evaluation import bootstrap, official, textscores
from medserl.evaluation.calibration import calibration_metrics
from medserl.evaluation.groups import note_groups
from medserl.evaluation.metrics import (
    Answer,
    baseline_predictions,
    classification_metrics,
    error_type_metrics,
)
from medserl.evaluation.votes import Vote, mean_over_votes, parse_counts
from medserl.game.labels import Label
from medserl.game.metrics import confusion, mean
from medserl.game.parse import NO_SENTENCE

UNKNOWN_TYPE = "(none given)"


@dataclass(frozen=True, slots=True)
class Scored:
    """An example with the assessor's replies to it and the prediction that they add up to."""

    example: LabelledExample
    votes: tuple[Vote, ...]
    prediction: Vote


def summarise(
    scored: Sequence[Scored], output_format: str, seed: int, resamples: int = bootstrap.RESAMPLES
) -> dict[str, Any]:
    """``metrics`` and ``baselines`` of a results file; every value is JSON, NaN is None.

    ``seed`` is that of the bootstrap, which resamples whole groups of texts (`medserl.evaluation.groups`): the two
    versions of a pair, and near-duplicates, stay together.
    """
    examples = [item.example for item in scored]
    labels = [example.label for example in examples]
    answers = [item.prediction.answer for item in scored]
    sentences = _sentence_reason(examples, output_format)
    metrics: dict[str, Any] = {
        "flag": classification_metrics(labels, answers),
        "official": _official(examples, [item.prediction for item in scored], sentences),
        "by_error_type": error_type_metrics(labels, answers, [example.error_type for example in examples]),
        "calibration": _calibration(labels, scored),
        "samples": _samples(labels, scored),
        "corrections": _corrections(examples, scored, output_format),
        "parsing": parse_counts([vote for item in scored for vote in item.votes]),
        "failures": dict(Counter(vote.failure for item in scored for vote in item.votes if vote.failure)),
        "cut_replies": sum(vote.cut for item in scored for vote in item.votes),
        "mean_tokens": mean(float(vote.tokens) for item in scored for vote in item.votes),
    }
    groups = note_groups(examples)
    metrics["groups"] = len(set(groups))
    intervals = _intervals(scored, groups, sentences is None, seed, resamples)
    for kind, row in metrics["by_error_type"].items():
        row["recall_interval"] = intervals.pop(f"recall/{kind}")
    metrics["intervals"] = intervals
    baselines = {
        name: _baseline(examples, labels, given, sentences, output_format)
        for name, given in baseline_predictions(labels).items()
    }
    return {"metrics": jsonable(metrics), "baselines": jsonable(baselines)}


def jsonable(value: Any) -> Any:
    """``value`` with None for every number that JSON has not (NaN, infinities); tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(child) for child in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value


def _sentence_reason(examples: Sequence[LabelledExample], output_format: str) -> str | None:
    """Why there is no error sentence accuracy; None where there is."""
    if output_format == "flag":
        return "the format 'flag' asks for no sentence"
    unknown = sum(e.label is Label.INCORRECT and e.error_sentence_id == NO_SENTENCE for e in examples)
    return f"{unknown} texts with an error have no error sentence id" if unknown else None


def _official(
    examples: Sequence[LabelledExample], predictions: Sequence[Vote], sentence_reason: str | None
) -> dict[str, Any]:
    table = confusion((example.label, vote.answer) for example, vote in zip(examples, predictions, strict=True))
    figures: dict[str, Any] = {"error_flag_accuracy": table.accuracy, "error_sentence_accuracy": None}
    if sentence_reason is not None:
        return {**figures, "no_error_sentence_accuracy": sentence_reason}
    wanted = {example.note_id: example.error_sentence_id for example in examples}
    named = {
        example.note_id: vote.sentence_id
        for example, vote in zip(examples, predictions, strict=True)
        if vote.sentence_id is not None
    }
    figures["error_sentence_accuracy"] = official.sentence_accuracy(wanted, named)
    return figures


def _calibration(labels: Sequence[Label], scored: Sequence[Scored]) -> dict[str, object] | None:
    probabilities = [item.prediction.p_incorrect for item in scored]
    return calibration_metrics(labels, probabilities) if any(p is not None for p in probabilities) else None


def _samples(labels: Sequence[Label], scored: Sequence[Scored]) -> dict[str, Any] | None:
    count = min((len(item.votes) for item in scored), default=0)
    if count < 2:
        return None
    agreement = mean(
        sum(vote.answer is item.prediction.answer for vote in item.votes) / len(item.votes)
        for item in scored
        if item.prediction.answer is not None
    )
    one = mean_over_votes([item.votes for item in scored], lambda given: classification_metrics(labels, given))
    return {"n": count, "agreement_with_majority": agreement, "mean": one}


def _corrections(
    examples: Sequence[LabelledExample], scored: Sequence[Scored], output_format: str
) -> dict[str, Any] | None:
    if output_format == "flag":
        return None
    unknown = sum(e.label is Label.INCORRECT and e.corrected_sentence is None for e in examples)
    if unknown:
        return {"notes": [f"Corrections: not scored, {unknown} texts with an error have no corrected sentence"]}
    predictions = {
        item.example.note_id: item.prediction.correction for item in scored if item.prediction.answer is not None
    }
    cases = official.correction_cases({e.note_id: e.corrected_sentence for e in examples}, predictions)
    found: dict[str, Any] = {"rouge1": official.rouge_scores(cases), "bertscore": None, "bleurt": None, "notes": []}
    given, wanted = [pair[1] for pair in cases.pairs], [pair[2] for pair in cases.pairs]
    composites = [found["rouge1"]["composite"]]
    for name, measure in (("bertscore", textscores.bertscore), ("bleurt", textscores.bleurt)):
        scores = measure(given, wanted)
        if isinstance(scores, str):
            found["notes"].append(scores)
        else:
            found[name] = {"composite": cases.composite(scores), "pairs_mean": mean(scores)}
            composites.append(found[name]["composite"])
    # The script's AggregateC: the mean of the three, which is linear in them.
    found["aggregate"] = mean(composites) if len(composites) == 3 else None
    return found


def _baseline(
    examples: Sequence[LabelledExample],
    labels: Sequence[Label],
    given: Sequence[Answer],
    sentence_reason: str | None,
    output_format: str,
) -> dict[str, Any]:
    """A constant answer; with INCORRECT it names no sentence and corrects nothing."""
    votes = [Vote(answer, NO_SENTENCE if answer is Label.CORRECT else None) for answer in given]
    figures: dict[str, Any] = {
        "flag": classification_metrics(labels, given),
        "official": _official(examples, votes, sentence_reason),
        "by_error_type": error_type_metrics(labels, given, [example.error_type for example in examples]),
    }
    if output_format == "full":
        references = {e.note_id: e.corrected_sentence for e in examples}
        said = {e.note_id: None for e, vote in zip(examples, votes, strict=True) if vote.answer is Label.CORRECT}
        figures["rouge1_composite"] = official.rouge_scores(official.correction_cases(references, said))["composite"]
    return figures


def _intervals(
    scored: Sequence[Scored], groups: Sequence[int], with_sentences: bool, seed: int, resamples: int
) -> dict[str, tuple[float, float]]:
    """95 % intervals by name; ``recall/TYPE`` per error type."""
    examples = [item.example for item in scored]
    rows = bootstrap.verdict_rows([e.label for e in examples], [item.prediction.answer for item in scored])
    statistics = {name: bootstrap.verdict(name) for name in bootstrap.VERDICTS}
    columns = [rows]

    def add(name: str, hits: list[bool], total: list[bool]) -> None:
        place = sum(part.shape[1] for part in columns)
        columns.append(np.array([hits, total], dtype=float).T)
        statistics[name] = bootstrap.share(place, place + 1)

    if with_sentences:
        hits = [item.prediction.sentence_id == item.example.error_sentence_id for item in scored]
        add("error_sentence_accuracy", hits, [True] * len(hits))
    found = [item.prediction.answer is Label.INCORRECT for item in scored]
    kinds = {e.error_type or UNKNOWN_TYPE for e in examples if e.label is Label.INCORRECT}
    for kind in sorted(kinds):
        own = [e.label is Label.INCORRECT and (e.error_type or UNKNOWN_TYPE) == kind for e in examples]
        add(f"recall/{kind}", [a and b for a, b in zip(own, found, strict=True)], own)
    sums = bootstrap.resampled_sums(np.hstack(columns), groups, seed, resamples)
    return {name: bootstrap.interval(statistic(sums)) for name, statistic in statistics.items()}
