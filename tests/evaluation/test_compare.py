"""Paired comparisons: known p-values, clear and unclear cases, and what is refused."""

import json
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from medserl.cli.main import main
from medserl.errors import DataError
from medserl.evaluation.comparison import compare, comparison_markdown
from medserl.evaluation.paired import discordant, mcnemar
from medserl.evaluation.results import read_results
from medserl.game.labels import Label
from tests.evaluation.made import FLAG, examples, scored, stored


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


def answered(out: Path, rights: list[bool], name: str = "model") -> Path:
    made = examples(len(rights) // 2)
    replies = [(e.label if right else e.label.other).value for e, right in zip(made, rights, strict=True)]
    return stored(out, [scored(e, FLAG.format(reply)) for e, reply in zip(made, replies, strict=True)], name)


def both(first: Path, second: Path, **options: bool) -> dict:
    return compare(read_results(first), read_results(second), shared=options.get("shared", False), seed=0)


def test_a_clear_difference_is_real_in_either_order(tmp_path: Path) -> None:
    weak, strong = answered(tmp_path / "a", [True, False] * 30), answered(tmp_path / "b", [True] * 58 + [False] * 2)
    found = both(weak, strong)
    assert found["real"] and "second is better" in found["sentence"]
    low, high = found["difference"]["accuracy"]["interval"]
    assert 0 < low < found["difference"]["accuracy"]["value"] < high
    back = both(strong, weak)
    assert back["real"] and "first is better" in back["sentence"]
    assert back["difference"]["accuracy"]["value"] == -found["difference"]["accuracy"]["value"]
    assert "| balanced accuracy |" in comparison_markdown(found)


def test_the_same_predictions_do_not_differ(tmp_path: Path) -> None:
    rights = [True, True, False, True] * 5
    found = both(answered(tmp_path / "a", rights), answered(tmp_path / "b", rights))
    assert not found["real"] and found["mcnemar_exact_p"] == 1 and "No real difference" in found["sentence"]
    assert found["difference"]["balanced_accuracy"] == {"value": 0.0, "interval": [0.0, 0.0]}


def test_two_texts_more_of_twenty_may_be_chance(tmp_path: Path) -> None:
    rights = [True] * 14 + [False] * 6
    found = both(answered(tmp_path / "a", rights), answered(tmp_path / "b", [True] * 16 + [False] * 4))
    assert not found["real"] and found["sentence"].count(".") > 1 and "chance" in found["sentence"]


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
    assert "# new against old" in shown and "The difference is real" in shown
    assert main(["compare", str(first), str(second), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["only_second_right"] == 30
    assert main(["compare", str(first), str(tmp_path / "none")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "none" in message
    assert main(["compare", str(first), str(second), "a.b=1"]) == 2
