"""Metrics of verdicts against independent re-computations, and the lightness of the pure modules."""

import json
import math
import subprocess
import sys
import warnings

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


@given(PAIRS)
def test_the_figures_are_those_of_scikit_learn(pairs: list[tuple[Label, Label | None]]) -> None:
    from sklearn import metrics as theirs

    labels, answers = [a for a, _ in pairs], [b for _, b in pairs]
    found = classification_metrics(labels, answers)
    truth, said = [a.value for a in labels], [b.value if b else "silent" for b in answers]
    assert same(found["accuracy"], theirs.accuracy_score(truth, said))
    names = sorted(set(truth))
    recalls = theirs.recall_score(truth, said, labels=names, average=None, zero_division=0)
    assert same(found["balanced_accuracy"], float(recalls.mean()))
    for x in (C, W):
        name = x.value.lower()
        if x.value in truth:
            assert same(found[f"recall_{name}"], theirs.recall_score(truth, said, labels=[x.value], average="macro"))
        if x in answers:
            wanted = theirs.precision_score(truth, said, labels=[x.value], average="macro")
            assert same(found[f"precision_{name}"], wanted)
    given = [(t, s) for t, s in zip(truth, said, strict=True) if s != "silent"]
    if not given:
        assert found["mcc"] == 0.0 and math.isnan(found["accuracy_parsed"])
        return
    pair = [t for t, _ in given], [s for _, s in given]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that only one class is there
        assert math.isclose(found["mcc"], theirs.matthews_corrcoef(*pair), abs_tol=1e-9)
        assert same(found["accuracy_parsed"], theirs.accuracy_score(*pair))
        assert same(found["balanced_accuracy_parsed"], theirs.balanced_accuracy_score(*pair))


@given(st.lists(st.sampled_from([C, W]), min_size=1, max_size=20))
def test_silence_is_no_correlation(labels: list[Label]) -> None:
    found = classification_metrics(labels, [None] * len(labels))
    assert found["mcc"] == 0.0 and found["parse_failure_rate"] == 1.0
    assert math.isnan(found["balanced_accuracy_parsed"]) and math.isnan(found["precision_incorrect"])


@given(PAIRS, st.integers(0, 20))
def test_silence_moves_no_figure_over_the_parsed(pairs: list[tuple[Label, Label | None]], more: int) -> None:
    quiet = [*pairs, *[(C, None), (W, None)] * more]
    one, other = (classification_metrics([a for a, _ in p], [b for _, b in p]) for p in (pairs, quiet))
    for name in ("mcc", "accuracy_parsed", "balanced_accuracy_parsed", "precision_correct", "precision_incorrect"):
        assert same(one[name], other[name])
    assert other["accuracy"] <= one["accuracy"]


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
    heavy = {"torch", "vllm", "numpy", "transformers", "pyarrow", "verl", "scipy", "sklearn", "matplotlib"}
    assert not heavy & set(json.loads(done.stdout))
