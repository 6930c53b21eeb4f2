"""Metrics of verdicts against independent re-computations, and the lightness of the pure modules."""

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.evaluation.metrics import baseline_predictions, classification_metrics, error_type_metrics
from medserl.game.labels import Label

C, W = Label.CORRECT, Label.INCORRECT
PAIRS = st.lists(st.tuples(st.sampled_from([C, W]), st.sampled_from([C, W, None])), min_size=1, max_size=40)


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, abs_tol=1e-12)


@given(PAIRS)
def test_every_value_is_what_its_definition_says(pairs: list[tuple[Label, Label | None]]) -> None:
    labels, answers = [a for a, _ in pairs], [b for _, b in pairs]
    found = classification_metrics(labels, answers)
    nan = float("nan")

    def share(part: int, whole: int) -> float:
        return part / whole if whole else nan

    recalls = {x: share(sum(a is x and b is x for a, b in pairs), sum(a is x for a, _ in pairs)) for x in (C, W)}
    present = [r for r in recalls.values() if r == r]
    assert found["n"] == len(pairs)
    assert same(found["accuracy"], sum(a is b for a, b in pairs) / len(pairs))
    assert same(found["recall_correct"], recalls[C]) and same(found["recall_incorrect"], recalls[W])
    assert same(found["balanced_accuracy"], sum(present) / len(present))
    for x, name in ((C, "correct"), (W, "incorrect")):
        assert same(found[f"precision_{name}"], share(sum(a is b is x for a, b in pairs), answers.count(x)))
    assert found["parse_failures"] == answers.count(None)
    assert same(found["parse_failure_rate"], answers.count(None) / len(pairs))
    # MCC as Pearson's correlation of two 0/1 variables, a missing answer standing for the wrong one.
    truth = [float(a is W) for a in labels]
    said = [float((b or a.other) is W) for a, b in pairs]
    mean_t, mean_s = sum(truth) / len(pairs), sum(said) / len(pairs)
    spread = math.sqrt(sum((t - mean_t) ** 2 for t in truth) * sum((s - mean_s) ** 2 for s in said))
    together = sum((t - mean_t) * (s - mean_s) for t, s in zip(truth, said, strict=True))
    assert math.isclose(found["mcc"], together / spread if spread > 1e-12 else 0.0, abs_tol=1e-9)


def test_a_parse_failure_is_wrong_but_no_prediction() -> None:
    found = classification_metrics([C, W, W, C], [None, W, None, C])
    assert found["accuracy"] == 0.5 and found["parse_failures"] == 2
    assert found["precision_incorrect"] == 1.0  # the unparsed clean text is no false alarm
    assert found["recall_correct"] == 0.5 and found["recall_incorrect"] == 0.5


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError):
        classification_metrics([C], [])


def test_error_types_count_false_alarms_of_all_clean_texts() -> None:
    labels, answers = [W, W, W, C, C], [W, C, W, W, None]
    found = error_type_metrics(labels, answers, ["dose", "dose", None, None, None])
    assert found == {
        "(none given)": {"n": 1.0, "recall": 1.0, "precision": 0.5},
        "dose": {"n": 2.0, "recall": 0.5, "precision": 0.5},
    }


def test_constant_answers_are_the_baselines() -> None:
    labels = [C, C, C, W]
    scores = {name: classification_metrics(labels, given) for name, given in baseline_predictions(labels).items()}
    assert scores["always_correct"]["accuracy"] == 0.75 and scores["always_incorrect"]["accuracy"] == 0.25
    assert all(score["balanced_accuracy"] == 0.5 and score["mcc"] == 0 for score in scores.values())


def test_pure_modules_import_nothing_heavy() -> None:
    script = (
        "import sys, json; before = set(sys.modules)\n"
        "from medserl.evaluation import metrics, official, calibration, votes, paired, markdown, plots\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "vllm", "numpy", "transformers", "pyarrow", "verl"} & set(json.loads(done.stdout))
