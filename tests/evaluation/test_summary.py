"""What a results file says about hand-made predictions."""

import importlib.util
from dataclasses import replace
from typing import Any

import pytest

from medserl.evaluation import official
from medserl.evaluation.markdown import result_plots, results_markdown
from medserl.evaluation.summary import summarise
from medserl.game.labels import Label
from tests.evaluation.made import FLAG, SECRET, example, examples, full_reply, results_of, scored

FIXED = "The left knee is swollen."


def full_items() -> list:
    """Four notes: found and corrected; found in the wrong sentence; missed; unparsable. All clean ones right
    but the last, which is accused."""
    wrong = [full_reply("INCORRECT", 1, FIXED), full_reply("INCORRECT", 0, "He is well."), None, "no idea"]
    clean = full_reply("CORRECT", -1, "NA")
    replies = []
    for number in range(4):
        replies += [wrong[number] or clean, clean if number < 3 else full_reply("INCORRECT", 0, "x")]
    return [scored(e, r, output_format="full") for e, r in zip(examples(4), replies, strict=True)]


def test_all_three_subtasks() -> None:
    items = full_items()
    found = summarise(items, "full", seed=0, resamples=100)
    metrics = found["metrics"]
    assert metrics["official"] == {"error_flag_accuracy": 5 / 8, "error_sentence_accuracy": 4 / 8}
    assert metrics["flag"]["accuracy"] == 5 / 8 and metrics["flag"]["parse_failures"] == 1
    pair = official.rouge1("He is well.", FIXED)
    assert metrics["corrections"]["rouge1"]["composite"] == pytest.approx((3 + 1 + pair) / 8, abs=1e-6)
    assert metrics["by_error_type"]["dose"]["recall"] == 0.5
    low, high = metrics["intervals"]["error_sentence_accuracy"]
    assert 0 <= low <= 0.5 <= high <= 1
    assert list(metrics["failures"].values()) == [1]


def test_baselines_of_the_three_subtasks() -> None:
    found = summarise(full_items(), "full", seed=0, resamples=10)["baselines"]
    assert found["always_correct"]["official"] == {"error_flag_accuracy": 0.5, "error_sentence_accuracy": 0.5}
    assert found["always_incorrect"]["official"] == {"error_flag_accuracy": 0.5, "error_sentence_accuracy": 0.0}
    assert found["always_incorrect"]["by_error_type"]["dose"] == {"n": 2.0, "recall": 1.0, "precision": 2 / 6}
    assert found["always_correct"]["by_error_type"]["dose"] == {"n": 2.0, "recall": 0.0, "precision": None}
    assert (found["always_correct"]["rouge1_composite"], found["always_incorrect"]["rouge1_composite"]) == (0.5, 0.0)


def test_missing_scores_are_said_to_be_missing() -> None:
    corrections = summarise(full_items(), "full", seed=0, resamples=10)["metrics"]["corrections"]
    for name, package in (("BERTScore", "bert_score"), ("BLEURT", "bleurt")):
        if importlib.util.find_spec(package) is None:
            assert f"{name}: not computed, the package {package} is not installed" in corrections["notes"]
            assert corrections[name.lower()] is None and corrections["aggregate"] is None


def test_flag_format_has_no_sentence_accuracy() -> None:
    items = [scored(e, FLAG.format(e.label.value)) for e in examples(3)]
    found = results_of(items)
    assert found["metrics"]["official"]["error_flag_accuracy"] == 1.0
    assert found["metrics"]["official"]["error_sentence_accuracy"] is None
    assert found["metrics"]["corrections"] is None and found["metrics"]["calibration"] is None
    report = results_markdown(found)
    assert "| error sentence accuracy | n/a | n/a | n/a | n/a |" in report
    assert "the format 'flag' asks for no sentence" in report and "always INCORRECT" in report
    assert "one row dropped: blank text" in report
    assert "| dose | 2 | 1.000 | 1.000 to 1.000 | 1.000 | 0.000 / n/a | 1.000 / 0.400 |" in report


def test_unknown_sentence_ids_are_no_minus_one() -> None:
    items = full_items()
    blind = replace(items[0].example, error_sentence_id=-1, corrected_sentence=None)
    found = summarise([replace(items[0], example=blind), *items[1:]], "full", seed=0, resamples=10)
    assert found["metrics"]["official"]["error_sentence_accuracy"] is None
    assert "1 texts with an error have no error sentence id" in str(found["metrics"]["official"])
    assert "not scored, 1 texts" in found["metrics"]["corrections"]["notes"][0]


def test_several_replies_are_reported_as_vote_and_as_mean() -> None:
    made = examples(2)
    right, wrong = (FLAG.format(word) for word in ("INCORRECT", "CORRECT"))
    items = [scored(e, right, right, wrong) for e in made]
    found = results_of(items)["metrics"]
    assert found["flag"]["recall_incorrect"] == 1.0 and found["flag"]["recall_correct"] == 0.0
    assert found["samples"]["n"] == 3
    assert found["samples"]["mean"]["recall_incorrect"] == pytest.approx(2 / 3)
    assert found["samples"]["agreement_with_majority"] == pytest.approx(2 / 3)


def test_one_class_only_and_texts_without_types() -> None:
    clean = [scored(e, FLAG.format("CORRECT")) for e in examples(3) if e.label is Label.CORRECT]
    found = results_of(clean)
    assert found["metrics"]["by_error_type"] == {} and found["metrics"]["flag"]["recall_incorrect"] is None
    assert found["metrics"]["flag"]["balanced_accuracy"] == 1.0
    assert "n/a" in results_markdown(found)


def test_same_seed_same_file_and_no_text_in_it() -> None:
    items = full_items()
    first, second = results_of(items, "full"), results_of(items, "full")
    assert first == second
    assert SECRET not in str(first) and "knee" not in str(first)


def test_plots_are_well_formed() -> None:
    from xml.etree import ElementTree

    made = results_of(full_items(), "full", name="a <model> & more")
    made["metrics"]["calibration"] = {
        "bins": [{"n": 3, "mean_probability": 0.2, "share_incorrect": 0.3}, {"n": 0, "mean_probability": None}]
    }
    plots = result_plots(made)
    assert set(plots) == {"metrics.svg", "reliability.svg"}
    for svg in plots.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert len(ElementTree.fromstring(plots["reliability.svg"]).findall(".//{*}use")) == 1


def parsing_of(replies: list[str]) -> dict[str, Any]:
    items = [scored(e, reply) for e, reply in zip(examples(len(replies)), replies, strict=False)]
    return results_of(items)


def test_replies_are_counted_by_how_they_parsed() -> None:
    replies = [
        'final_answer: "CORRECT"',
        "CORRECT",
        "**final_answer:** CORRECT",
        "incorrect",
        "It is fine.",
        "<think>a",
    ]
    results = parsing_of([*replies, 'final_answer: "CORRECT" or "INCORRECT"'])
    assert results["metrics"]["parsing"] == {
        "replies": 7,
        "strict": 1,
        "other_form": {"the verdict alone": 2, "Markdown": 1},
        "not_parsed": {"no verdict": 1, "reasoning without an end": 1, "both verdicts": 1},
    }
    text = results_markdown(results)
    assert "Of 7 replies 1 gave an answer in the strict form, 3 in another (the verdict alone 2, Markdown 1), 3" in text
    assert "No figure here" not in text
    del results["metrics"]["parsing"]  # as in a file of an earlier version
    assert "strict form" not in results_markdown(results)


def test_where_nothing_parsed_the_report_says_what_to_do() -> None:
    results = parsing_of(["I cannot tell.", ""])
    assert "No figure here says anything about the model. Read the replies: --keep-text" in results_markdown(results)
    results["metrics"]["cut_replies"] = 2
    results["settings"] |= {"thinking": True, "max_tokens": 64}
    advice = "The replies ran into the limit of 64 tokens: raise --max-tokens, or use --no-thinking."
    assert advice in results_markdown(results)


def test_names_from_data_are_no_markup() -> None:
    items = [
        replace(item, example=replace(item.example, error_type="dose|route <b>x</b>\n*y*"))
        for item in (scored(e, FLAG.format(e.label.value)) for e in examples(2) if e.label is Label.INCORRECT)
    ]
    made = results_of(items, name="a_b|c`d")
    made["command"] = ["medserl", "`evaluate`", "a|b"]
    made["data"]["notes"] = ["<script>.csv: 3 rows dropped"]
    report = results_markdown(made)
    row = next(line for line in report.splitlines() if "dose" in line)
    assert row.startswith(r"| dose\|route &lt;b&gt;x&lt;/b&gt; \*y\* | 2 |")
    assert report.startswith(r"# a_b\|c\`d on made")
    assert "- `` medserl `evaluate` a|b ``" in report and "- &lt;script&gt;.csv" in report
    assert "<" not in report


def test_intervals_draw_near_duplicates_together() -> None:
    """Twenty cases, each five times under neighbouring ids, right or wrong as a whole."""
    items = []
    for number in range(100):
        made = example(number // 5, Label.INCORRECT if number % 5 % 2 else Label.CORRECT)
        made = replace(made, note_id=f"ms-{number}", text=f"{made.text} Seen {number % 5} times.")
        items.append(scored(made, FLAG.format((made.label if number // 5 % 3 else made.label.other).value)))
    metrics = summarise(items, "flag", seed=0)["metrics"]
    assert metrics["groups"] == 20
    low, high = metrics["intervals"]["accuracy"]
    assert low == pytest.approx(0.45, abs=0.02) and high == pytest.approx(0.85, abs=0.02)
