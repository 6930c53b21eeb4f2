"""Paired comparisons: known p-values, clear and unclear cases, and what is refused."""

import json
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.cli.main import main
from medserl.data.records import LabelledExample
from medserl.errors import DataError
from medserl.evaluation.comparison import compare, comparison_markdown
from medserl.evaluation.paired import discordant, mcnemar
from medserl.evaluation.results import read_results
from medserl.game.labels import Label
from tests.evaluation.made import FLAG, example, examples, scored, stored


@pytest.mark.parametrize("pair", [(0, 1), (1, 1), (1, 7), (2, 2), (3, 5), (5, 3), (0, 6)])
def test_mcnemar_counts_coin_throws(pair: tuple[int, int]) -> None:
    total, point = sum(pair), Fraction(0)
    as_extreme = Fraction(0)
    for throws in product((0, 1), repeat=total):
        share = Fraction(1, 2**total)
        if abs(2 * sum(throws) - total) >= abs(pair[0] - pair[1]):
            as_extreme += share
        if sum(throws) in pair:
            point += share
    exact, mid_p = mcnemar(*pair)
    assert exact == pytest.approx(float(as_extreme))
    # Half of the probability of the outcome itself, on both sides.
    assert mid_p == pytest.approx(float(as_extreme - point / 2))


def test_mcnemar_published_case_and_large_counts() -> None:
    exact, mid_p = mcnemar(1, 7)  # Fagerland, Lydersen, Laake (2013), airway hyper-responsiveness
    assert (round(exact, 4), round(mid_p, 4)) == (0.0703, 0.0391)
    assert mcnemar(0, 0) == (1.0, 1.0)
    assert mcnemar(1000, 1600)[1] < 1e-20
    assert discordant([True, True, False], [True, False, True]) == (1, 1)


def by_hand(only_first: int, only_second: int) -> tuple[float, float]:
    """McNemar's exact and mid-p in whole numbers, as this project computed them before it took scipy's."""
    total, low, whole = only_first + only_second, min(only_first, only_second), 2 ** (only_first + only_second)
    tail, point = sum(comb(total, k) for k in range(low + 1)), comb(total, low)
    exact = min(1.0, 2 * tail / whole)
    return exact, 1 - point / (2 * whole) if only_first == only_second else (2 * tail - point) / whole


@given(st.integers(0, 300), st.integers(1, 300))
def test_mcnemar_is_that_of_before(only_first: int, only_second: int) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(by_hand(only_first, only_second), rel=1e-9)


def answered(out: Path, rights: list[bool], name: str = "model") -> Path:
    made = examples(len(rights) // 2)
    replies = [(e.label if right else e.label.other).value for e, right in zip(made, rights, strict=True)]
    return stored(out, [scored(e, FLAG.format(reply)) for e, reply in zip(made, replies, strict=True)], name)


def both(first: Path, second: Path, **options: bool) -> dict:
    return compare(read_results(first), read_results(second), shared=options.get("shared", False), seed=0)


def test_a_clear_difference_is_significant_in_either_order(tmp_path: Path) -> None:
    weak, strong = answered(tmp_path / "a", [True, False] * 30), answered(tmp_path / "b", [True] * 58 + [False] * 2)
    found = both(weak, strong)
    assert found["significant"] and "second is better" in found["sentence"]
    low, high = found["difference"]["accuracy"]["interval"]
    assert 0 < low < found["difference"]["accuracy"]["value"] < high
    back = both(strong, weak)
    assert back["significant"] and "first is better" in back["sentence"]
    assert back["difference"]["accuracy"]["value"] == -found["difference"]["accuracy"]["value"]
    assert "| balanced accuracy |" in comparison_markdown(found)


def test_the_same_predictions_do_not_differ(tmp_path: Path) -> None:
    rights = [True, True, False, True] * 5
    found = both(answered(tmp_path / "a", rights), answered(tmp_path / "b", rights))
    assert (
        not found["significant"]
        and found["mcnemar_exact_p"] == 1
        and "No difference between the second and the first is significant at 5 %" in found["sentence"]
    )
    assert found["difference"]["balanced_accuracy"] == {"value": 0.0, "interval": [0.0, 0.0]}


def test_two_texts_more_of_twenty_may_be_chance(tmp_path: Path) -> None:
    rights = [True] * 14 + [False] * 6
    found = both(answered(tmp_path / "a", rights), answered(tmp_path / "b", [True] * 16 + [False] * 4))
    assert not found["significant"] and found["sentence"].count(".") > 1 and "chance" in found["sentence"]


def test_other_ids_are_refused_unless_the_shared_ones_are_asked_for(tmp_path: Path) -> None:
    short, long = answered(tmp_path / "a", [True] * 10), answered(tmp_path / "b", [True] * 16)
    with pytest.raises(DataError, match="6 note ids are in only one") as caught:
        both(short, long)
    assert "--shared-ids" in str(caught.value)
    found = both(short, long, shared=True)
    assert found["texts"] == 10 and found["left_out"] == {"first": 0, "second": 6}
    assert "6 of the second" in comparison_markdown(found)


def test_other_texts_or_labels_under_the_same_id_are_refused(tmp_path: Path) -> None:
    first, second = answered(tmp_path / "a", [True] * 10), answered(tmp_path / "b", [True] * 10)
    lines = (second / "predictions.jsonl").read_text().splitlines()
    for key, value in (("text_sha256", "0"), ("label", Label.CORRECT.value)):
        record = {**json.loads(lines[0]), key: value}
        (second / "predictions.jsonl").write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")
        for shared in (False, True):
            with pytest.raises(DataError, match="another text or label"):
                both(first, second, shared=shared)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = answered(tmp_path / "a", [True, False] * 30, "old"), answered(tmp_path / "b", [True] * 60, "new")
    assert main(["compare", str(first), str(second / "results.json")]) == 0
    shown = capsys.readouterr().out
    assert "# new against old" in shown and "The difference is significant at 5 %" in shown
    assert main(["compare", str(first), str(second), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["only_second_right"] == 30
    assert main(["compare", str(first), str(tmp_path / "none")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "none" in message
    assert main(["compare", str(first), str(second), "a.b=1"]) == 2


def variants(cases: int) -> list[LabelledExample]:
    """Each case published five times under neighbouring ids, with a word changed."""
    made = []
    for number in range(5 * cases):
        one = example(number // 5, Label.INCORRECT if number % 5 % 2 else Label.CORRECT)
        text = f"{one.text} Seen {number % 5} times."
        made.append(replace(one, note_id=f"ms-{number}", text=text, sentences=(text,)))
    return made


def test_variants_under_other_ids_do_not_make_a_difference_significant(tmp_path: Path) -> None:
    """Five times the texts, not five times the evidence."""
    texts = variants(12)

    def answers(out: Path, right: range) -> Path:
        replies = [(e.label if i // 5 in right else e.label.other).value for i, e in enumerate(texts)]
        return stored(out, [scored(e, FLAG.format(reply)) for e, reply in zip(texts, replies, strict=True)])

    found = both(answers(tmp_path / "a", range(5)), answers(tmp_path / "b", range(2, 10)))
    assert found["texts"] == 60 and found["groups"] == 12 and found["groups_by_id_only"] == []
    assert found["mcnemar_mid_p"] < 0.05  # which takes the texts as independent
    low, high = found["difference"]["accuracy"]["interval"]
    assert low < -0.1 and high > 0.5
    assert not found["significant"] and "60 texts in 12 groups" in found["sentence"]


def test_results_without_groups_are_said_to_have_none(tmp_path: Path) -> None:
    first, second = answered(tmp_path / "a", [True, False] * 10), answered(tmp_path / "b", [True] * 20)
    path = first / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "group"}) + "\n" for row in rows))
    found = both(first, second)
    assert found["groups"] == 10 and found["groups_by_id_only"] == [str(first)]
    assert "recorded no near-duplicates" in comparison_markdown(found)


def test_texts_that_are_all_alike_tell_no_interval(tmp_path: Path) -> None:
    alike = [replace(e, text="The same note.", sentences=("The same note.",)) for e in examples(4)]
    replies = [[e.label.value for e in alike], [e.label.other.value for e in alike]]
    first, second = (
        stored(tmp_path / str(i), [scored(e, FLAG.format(r)) for e, r in zip(alike, said, strict=True)])
        for i, said in enumerate(replies)
    )
    found = both(first, second)
    assert found["groups"] == 1 and not found["significant"]
    assert found["difference"]["accuracy"]["interval"] == [None, None]
    assert "95 % interval n/a" in found["sentence"]


def test_names_are_no_markup(tmp_path: Path) -> None:
    rights = [True, False] * 10
    first, second = answered(tmp_path / "a", rights, "a|b <i>x</i>"), answered(tmp_path / "b", rights, "[c](d)\n# e")
    report = comparison_markdown(both(first, second))
    assert report.splitlines()[0] == r"# \[c\](d) # e against a\|b &lt;i&gt;x&lt;/i&gt;"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": None}, "no data.texts"),
        ({"data": [1]}, "no data.texts"),
        ({"data": {"texts": "many"}}, "no data.texts"),
        ({"settings": None}, "no settings"),
        ({"model": {}}, "no model.name"),
        ({"format_version": 7}, "format version 1"),
    ],
)
def test_results_that_lack_something_are_refused(tmp_path: Path, change: dict, told: str) -> None:
    made = answered(tmp_path / "a", [True] * 4)
    results = json.loads((made / "results.json").read_text()) | change
    (made / "results.json").write_text(json.dumps({key: value for key, value in results.items() if value is not None}))
    with pytest.raises(DataError, match=f"results.json: .*{told}"):
        read_results(made)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"n0"', '["x"]', "line 1: is not a prediction .note_id is a list"),
        ('"group": 0', '"group": {}', "line 1: is not a prediction .group is a dict"),
        ('"answer"', '"asnwer"', "line 1: is not a prediction .no 'answer'"),
        ('"n0"', '"n1"', "has 'n1' more than once"),
        ('{"note_id"', "[" * 100_000, "line 1: is not a prediction"),
    ],
    ids=["list", "dict", "lacking", "twice", "deep"],
)
def test_predictions_that_are_none_are_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    made = answered(tmp_path / "a", [True] * 4)
    file = made / "predictions.jsonl"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=f"predictions.jsonl.*{told}"):
        read_results(made)


def test_a_negative_seed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = str(answered(tmp_path / "a", [True] * 4))
    assert main(["compare", made, made, "--seed", "-1"]) == 2
    assert capsys.readouterr().err == "medserl: error: --seed: -1 is less than 0\n"
