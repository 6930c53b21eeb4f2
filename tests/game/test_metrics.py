"""What a round reports."""

import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medserl.game.labels import Label, Mode
from medserl.game.metrics import answer_metrics, confusion, ranking_auc, round_metrics
from medserl.game.play import AssessorTurn, Attempt, Game, Reply, Role, Trajectory
from medserl.game.referee import Ruling, RulingKind
from medserl.game.referee.base import UNCHECKED
from medserl.game.vcf import UNPARSEABLE, Reason, VcfVerdict

ANSWERS = st.lists(st.tuples(st.sampled_from(Label), st.none() | st.sampled_from(Label)), max_size=60)
GIVEN_ANSWERS = st.lists(st.tuples(st.sampled_from(Label), st.sampled_from(Label)), min_size=1, max_size=60)

# ------------------------------------------------------------------------------------------ binary figures


@given(GIVEN_ANSWERS)
def test_mcc_is_the_correlation_of_truth_and_answer(answers: list[tuple[Label, Label]]) -> None:
    truths = [float(truth is Label.INCORRECT) for truth, _ in answers]
    given_ = [float(answer is Label.INCORRECT) for _, answer in answers]
    if len(set(truths)) < 2 or len(set(given_)) < 2:
        assert confusion(answers).mcc == 0.0
    else:
        assert confusion(answers).mcc == pytest.approx(statistics.correlation(truths, given_), abs=1e-9)


@given(ANSWERS)
def test_figures_are_shares_of_the_answers(answers: list[tuple[Label, Label | None]]) -> None:
    table = confusion(answers)
    assert table.total == len(answers)
    if not answers:
        assert math.isnan(table.mcc) and math.isnan(table.accuracy) and math.isnan(table.balanced_accuracy)
        return
    right = [answer is truth for truth, answer in answers]
    assert table.accuracy == pytest.approx(statistics.mean(map(float, right)))
    recalls = [
        statistics.mean(float(r) for r, (truth, _) in zip(right, answers, strict=True) if truth is label)
        for label in {truth for truth, _ in answers}
    ]
    assert table.balanced_accuracy == pytest.approx(statistics.mean(recalls))


@given(GIVEN_ANSWERS)
def test_swapping_the_classes_changes_neither_mcc_nor_balanced_accuracy(
    answers: list[tuple[Label, Label]],
) -> None:
    swapped = [(truth.other, answer.other) for truth, answer in answers]
    assert confusion(swapped).mcc == pytest.approx(confusion(answers).mcc)
    assert confusion(swapped).balanced_accuracy == pytest.approx(confusion(answers).balanced_accuracy)


@given(st.lists(st.sampled_from(Label), min_size=2), st.sampled_from(Label))
def test_always_one_answer_is_worth_nothing(truths: list[Label], answer: Label) -> None:
    assume(len(set(truths)) == 2)
    answers = [(truth, answer) for truth in truths]
    assert confusion(answers).balanced_accuracy == 0.5
    assert confusion(answers).mcc == 0.0
    assert confusion((truth, truth) for truth in truths).mcc == pytest.approx(1.0)
    assert confusion((truth, truth.other) for truth in truths).mcc == pytest.approx(-1.0)


@given(ANSWERS)
def test_no_answer_is_not_right_and_says_nothing(answers: list[tuple[Label, Label | None]]) -> None:
    filled = [(truth, truth.other if answer is None else answer) for truth, answer in answers]
    table, wrong = confusion(answers), confusion(filled)
    parsed = confusion((truth, answer) for truth, answer in answers if answer is not None)
    for name in ("accuracy", "balanced_accuracy", "recall_correct", "recall_incorrect"):
        assert getattr(table, name) == pytest.approx(getattr(wrong, name), nan_ok=True)
    assert table.parsed == parsed
    if parsed.total:
        assert table.mcc == parsed.mcc


def test_a_model_that_never_parses_is_not_worse_than_chance() -> None:
    metrics = answer_metrics([(label, None) for label in Label] * 5)
    assert metrics["mcc"] == 0.0 and metrics["parse_failure_rate"] == 1.0
    assert math.isnan(metrics["balanced_accuracy_parsed"])


# ------------------------------------------------------------------------------------------------- a round


def attempt(reason: Reason | None, sentence: int = 0, words: str = "one two") -> Attempt:
    if reason is Reason.UNPARSEABLE:
        return Attempt(Reply(words), None, UNPARSEABLE)
    passed = reason is None
    verdict = VcfVerdict(passed, reason, 2, 0.9, sentence, 5) if passed else VcfVerdict(passed, reason)
    return Attempt(Reply(words, tokens=7, think_tokens=3), "note", verdict)


def trajectory(role: Role, reward: float, trains: bool = True) -> Trajectory:
    return Trajectory(role, [], Reply(""), reward, trains, 1, True, {})


def turn(answer: Label | None) -> AssessorTurn:
    return AssessorTurn(Reply(f"<think>so it is</think> {answer}", tokens=9, think_tokens=4), answer)


def decided(
    mode: Mode,
    kind: RulingKind,
    answer: Label | None,
    *,
    tries: tuple[Attempt, ...] = (attempt(None),),
    reward: float = 1.0,
) -> Game:
    ruling = Ruling(kind)
    trained = (trajectory(Role.INJECTOR, -reward), trajectory(Role.ASSESSOR, reward))
    return Game("n", mode, tries, "note", ruling, None, ruling.label, turn(answer), None, trained)


GAMES = [
    decided(Mode.ERROR, RulingKind.ERROR, Label.INCORRECT, tries=(attempt(None, 4),)),
    decided(Mode.ERROR, RulingKind.ERROR, Label.CORRECT, tries=(attempt(Reason.LEAK), attempt(None, 2)), reward=-1),
    decided(Mode.BENIGN, RulingKind.BENIGN, Label.CORRECT),
    decided(Mode.BENIGN, RulingKind.ERROR, None, reward=-0.5),
    Game("n", Mode.BENIGN, (attempt(None),), "note", Ruling(RulingKind.VOID)),
    Game(
        "n",
        Mode.ERROR,
        (attempt(Reason.UNPARSEABLE), attempt(Reason.IDENTICAL), attempt(Reason.UNPARSEABLE)),
        trajectories=(trajectory(Role.INJECTOR, -0.5), trajectory(Role.INJECTOR, 0.0, trains=False)),
    ),
]


def test_every_figure_of_a_round() -> None:
    metrics = round_metrics(GAMES)
    expected = {
        "games": 6,
        "games_decisive": 4,
        "vcf_attempts": 9,
        "vcf_acceptance_rate": 5 / 9,
        "vcf_acceptance_rate/error": 2 / 6,
        "vcf_acceptance_rate/benign": 3 / 3,
        "vcf_acceptance_rate/attempt_1": 4 / 6,
        "vcf_acceptance_rate/attempt_2": 1 / 2,
        "vcf_acceptance_rate/attempt_3": 0,
        "vcf_game_acceptance_rate": 5 / 6,
        "vcf_game_acceptance_rate/error": 2 / 3,
        "vcf_game_acceptance_rate/benign": 1,
        "vcf_rejections/unparseable": 2,
        "vcf_rejections/identical": 1,
        "vcf_rejections/leak": 1,
        "vcf_rejections/empty": 0,
        "edit/position": (4 / 4 + 2 / 4) / 5,
        "edit/word_edits": 2,
        "edit/jaccard": 0.9,
        "trajectories": 9,
        "mean_reward": -0.5 / 9,
        "mean_reward/injector": (-1 + 1 - 1 + 0.5 - 0.5) / 5,
        "mean_reward/assessor": (1 - 1 + 1 - 0.5) / 4,
        "injector/win_rate": 1 / 4,
        "injector/contradiction_rate": 1 / 4,
        "injector/parse_failure_rate": 2 / 9,
        "assessor/accuracy": 2 / 4,
        "assessor/recall_correct": 1,
        "assessor/recall_incorrect": 1 / 3,
        "assessor/balanced_accuracy": 2 / 3,
        "assessor/mcc": 1 / 2,
        "assessor/accuracy_parsed": 2 / 3,
        "assessor/balanced_accuracy_parsed": 3 / 4,
        "assessor/always_one_answer_rate": 2 / 3,
        "assessor/parse_failure_rate": 1 / 4,
        "referee/void_rate": 1 / 5,
        "referee/lossy_rate": 0,
        "label_inversion_rate": 1 / 4,
        "injector/response_words": 2,
        "injector/response_tokens": 7,
        "injector/thinking_tokens": 3,
        "assessor/response_words": 1,
        "assessor/thinking_words": 3,
        "assessor/response_tokens": 9,
        "assessor/thinking_tokens": 4,
        "labelled/games": 0,
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value), name
    assert math.isnan(metrics["label_inversion_rate/second_referee"])
    assert math.isnan(metrics["labelled/accuracy"])


def test_labelled_games_count_for_themselves_only() -> None:
    gold = Game("g", None, (), "text", truth=Label.CORRECT, assessor=turn(Label.CORRECT))
    gold = replace(gold, trajectories=(trajectory(Role.ASSESSOR, 0.75),))
    with_gold, without = round_metrics([*GAMES, gold]), round_metrics(GAMES)
    assert with_gold["labelled/games"] == 1
    assert with_gold["labelled/accuracy"] == with_gold["labelled/recall_correct"] == 1
    assert with_gold["labelled/mean_reward"] == 0.75
    for name, value in without.items():
        if not name.startswith("labelled/"):
            assert with_gold[name] == pytest.approx(value, abs=0, rel=0, nan_ok=True), name


def test_inversion_is_unknown_where_a_label_was_taken_on_trust() -> None:
    believed = replace(GAMES[0], ruling=Ruling(RulingKind.ERROR, UNCHECKED))
    metrics = round_metrics([believed, GAMES[1]])
    assert metrics["referee/unchecked_rate"] == 1 / 2
    for name in ("label_inversion_rate", "injector/contradiction_rate"):
        assert math.isnan(metrics[name])
    assert round_metrics([GAMES[0], GAMES[1]])["referee/unchecked_rate"] == 0


def test_a_second_referee_shows_inversions() -> None:
    def heard(game: Game, kind: RulingKind) -> Game:
        return replace(game, second_ruling=Ruling(kind))

    games = [
        heard(GAMES[0], RulingKind.BENIGN),
        heard(GAMES[1], RulingKind.ERROR),
        heard(GAMES[2], RulingKind.VOID),
        heard(GAMES[4], RulingKind.ERROR),
    ]
    assert round_metrics(games)["label_inversion_rate/second_referee"] == 1 / 2


def test_two_referees_that_take_the_modes_word_measure_no_inversion() -> None:
    trusted = Ruling(RulingKind.ERROR, UNCHECKED)
    both = replace(GAMES[0], ruling=trusted, second_ruling=trusted)
    name = "label_inversion_rate/second_referee"
    assert math.isnan(round_metrics([both])[name])
    assert round_metrics([both, replace(both, second_ruling=Ruling(RulingKind.BENIGN, "looked"))])[name] == 1


def test_an_empty_round_has_the_same_keys() -> None:
    metrics = round_metrics([])
    assert list(metrics) == list(round_metrics(GAMES))
    assert all(isinstance(value, float) for value in [*metrics.values(), *round_metrics(GAMES).values()])
    assert metrics["games"] == 0 and math.isnan(metrics["vcf_acceptance_rate"])


def test_attempt_numbers_follow_the_rules() -> None:
    keys = set(round_metrics(GAMES, max_attempts=2))
    assert "vcf_acceptance_rate/attempt_2" in keys and "vcf_acceptance_rate/attempt_3" not in keys
    assert {f"vcf_rejections/{reason.value}" for reason in Reason} <= keys


@given(st.lists(st.tuples(st.sampled_from(list(Label)), st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1))))
def test_the_ranking_is_scikit_learns(scores: list[tuple[Label, float]]) -> None:
    from sklearn.metrics import roc_auc_score

    found = ranking_auc(scores)
    truth = [label is Label.INCORRECT for label, _ in scores]
    if len(set(truth)) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(truth, [score for _, score in scores]))
