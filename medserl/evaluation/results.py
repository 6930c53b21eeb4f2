"""The output directory of an evaluation: written beside its place, then renamed; and read back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl.data.records import base_id
from medserl.errors import DataError
from medserl.evaluation.data import text_sha256
from medserl.evaluation.groups import note_groups
from medserl.evaluation.markdown import result_plots, results_markdown
from medserl.evaluation.summary import Scored
from medserl.evaluation.votes import Vote
from medserl.files import PRIVATE_FOLDER, check_new_folder, create_private, regular, whole_folder
from medserl.game.labels import Label

RESULTS, REPORT, PREDICTIONS, PLOTS = "results.json", "results.md", "predictions.jsonl", "plots"
FORMAT_VERSION = 1


def check_out(out: Path) -> None:
    """Raise ConfigError where ``out`` cannot become a new results directory."""
    check_new_folder(out, "--out")


def write_results(out: Path, results: Mapping[str, Any], scored: Sequence[Scored], keep_text: bool) -> None:
    """Make ``out`` (mode 0700) with results.json, results.md, plots and predictions.jsonl (files 0600)."""
    check_out(out)
    with whole_folder(out) as staging:
        (staging / PLOTS).mkdir(mode=PRIVATE_FOLDER)
        _write(staging / RESULTS, json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        _write(staging / REPORT, results_markdown(results))
        for name, svg in result_plots(results).items():
            _write(staging / PLOTS / name, svg)
        groups = note_groups([item.example for item in scored])
        records = [prediction_record(item, group, keep_text) for item, group in zip(scored, groups, strict=True)]
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        _write(staging / PREDICTIONS, "".join(line + "\n" for line in lines))


def _write(path: Path, text: str) -> None:
    with create_private(path) as file:
        file.write(text)


def prediction_record(item: Scored, group: int, keep_text: bool) -> dict[str, Any]:
    """A line of predictions.jsonl; texts, replies and corrections only with ``keep_text``."""
    example, prediction = item.example, item.prediction
    record: dict[str, Any] = {
        "note_id": example.note_id,
        "group": group,
        "text_sha256": text_sha256(example),
        "label": example.label.value,
        "error_type": example.error_type,
        "error_sentence_id": example.error_sentence_id,
        "answer": prediction.answer and prediction.answer.value,
        "predicted_sentence_id": prediction.sentence_id,
        "p_incorrect": prediction.p_incorrect,
        "votes": [_vote_record(vote, keep_text) for vote in item.votes],
    }
    if keep_text:
        record |= {
            "text": example.text,
            "sentences": list(example.sentences),
            "corrected_sentence": example.corrected_sentence,
            "predicted_correction": prediction.correction,
        }
    return record


def _vote_record(vote: Vote, keep_text: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "answer": vote.answer and vote.answer.value,
        "sentence_id": vote.sentence_id,
        "p_incorrect": vote.p_incorrect,
        "failure": vote.failure,
        "tokens": vote.tokens,
        "cut": vote.cut,
    }
    return {**record, "correction": vote.correction, "reply": vote.reply} if keep_text else record


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """What a comparison needs of a line of predictions.jsonl."""

    note_id: str
    text_sha256: str
    label: Label
    answer: Label | None
    group: int | str
    """What `medserl.evaluation.groups` says of the text; the note's id where it was not recorded."""


@dataclass(frozen=True, slots=True)
class StoredResults:
    """A results directory that was read back."""

    path: Path
    results: dict[str, Any]
    predictions: tuple[StoredPrediction, ...]
    grouped: bool
    """Whether the predictions say which texts belong together; before that was recorded, they did not."""


def read_results(path: Path) -> StoredResults:
    """A results directory, by its own path or that of its results.json.

    Raises DataError, naming file and line, for anything that `write_results` did not write.
    """
    folder = path.parent if path.is_file() else path
    file = folder / RESULTS if path.is_dir() or not path.exists() else path
    results = _read_json(file)
    _check_results(file, results)
    stored = folder / PREDICTIONS
    predictions = []
    for number, line in enumerate(_read(stored).split("\n"), start=1):
        if line:
            predictions.append(_stored_prediction(stored, number, line))
    if len(predictions) != results["data"]["texts"]:
        raise DataError(f"{stored}: has {len(predictions)} lines, but {file.name} says {results['data']['texts']}")
    if twice := next((name for name, count in Counter(p.note_id for p in predictions).items() if count > 1), None):
        raise DataError(f"{stored}: has {twice!r} more than once; evaluate again")
    grouped = all(isinstance(prediction.group, int) for prediction in predictions)
    return StoredResults(folder, results, tuple(predictions), grouped)


def _check_results(file: Path, results: Any) -> None:
    """Raise DataError where results.json does not hold what a comparison reads."""
    if not isinstance(results, dict) or results.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{file}: is not a results file of `medserl evaluate` (format version {FORMAT_VERSION})")
    for section, key, kind in (("data", "texts", int), ("model", "name", str), ("settings", None, dict)):
        found = results.get(section)
        value = found.get(key) if key is not None and isinstance(found, dict) else found
        if not isinstance(value, kind):
            raise DataError(f"{file}: has no {f'{section}.{key}' if key else section}; evaluate again")


def _stored_prediction(path: Path, number: int, line: str) -> StoredPrediction:
    try:
        row = json.loads(line)
        answer = row["answer"]
        return StoredPrediction(
            note_id=_typed(row, "note_id", str),
            text_sha256=_typed(row, "text_sha256", str),
            label=Label(row["label"]),
            answer=None if answer is None else Label(answer),
            group=_typed(row, "group", int | str) if "group" in row else base_id(row["note_id"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}, line {number}: is not a prediction ({why}); evaluate again") from None


def _typed(row: dict[str, Any], key: str, kind: Any) -> Any:
    if not isinstance(value := row[key], kind):
        raise TypeError(f"{key} is a {type(value).__name__}")
    return value


def _read(path: Path) -> str:
    try:
        return regular(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"{path}: cannot be read ({reason}); give a directory that `medserl evaluate` wrote") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); evaluate again") from None
