"""Parsers: the answer, and whether the strict form was kept."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.game.labels import Label
from medserl.game.parse import (
    AssessorAnswer,
    InjectorEdit,
    ParseFailure,
    parse_assessor,
    parse_edit,
    parse_full,
    parse_note,
    read_answer,
    strip_think,
    thinking_part,
)
from medserl.game.phrase import parse_phrase, phrase_places
from medserl.game.reply import Form, opens_thinking
from medserl.game.sentences import split_sentences

NOTE = "He has a cough.  He takes\nmetformin 500 mg b.i.d. daily.\n\nNo rash is seen.\t"


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("plain", "plain", ""),
        ("<think>a</think> b", "b", "a"),
        ("<think>a</think> b <think>c</think> d", "b  d", "a c"),
        ("<think>never closed final", "", "never closed final"),
        ("b <think>never closed", "", "never closed"),
        ("<THINK>a</Think> b", "b", "a"),
        ("<thinking>a</thinking> b", "b", "a"),
        ("[THINK]a[/THINK] b", "b", "a"),
        ("[think]a", "", "a"),
        ("b <Thinking>never closed", "", "never closed"),
        ("<thi<think>a</think>nking> b", "", "a"),
        ("opened in the prompt</think> b", "b", "opened in the prompt"),
        ("x</think>y</think> b", "y b", "x"),
        ("<think>a</think>b</think>c", "bc", "a"),
        ("<think>a</think></think>b", "b", "a"),
        ("b</think>\n", "b", ""),
        ("<think>a<think></think>b", "b", "a<think>"),
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
        ("<think>sentence_id: 0\nnew_sentence: x", "found 0"),
        ("<Thinking>sentence_id: 0\nnew_sentence: x", "found 0"),
        ("[THINK]sentence_id: 0\nnew_sentence: x", "found 0"),
        ("sentence_id: 0 or 1\nnew_sentence: x", "found 0"),
        ("sentence_id: [0\nsentence_id: 1]\nnew_sentence: x", "found 2"),
        ('{"sentence_id": true, "new_sentence": "x"}', "found 0"),
        ('{"sentence_id": 0, "new_sentence": ["x"]}', "empty"),
        ('sentence_id: 0\nnew_sentence: ""', "empty"),
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


# ---------------------------------------------------------------------------------------------- phrase format


def phrase(old: str, new: str) -> str:
    return f"old_phrase: {old}\nnew_phrase: {new}"


@pytest.mark.parametrize(
    ("reply", "old", "new", "strict"),
    [
        (phrase("cough", "fever"), "cough", "fever", True),
        (phrase("takes metformin", "is given metformin"), "takes\n", "is given\n", True),
        (phrase("He takes metformin", "She takes insulin"), "He takes\nmetformin", "She takes insulin", True),
        (phrase("500 mg", "50 mg"), "500 mg", "50 mg", True),
        (phrase("b.i.d.", "t.i.d."), "b.i.d.", "t.i.d.", True),
        (phrase("seen.\t", "found."), "seen.", "found.", True),
        (phrase("He", "She"), "He", "She", True),  # of two places the first
        (phrase("he", "She"), "He", "She", False),
        (phrase("he", "she"), "He", "She", False),
        (phrase('"cough"', '"fever"'), "cough", "fever", False),
        (phrase("“cough”", "fever"), "cough", "fever", False),
        (phrase("Cough", "Fever"), "cough", "fever", False),
        (r"old\_phrase: cough" + "\n" + r"new\_phrase: fever", "cough", "fever", False),
        ("**Old phrase:** cough\n**New phrase:** fever", "cough", "fever", False),
        (phrase("<cough>", "<fever>"), "cough", "fever", False),
        (phrase("cough", "- fever"), "cough", "fever", False),
        (phrase("cough", 'fever"'), "cough", "fever", False),
        (phrase("cough", '"fever'), "cough", "fever", False),
        (phrase('"cough"', '"fever".'), "cough", "fever", False),
        (phrase('"cough".', '"fever".'), "cough", "fever", False),
        (phrase("metformin", '"insulin".'), "metformin", "insulin", False),
        (phrase("[metformin]", "(insulin)"), "metformin", "insulin", False),
        (phrase("- metformin", "> insulin```"), "metformin", "insulin", False),
        (phrase("[1] He takes metformin", "[1] He takes insulin"), "metformin", "insulin", False),
        (phrase("1: He takes metformin", "He takes insulin"), "metformin", "insulin", False),
        (phrase('(1) "He takes metformin"', "1. He takes insulin"), "metformin", "insulin", False),
        (phrase("daily", "weekly."), "daily", "weekly", False),
        (phrase("he takes", "he stops"), "He takes", "He stops", False),
        ('{"old_phrase": "cough", "new_phrase": "fever"}', "cough", "fever", False),
        (f"<think>{phrase('rash', 'x')}</think>{phrase('cough', 'fever')}", "cough", "fever", True),
        (f"Here it is:\n{phrase('cough', 'fever')}\nDone.", "cough", "fever", True),
    ],
)
def test_phrase_replaces_words(reply: str, old: str, new: str, strict: bool) -> None:
    parsed = parse_phrase(reply, NOTE)
    assert parsed == InjectorEdit(NOTE.replace(old, new, 1), strict=strict)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "'old_phrase: …', found 0"),
        ("cough -> fever", "'old_phrase: …', found 0"),
        ("old_phrase: cough", "'new_phrase: …' after old_phrase, found 0"),
        ("new_phrase: fever\nold_phrase: cough", "'new_phrase: …' after old_phrase, found 0"),
        (phrase("cough", "fever") + "\nnew_phrase: x", "found 2"),
        (phrase("cough", "fever") + "\n" + phrase("rash", "x"), "found 2"),
        (phrase("", "fever"), "does not stand"),
        (phrase('""', "fever"), "does not stand"),
        (phrase("gout", "fever"), "does not stand"),
        (phrase("coug", "fever"), "does not stand"),  # not inside a word
        (phrase("etformin", "x"), "does not stand"),
        (phrase("cough He", "x"), "does not stand"),
        (phrase("cough", ""), "new_phrase is empty"),
        (phrase("cough", '""'), "new_phrase is empty"),
    ],
)
def test_phrase_failures(reply: str, why: str) -> None:
    parsed = parse_phrase(reply, NOTE)
    assert isinstance(parsed, ParseFailure) and why in parsed.why
    assert not any(word in parsed.why for word in ("gout", "metformin", "cough"))  # no word of a note in a log


@pytest.mark.parametrize(
    ("note", "old", "new", "edited"),
    [
        ("Take 1.5 mg, later 5 mg.", "5 mg", "50 mg", "Take 1.5 mg, later 50 mg."),
        ("Temp 37.5, later Temp 37.", "Temp 37", "Temp 40", "Temp 37.5, later Temp 40."),
        ("Range 2-5, base excess -5.", "-5", "-9", "Range 2-5, base excess -9."),
        ("BP 120/70, HR 70.", "70", "90", "BP 120/70, HR 90."),
        ("Creme\u0301 and Creme.", "Creme", "Salt", "Creme\u0301 and Salt."),
        (
            "HEENT: normal\nNeck: normal\nHeart: regular",
            "normal Heart:",
            "odd Heart:",
            "HEENT: normal\nNeck: odd\nHeart: regular",
        ),
        ("no fever\n- left hip", "fever - left", "fever - right", "no fever\n- right hip"),
        ("Seen  on\nMay 5.", "Seen on May", "Seen May", "Seen  May 5."),
        ("Seen  on\nMay 5.", "Seen on", "Seen again on", "Seen  again on\nMay 5."),
        ("___ was seen.", "___ was", "He was", "He was seen."),
        ("He was seen.", "He was", "___ was", "___ was seen."),
        ("Pain is left.", "left", "right.", "Pain is right."),
        ("No cough. No pain.", "No cough.", "Some cough", "Some cough. No pain."),
        ("Any pain? No.", "Any pain?", "Any cough", "Any cough? No."),
        ("He denies pain.", "Denies", "Reports", "He reports pain."),
        ("He takes aspirin.", "Aspirin", "ASA", "He takes ASA."),
        ("Seen. The patient has pain.", "the patient has", "the patient lacks", "Seen. The patient lacks pain."),
    ],
)
def test_phrase_means_whole_words_and_keeps_what_is_around_them(note: str, old: str, new: str, edited: str) -> None:
    parsed = parse_phrase(phrase(old, new), note)
    assert isinstance(parsed, InjectorEdit) and parsed.modified == edited


@given(st.text("aB1. -\n", max_size=30), st.text("aB1. -", min_size=1, max_size=4), st.text("aB.", min_size=1))
def test_phrase_leaves_everything_else_alone(note: str, old: str, new: str) -> None:
    places = phrase_places(note, old)
    assert all(note[start:end].split() == old.split() for start, end in places)
    parsed = parse_phrase(phrase(old, new), note)
    if places and not isinstance(parsed, ParseFailure):
        start, end = places[0]
        assert parsed.modified.startswith(note[:start]) and parsed.modified.endswith(note[end:])
        changed = parsed.modified[start : len(parsed.modified) - len(note) + end]
        assert not parsed.strict or changed.split() == new.split()


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
        ('I think so.\n\n  final_answer: "CORRECT"  \r\n', Label.CORRECT),
        ('It is not INCORRECT.\nfinal_answer: "CORRECT"', Label.CORRECT),
        ('final_answer: "CORRECT"\nWait. Yes.\nfinal_answer: "CORRECT"', Label.CORRECT),
        ('<think>final_answer: "INCORRECT"</think>final_answer: "CORRECT"', Label.CORRECT),
        ('<think>a</think>final_answer: "CORRECT"\n</think>', Label.CORRECT),
        ('<think>a</think></think>\nfinal_answer: "CORRECT"', Label.CORRECT),
        ('final_answer: "CORRECT"\n</think>', Label.CORRECT),
        ('<thinking>INCORRECT</thinking>\nfinal_answer: "CORRECT"', Label.CORRECT),
        ('[THINK]INCORRECT[/THINK]final_answer: "CORRECT"', Label.CORRECT),
        ('INCORRECT dosing was ruled out.\nfinal_answer: "CORRECT"', Label.CORRECT),
        ('Incorrect: nothing.\nfinal_answer: "CORRECT"', Label.CORRECT),
        ('CORRECT\n\nfinal_answer: "CORRECT"', Label.CORRECT),
    ],
)
def test_the_strict_form(reply: str, answer: Label) -> None:
    assert parse_assessor(reply) is answer
    assert read_answer(reply).strict


DRESSED = [
    ('**final_answer:** "CORRECT"', Form.MARKDOWN),
    ('**final_answer: "CORRECT"**', Form.MARKDOWN),
    ("**final_answer**: **CORRECT**", Form.MARKDOWN),
    ('- final_answer: "CORRECT"', Form.MARKDOWN),
    ('### final_answer: "CORRECT"', Form.MARKDOWN),
    ("final_answer: `CORRECT`", Form.MARKDOWN),
    ('final\\_answer: "CORRECT"', Form.MARKDOWN),
    ('```\nfinal_answer: "CORRECT"\n```', Form.MARKDOWN),
    ('1. final_answer: "CORRECT"', Form.MARKDOWN),
    ("final_answer: CORRECT", Form.UNQUOTED),
    ("final_answer: [CORRECT]", Form.QUOTES),
    ("{'final_answer': 'CORRECT'}", Form.MARKDOWN),
    ("final_answer: 'CORRECT'", Form.QUOTES),
    ("final_answer: \u201cCORRECT\u201d", Form.QUOTES),
    ('{"final_answer": "CORRECT"}', Form.JSON),
    ('Reason.\n```json\n{\n  "final_answer": "correct",\n  "why": "x"\n}\n```', Form.JSON),
    ('final_answer: "correct"', Form.CASE),
    ('Final_answer: "Correct"', Form.CASE),
    ('final_answer : "CORRECT"', Form.LAYOUT),
    ('final_answer = "CORRECT"', Form.LAYOUT),
    ('final answer: "CORRECT"', Form.LAYOUT),
    ('final_answer: \n"CORRECT"', Form.LAYOUT),
    ('final_answer: "CORRECT".', Form.LAYOUT),
    ("CORRECT", Form.BARE),
    ("**Correct.**", Form.BARE),
]


@pytest.mark.parametrize(("reply", "form"), DRESSED)
def test_a_verdict_in_another_dress(reply: str, form: Form) -> None:
    """Read, whichever verdict it is and whatever stands before it; no strict form."""
    assert read_answer(reply) == AssessorAnswer(Label.CORRECT, form)
    other = reply.replace("CORRECT", "INCORRECT").replace("Correct", "Incorrect").replace('"correct', '"incorrect')
    assert read_answer(other) == AssessorAnswer(Label.INCORRECT, form)
    assert read_answer(f"<think>{other}</think>\n{reply}") == AssessorAnswer(Label.CORRECT, form)
    if form is not Form.BARE:
        assert read_answer(f"All of it fits.\n\n{reply}").label is Label.CORRECT
        assert read_answer(f"{other}\n{reply}") == AssessorAnswer(None, Form.BOTH)


@pytest.mark.parametrize(
    ("reply", "form"),
    [
        ("", Form.SILENT),
        ("The note is CORRECT.", Form.SILENT),
        ("The note is fine.\nCORRECT", Form.SILENT),
        ("Not incorrect", Form.SILENT),
        ("CORRECT or INCORRECT", Form.SILENT),
        ("final_answer: not CORRECT", Form.MISPLACED),
        ('final_answer: "CORRECT', Form.MISPLACED),
        ('I think so. final_answer: "CORRECT". Done', Form.MISPLACED),
        ('The note is fine, so it is not final_answer: "INCORRECT" here.', Form.MISPLACED),
        ('final_answer: "CORRECT"\nThe dose fits.', Form.MISPLACED),
        ('final_answer: "CORRECT"\nfinal_answer: "perhaps"', Form.MISPLACED),
        ('final_answer: "CORRECT or INCORRECT"', Form.BOTH),
        ('final_answer: "CORRECT" or "INCORRECT"', Form.BOTH),
        ('final_answer: "CORRECT". But final_answer: "INCORRECT" is not right', Form.BOTH),
        ('final_answer: "CORRECT"\nfinal_answer: "INCORRECT"', Form.BOTH),
        ('INCORRECT\n\nfinal_answer: "CORRECT"', Form.BOTH),
        ("CORRECT\nfinal_answer: incorrect", Form.BOTH),
        ("final_answer: incorrect\nCORRECT", Form.BOTH),
        ("Fine.\n**Incorrect.**\nfinal_answer: CORRECT", Form.BOTH),
        ('INCORRECT. The dose is wrong.\nfinal_answer: "CORRECT"', Form.BOTH),
        ('**Incorrect**. The dose is wrong.\n{"final_answer": "CORRECT"}', Form.BOTH),
        ('final\\_answer: "CORRECT". No, final_answer: "INCORRECT"', Form.BOTH),
        ('It may be final_answer: "INCORRECT".\nfinal_answer: "CORRECT"', Form.BOTH),
        ('{"final_answer": "CORRECT", "final_answer": "INCORRECT"}', Form.BOTH),
        ('<think>final_answer: "CORRECT"', Form.UNFINISHED),
        ('<think>final_answer: "CORRECT"</think>', Form.UNFINISHED),
        ('<THINK>\nfinal_answer: "CORRECT"', Form.UNFINISHED),
        ('<thinking>\nfinal_answer: "CORRECT"', Form.UNFINISHED),
        ('[THINK]\nfinal_answer: "CORRECT"', Form.UNFINISHED),
        ('final_answer: "CORRECT"\n<think>Or is the dose', Form.UNFINISHED),
        ('final_answer: "CORRECT"\n[THINK]Or is the dose', Form.UNFINISHED),
    ],
)
def test_nothing_is_guessed(reply: str, form: Form) -> None:
    found = read_answer(reply)
    assert found == AssessorAnswer(None, form)
    assert found.why is not None and not found.strict
    assert parse_assessor(reply) is None


CUT = 'So I have to end with final_answer: "CORRECT" or final_answer: "INCORRECT". The sentence says that sodium is'


@pytest.mark.parametrize("reply", [CUT, 'final_answer: "CORRECT"', "CORRECT", '{"final_answer": "CORRECT"}', ""])
def test_reasoning_that_the_prompt_opened_and_nobody_closed_is_no_answer(reply: str) -> None:
    assert read_answer(reply, opened=True) == AssessorAnswer(None, Form.UNFINISHED)
    assert parse_assessor(f'{reply} low.</think>\nfinal_answer: "CORRECT"', opened=True) is Label.CORRECT
    full = f'{reply}\nfinal_answer: "CORRECT"\nerror_sentence_id: -1\ncorrected_sentence: NA'
    assert isinstance(parse_full(full, 3, opened=True), ParseFailure)


@pytest.mark.parametrize("reply", ["{}\nINCORRECT", "INCORRECT\n\n{}", "INCORRECT. The dose is wrong.\n{}"])
def test_a_full_answer_beside_the_other_verdict_is_none(reply: str) -> None:
    full = 'final_answer: "CORRECT"\nerror_sentence_id: -1\ncorrected_sentence: NA'
    found = parse_full(reply.format(full), 3)
    assert isinstance(found, ParseFailure) and (found.form, found.answer) == (Form.BOTH, None)
    same = parse_full(reply.replace("INCORRECT", "CORRECT").format(full), 3)
    assert not isinstance(same, ParseFailure) and same.answer is Label.CORRECT
    cut = parse_full(f"{full}\n<thinking>Or is the", 3)
    assert isinstance(cut, ParseFailure) and cut.form is Form.UNFINISHED


def test_an_edit_inside_open_reasoning_is_no_edit() -> None:
    thought = "Perhaps like this:\nsentence_id: 0\nnew_sentence: He has flu.\nNo, that is"
    assert isinstance(parse_edit(thought, NOTE, opened=True), ParseFailure)
    assert isinstance(parse_note("generated_note: He has flu.", opened=True), ParseFailure)
    whole = parse_edit(f"{thought} wrong.</think>\nsentence_id: 0\nnew_sentence: He has gout.", NOTE, opened=True)
    assert isinstance(whole, InjectorEdit) and whole.new_sentence == "He has gout."


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("[/INST][THINK]", True),
        ("</thinking>", False),
        ("…<think>", True),
        ("<think>\n\n</think>\n\n", False),
        ("", False),
    ],
)
def test_a_prompt_that_opens_reasoning(prompt: str, opened: bool) -> None:
    assert opens_thinking(prompt) is opened


@pytest.mark.parametrize(
    "reply",
    [
        "sentence_id: [0]\nnew_sentence: He has gout.",
        "sentence_id: 0)\nnew_sentence: He has gout.",
        "sentence_id: <0>\nnew_sentence: He has gout.",
        "sentence_id: #0\nnew_sentence: He has gout.",
        'sentence_id: "0"\nnew_sentence: "He has gout."',
        "sentence_id: 0\nnew_sentence: \u201cHe has gout.\u201d",
        "sentence_id: 0\nnew_sentence: 'He has gout.'",
        "sentence_id: 0\nnew_sentence: **He has gout.**",
        "sentence_id: 0\nnew_sentence: [0] He has gout.",
        "sentence_id: 0\nnew_sentence: 0 He has gout.",
        "**sentence_id:** 0\n**new_sentence:** He has gout.",
        "sentence\\_id: 0\nnew\\_sentence: He has gout.",
        "<thinking>It is\nsentence_id: 1</thinking>\n* sentence_id: 0\n* new_sentence: He has gout.",
        "Sentence_ID: 0\nNew_sentence: He has gout.",
        *(
            f"sentence_id: 0\nnew_sentence: {value}"
            for value in (
                *("- He has gout.", "* He has gout.", "> He has gout.", "• He has gout.", "[He has gout.]"),
                *(
                    "<He has gout.>",
                    "(He has gout.)",
                    "He has gout.```",
                    '- "He has gout."',
                    '"He has gout".',
                    'He has gout."',
                ),
                *("[0] - He has gout.", "> [0] He has gout."),
            )
        ),
        "```\nsentence_id: 0\nnew_sentence: He has gout.\n```",
        '{"sentence_id": 0, "new_sentence": "He has gout."}',
    ],
)
def test_an_edit_in_another_dress(reply: str) -> None:
    parsed = edit(reply)
    assert parsed.modified == NOTE.replace("He has a cough.", "He has gout.")
    assert not parsed.strict


def test_what_belongs_to_the_sentence_stays() -> None:
    note = 'He said "no." Then he left. 2 days later he died.'
    assert edit('sentence_id: 0\nnew_sentence: He said "yes."', note).new_sentence == 'He said "yes."'
    assert edit("sentence_id: 2\nnew_sentence: 2 weeks later he died.", note).new_sentence == "2 weeks later he died."
    assert edit("sentence_id: 2\nnew_sentence: 2 weeks later he died.", note).strict
    assert edit("sentence_id: 1\nnew_sentence: 1 day later he left.", note).new_sentence == "1 day later he left."
    for old, new in (
        ("- left hip pain", "- right hip pain"),
        ("> 5 mg of it", "> 50 mg of it"),
        ("(He was seen.)", "(She was seen.)"),
        ("[Seen.]", "[Missed.]"),
        ("Na 140", "- 5 mmol of base excess"),
        ("Height 5'3\"", "Height 6'3\""),
        ("He took (a) and (b)", "(a) he took, not (b)"),
        ("`x` was set", "`y` was set"),
    ):
        kept = edit(f"sentence_id: 0\nnew_sentence: {new}", old)
        assert (kept.new_sentence, kept.strict) == (new, True)


PIECES = st.sampled_from(
    [*(reply for reply, _ in DRESSED), 'final_answer: "INCORRECT"', "<think>", "</think>", "\n", "{", "}", "```", "or"]
)


@given(st.lists(PIECES, max_size=5), st.sampled_from(["", "\n", " "]), st.booleans())
def test_two_verdicts_are_never_one(pieces: list[str], glue: str, opened: bool) -> None:
    reply = glue.join(pieces)
    found = read_answer(reply, opened)
    answer = strip_think(reply, opened)
    if found.label is not None:
        wrong = re.search(r"final.answer\W*incorrect", answer, re.IGNORECASE)
        assert found.label is (Label.INCORRECT if wrong else Label.CORRECT)
    assert not (opened and "</think>" not in reply and found.label)


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
