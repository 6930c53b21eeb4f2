"""Rewards: the task term is zero-sum, whatever the numbers."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.game.labels import Label, Mode
from medserl.game.rewards import RewardConfig, score_game, score_labelled

NUMBER = st.floats(-1e6, 1e6)
ANSWER = st.none() | st.sampled_from(Label)


@given(NUMBER, NUMBER, NUMBER, st.none() | NUMBER, st.sampled_from(Mode), st.sampled_from(Label), ANSWER)
def test_the_task_term_is_exactly_zero_sum(
    right: float,
    wrong: float,
    bonus: float,
    penalty: float | None,
    mode: Mode,
    truth: Label,
    answer: Label | None,
) -> None:
    assume(right > wrong)
    config = RewardConfig(assessor_right=right, assessor_wrong=wrong, format_bonus=bonus, contradiction=penalty)
    score = score_game(config, mode, truth, answer)
    assert score.assessor_task + score.injector_task == 0.0
    assert score.assessor == score.assessor_task + score.assessor_local
    assert score.injector == score.injector_task + score.injector_local


@pytest.mark.parametrize(
    ("truth", "answer", "assessor", "injector"),
    [
        (Label.INCORRECT, Label.INCORRECT, 1.1, -0.9),
        (Label.INCORRECT, Label.CORRECT, -0.9, 1.1),
        (Label.INCORRECT, None, -1.0, 0.0),
    ],
)
def test_default_numbers(truth: Label, answer: Label | None, assessor: float, injector: float) -> None:
    score = score_game(RewardConfig(), Mode.ERROR, truth, answer)
    assert score.assessor == pytest.approx(assessor)
    assert score.injector == pytest.approx(injector)


def test_an_answer_that_cannot_be_read_costs_each_role_its_own_number_and_earns_no_bonus() -> None:
    config = RewardConfig(assessor_unparseable=-0.4, injector_unparseable=0.2, format_bonus=5.0)
    score = score_game(config, Mode.ERROR, Label.INCORRECT, None)
    assert (score.assessor, score.injector) == (-0.4, 0.2)
    assert score_labelled(config, Label.CORRECT, None).assessor == -0.4


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("answer", [None, *Label])
def test_a_contradiction_costs_the_injector_only_and_can_be_switched_off(mode: Mode, answer: Label | None) -> None:
    on = score_game(RewardConfig(contradiction=-0.7), mode, mode.label.other, answer)
    off = score_game(RewardConfig(contradiction=None), mode, mode.label.other, answer)
    assert on.injector == pytest.approx(off.injector - 0.7)
    assert on.assessor == off.assessor
    as_asked = score_game(RewardConfig(contradiction=-0.7), mode, mode.label, answer)
    assert as_asked == score_game(RewardConfig(contradiction=None), mode, mode.label, answer)


def test_labelled_rows() -> None:
    config = RewardConfig(labelled_right=0.5, labelled_wrong=-0.25)
    assert score_labelled(config, Label.CORRECT, Label.CORRECT).assessor == pytest.approx(0.6)
    assert score_labelled(config, Label.CORRECT, Label.INCORRECT).assessor == pytest.approx(-0.15)
    assert score_labelled(config, Label.CORRECT, None).assessor == -1.0
    assert score_labelled(config, Label.CORRECT, Label.CORRECT).injector == 0.0


@pytest.mark.parametrize("numbers", [{"assessor_right": -1.0}, {"labelled_wrong": 1.0}])
def test_rewards_that_teach_nothing_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="rewards"):
        RewardConfig(**numbers)
