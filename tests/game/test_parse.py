"""Strict parsers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.game.labels import Label
from medserl.game.parse import (
    InjectorEdit,
    ParseFailure,
    parse_assessor,
    parse_edit,
    parse_note,
    strip_think,
    thinking_part,
)
from medserl.game.sentences import split_sentences

NOTE = "He has a cough.  He takes\nmetformin 500 mg b.i.d. daily.\n\nNo rash is seen.\t"


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("plain", "plain", ""),
        ("<think>a</think> b", "b", "a"),
        ("<think>a</think> b <think>c</think> d", "b  d", "a</think> b <think>c"),
        ("<think>never closed final", "", "never closed final"),
        ("b <think>never closed", "b", "never closed"),
        ("opened in the prompt</think> b", "b", "opened in the prompt"),
        ("x</think>y</think> b", "b", "x</think>y"),
        ("<think>a</think>b</think>c", "c", "a</think>b"),
        ("<think><think>a</think>b", "b", "<think>a"),
        ("<think></think>", "", ""),
        ("", "", ""),
    ],
)
def test_strip_think(text: str, answer: str, thinking: str) -> None:
    assert strip_think(text) == answer
    assert thinking_part(text) == thinking


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n"]), max_size=12).map("".join))
def test_no_tag_survives(text: str) -> None:
    assert "think>" not in strip_think(text)


# ---------------------------------------------------------------------------------------------- edit format


def edit(reply: str, note: str = NOTE) -> InjectorEdit:
    parsed = parse_edit(reply, note)
    assert isinstance(parsed, InjectorEdit), parsed
    return parsed


def test_edit_replaces_one_sentence_and_keeps_every_other_byte() -> None:
    parsed = edit("sentence_id: 1\nnew_sentence: He takes metformin 50 mg daily.")
    assert parsed.modified == "He has a cough.  He takes metformin 50 mg daily.\n\nNo rash is seen.\t"
    assert (parsed.sentence_id, parsed.new_sentence) == (1, "He takes metformin 50 mg daily.")


@pytest.mark.parametrize(
    "reply",
    [
        "<think>sentence_id: 7\nnew_sentence: no</think>\nsentence_id: 0\nnew_sentence: He has gout.",
        "  sentence_id:0  \r\n  new_sentence:   He has gout.  \r\n",
        "Sure, here is the edit:\nsentence_id: 0\n\nnew_sentence: He has gout.\nDone.",
        "sentence_id: 000\nnew_sentence: He has gout.",
    ],
)
def test_edit_tolerates_what_surrounds_the_two_lines(reply: str) -> None:
    assert edit(reply).modified == NOTE.replace("He has a cough.", "He has gout.")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "found 0"),
        ("He has gout.", "found 0"),
        ("sentence_id: 0", "new_sentence"),
        ("new_sentence: x\nsentence_id: 0", "new_sentence"),
        ("new_sentence: x", "found 0"),
        ("sentence_id: 0\nnew_sentence:", "empty"),
        ("sentence_id: 0\nnew_sentence:\nHe has gout.", "empty"),
        ("sentence_id: 3\nnew_sentence: x", "not among the note's 3"),
        ("sentence_id: -1\nnew_sentence: x", "found 0"),
        ("sentence_id: one\nnew_sentence: x", "found 0"),
        ("sentence_id: \u0661\nnew_sentence: x", "found 0"),
        ("sentence_id: 99999999999999999999\nnew_sentence: x", "found 0"),
        ("sentence_id: 0\nnew_sentence: x\nsentence_id: 1\nnew_sentence: y", "found 2"),
        ("sentence_id: 0\nnew_sentence: x\nnew_sentence: y", "found 2"),
        ("Sentence_ID: 0\nnew_sentence: x", "found 0"),
        ("<think>sentence_id: 0\nnew_sentence: x", "found 0"),
    ],
)
def test_edit_failures(reply: str, why: str) -> None:
    parsed = parse_edit(reply, NOTE)
    assert isinstance(parsed, ParseFailure)
    assert why in parsed.why


def test_edit_of_an_empty_note_fails() -> None:
    assert isinstance(parse_edit("sentence_id: 0\nnew_sentence: x", " \n"), ParseFailure)


@given(
    st.text(min_size=1),
    st.integers(0, 5),
    st.text("ab .\u00e9", min_size=1).filter(lambda s: s.strip() != ""),
)
def test_edit_leaves_everything_else_alone(note: str, index: int, sentence: str) -> None:
    spans = split_sentences(note)
    parsed = parse_edit(f"sentence_id: {index}\nnew_sentence: {sentence}", note)
    if index >= len(spans):
        assert isinstance(parsed, ParseFailure)
        return
    assert isinstance(parsed, InjectorEdit)
    span = spans[index]
    assert parsed.modified.startswith(note[: span.start])
    assert parsed.modified.endswith(note[span.end :])
    assert parsed.modified[span.start : len(parsed.modified) - len(note) + span.end] == sentence.strip()


# ---------------------------------------------------------------------------------------------- note format


def test_note_is_everything_after_the_key() -> None:
    parsed = parse_note("<think>generated_note: no</think>\ngenerated_note:\nHe is well.\n\nNo rash.\n")
    assert parsed == InjectorEdit("He is well.\n\nNo rash.")
    assert parse_note("generated_note: He is well.") == InjectorEdit("He is well.")


@pytest.mark.parametrize(
    "reply",
    ["", "He is well.", "generated_note:", "generated_note: a\ngenerated_note: b", "x generated_note: a"],
)
def test_note_failures(reply: str) -> None:
    assert isinstance(parse_note(reply), ParseFailure)


# ------------------------------------------------------------------------------------------------- assessor


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ('final_answer: "CORRECT"', Label.CORRECT),
        ('final_answer: "INCORRECT"', Label.INCORRECT),
        ('final_answer:"INCORRECT"', Label.INCORRECT),
        ('I think so. final_answer: "CORRECT". Done', Label.CORRECT),
        ('final_answer: "CORRECT"\nWait.\nfinal_answer: "INCORRECT"', Label.INCORRECT),
        ('<think>final_answer: "INCORRECT"</think>final_answer: "CORRECT"', Label.CORRECT),
        ('final_answer: "CORRECT"\nfinal_answer: "perhaps"', Label.CORRECT),
    ],
)
def test_assessor_answers(reply: str, answer: Label) -> None:
    assert parse_assessor(reply) is answer


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "CORRECT",
        "INCORRECT",
        "The note is CORRECT.",
        "final_answer: CORRECT",
        "final_answer: 'CORRECT'",
        'final_answer: "correct"',
        'final_answer: "CORRECT',
        'final_answer: "CORRECT or INCORRECT"',
        'Final_answer: "CORRECT"',
        'final_answer = "CORRECT"',
        'final_answer:\n"CORRECT"',
        'final answer: "CORRECT"',
        '<think>final_answer: "CORRECT"',
        '<think>final_answer: "CORRECT"</think>',
        "final_answer: \u201cCORRECT\u201d",
    ],
)
def test_assessor_has_no_fallback(reply: str) -> None:
    assert parse_assessor(reply) is None


@given(st.text())
def test_any_text_parses_or_fails(text: str) -> None:
    assert isinstance(parse_edit(text, NOTE), InjectorEdit | ParseFailure)
    assert isinstance(parse_note(text), InjectorEdit | ParseFailure)
    assert parse_assessor(text) in (None, Label.CORRECT, Label.INCORRECT)


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<think></think>", "sentence_id: 1\n", "final_answer: "])
def test_repeated_marks_in_a_long_reply(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    assert "think>" not in strip_think(text)
    assert parse_assessor(text) is None
    assert isinstance(parse_edit(text, NOTE), ParseFailure)
