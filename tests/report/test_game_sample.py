"""Some games of a round as text."""

from medserl.report.game_sample import sample_text


def row(**changes: object) -> dict[str, object]:
    assessor = {"answer": "CORRECT", "p_incorrect": 0.2}
    game = {"source": "self-play", "round": 1, "mode": "error", "truth": "INCORRECT", "ruling": "error",
            "original": "Give aspirin now.", "shown": "Give *warfarin* <b> now.", "assessor": assessor,
            "error_type": None, "ruling_reason": "dr*g", "second_ruling": None}  # fmt: skip
    return {**game, **changes}


def test_a_sample_marks_the_change_and_nothing_of_a_note_is_markup() -> None:
    text = sample_text([row(), row(source="gold", shown="not of self-play")])
    assert text.startswith(
        "**lost by the assessor** · round 1 · asked for: error · referee: error (dr\\*g) · assessor: CORRECT ✗, p"
    )
    assert "~~aspirin~~ **\\*warfarin\\* \\<b\\>**" in text
    assert "not of self-play" not in text


def test_those_that_surprised_most_come_first_and_undecided_games_are_left_out() -> None:
    sure = row(assessor={"answer": "CORRECT", "p_incorrect": 0.01}, shown="Give heparin now.")
    undecided = row(assessor=None, ruling=None, shown=None, truth=None)
    text = sample_text([row(), undecided, sure], each=1)
    assert "heparin" in text and "warfarin" not in text
    assert sample_text([undecided]) == ""
