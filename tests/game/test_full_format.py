"""The assessor's full format: verdict, sentence number and correction."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.game.labels import Label
from medserl.game.parse import FullAnswer, ParseFailure, parse_full
from medserl.game.prompts import load_prompt_set

CLEAN = 'final_answer: "CORRECT"\nerror_sentence_id: -1\ncorrected_sentence: NA'
WRONG = 'final_answer: "INCORRECT"\nerror_sentence_id: 2\ncorrected_sentence: The left knee is swollen.'
FOUND = FullAnswer(Label.INCORRECT, 2, "The left knee is swollen.")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (CLEAN, FullAnswer(Label.CORRECT, -1, None)),
        (WRONG, FOUND),
        (f"<think>{CLEAN}</think>\nSentence 2 is wrong.\n\n{WRONG}\n", FOUND),
        (f"{WRONG}\nWait. Yes.\n{WRONG}", FOUND),
        (WRONG.replace("\n", "\r\n"), FOUND),
        (WRONG.replace("\n", "\n\n  "), FOUND),
    ],
)
def test_full_answers(reply: str, expected: FullAnswer) -> None:
    assert parse_full(reply, 5) == expected


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "no 'final_answer"),
        ("INCORRECT, sentence 2", "no 'final_answer"),
        ('final_answer: "INCORRECT"', "error_sentence_id: N' after final_answer, found 0"),
        (WRONG.replace("id: 2", "id: two"), "found 0"),
        (WRONG.replace("id: 2", "id: 2 or 3"), "found 0"),
        (WRONG.replace("id: 2", "id: -2"), "found 0"),
        (WRONG.replace("id: 2", "id: 5"), "not among the note's 5 sentences"),
        (WRONG.replace("id: 2", "id: -1"), "not among"),
        (WRONG.replace("\nc", "\nerror_sentence_id: 3\nc"), "found 2"),
        (WRONG.partition("\ncorr")[0], "corrected_sentence: …' after error_sentence_id, found 0"),
        (WRONG + "\ncorrected_sentence: x", "found 2"),
        (WRONG.replace("The left knee is swollen.", ""), "without a corrected sentence"),
        (WRONG.replace("The left knee is swollen.", "NA"), "without a corrected sentence"),
        (CLEAN.replace("-1", "2"), "CORRECT goes with"),
        (CLEAN.replace("NA", "He is well."), "CORRECT goes with"),
        ('error_sentence_id: 2\ncorrected_sentence: x.\nfinal_answer: "INCORRECT"', "found 0"),
        (f"<think>{WRONG}", "no 'final_answer"),
        (f"{CLEAN}\nWait, no.\n{WRONG}", "both verdicts"),
        (f"The answer is {WRONG}", "on a line of its own"),
    ],
)
def test_there_is_no_guessing(reply: str, why: str) -> None:
    found = parse_full(reply, 5)
    assert isinstance(found, ParseFailure) and why in found.why


@pytest.mark.parametrize(
    "reply",
    [
        WRONG.replace("2", "[2]"),
        WRONG.replace("The left knee is swollen.", '"The left knee is swollen."'),
        WRONG.replace('"INCORRECT"', "Incorrect"),
        "\n".join(f"**{line.partition(':')[0]}:**{line.partition(':')[2]}" for line in WRONG.split("\n")),
        f"```\n{WRONG}\n```",
        json.dumps(
            {"final_answer": "INCORRECT", "error_sentence_id": 2, "corrected_sentence": "The left knee is swollen."}
        ),
    ],
)
def test_full_answers_in_another_dress(reply: str) -> None:
    found = parse_full(reply, 5)
    assert isinstance(found, FullAnswer)
    assert replace(found, form=FOUND.form) == FOUND and found.form is not FOUND.form


@given(
    st.text() | st.lists(st.sampled_from([*CLEAN.split("\n"), *WRONG.split("\n"), "<think>", "</think>"])),
    st.integers(0, 5),
)
def test_any_text_parses_or_fails(text: str | list[str], sentences: int) -> None:
    found = parse_full(text if isinstance(text, str) else "\n".join(text), sentences)
    if isinstance(found, FullAnswer):
        clean = found.answer is Label.CORRECT
        assert (found.error_sentence_id == -1) is (found.corrected_sentence is None) is clean
        assert clean or 0 <= found.error_sentence_id < sentences


def test_the_clinical_prompt_numbers_the_sentences_of_the_source() -> None:
    # Cut as a published file cuts them, inside a quantity, with a line break.
    sentences = ("Her pulse is", "106/min and blood pressure is 102/73 mm", "Hg.\nShe is well.")
    chat = load_prompt_set("clinical").assessor_full("unused", sentences)
    assert "\n0 Her pulse is\n1 106/min and blood pressure is 102/73 mm\n2 Hg. She is well.\n" in chat[-1]["content"]
    # The examples in the prompt are in the very format that the parser wants.
    example = re.search(r'final_answer: "CORRECT"\n.*\n.*', chat[-1]["content"])
    assert example is not None and parse_full(example.group(), 3) == FullAnswer(Label.CORRECT, -1, None)


def test_a_set_without_the_file_has_the_verdict_only() -> None:
    with pytest.raises(ConfigError, match=r"'ward' has no file assessor_full\.txt"):
        load_prompt_set("ward").assessor_full("A.", ["A."])


def own_set(folder: Path, full: str) -> Path:
    for name in ("injector_benign", "injector_error"):
        (folder / f"{name}.txt").write_text("{sentences}")
    (folder / "assessor.txt").write_text("{note}")
    (folder / "assessor_full.txt").write_text(full)
    return folder


def test_own_full_prompt(tmp_path: Path) -> None:
    prompts = load_prompt_set(own_set(tmp_path, "{note}|{sentences}"))
    assert prompts.assessor_full(" A. B. ", ["A.", "B."])[-1]["content"] == "A. B.|0 A.\n1 B."


@pytest.mark.parametrize(
    ("full", "what"),
    [("{note}", r"\{sentences\} is missing"), ("{sentences} {mode}", "unknown placeholder"), ("", "no user section")],
)
def test_broken_full_prompts_are_refused(tmp_path: Path, full: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        load_prompt_set(own_set(tmp_path, full))
