"""Replies as models of all kinds write them: what is read, and what nobody guesses at."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.game.labels import Label
from medserl.game.parse import (
    FullAnswer,
    InjectorEdit,
    ParseFailure,
    parse_edit,
    parse_full,
    parse_note,
    read_answer,
)
from medserl.game.phrase import parse_phrase
from medserl.game.reply import Form

NOTE = "He has a cough. He takes metformin 500 mg daily. No rash is seen. He is well."
GOUT = NOTE.replace("No rash is seen.", "No rash was seen.")

WRONG = [  # all say INCORRECT, none in the strict form
    "INCORRECT",
    "INCORRECT.",
    "incorrect",
    "Incorrect!",
    "  INCORRECT \n\n",
    '"INCORRECT"',
    "“INCORRECT”",
    "„INCORRECT“",
    "«INCORRECT»",
    "‹INCORRECT›",
    "「INCORRECT」",
    "**INCORRECT**",
    "**INCORRECT.**",
    "***Incorrect***",
    "`INCORRECT`",
    "[INCORRECT]",
    "```\nINCORRECT\n```",
    "<b>INCORRECT</b>",
    "<p><strong>INCORRECT</strong></p>",
    "❌ INCORRECT",
    "**INCORRECT** ❌",
    "\\boxed{INCORRECT}",
    "$\\boxed{\\text{INCORRECT}}$",
    "INCORRECT INCORRECT INCORRECT",
    "INCORRECT\nINCORRECT\n",
    "<think>It may be CORRECT.</think>INCORRECT",
    "Answer: INCORRECT",
    "answer: incorrect.",
    "**Answer:** INCORRECT",
    "Verdict: INCORRECT",
    "Final verdict: **INCORRECT**",
    "Final Answer: INCORRECT",
    "Final Answer：INCORRECT",
    "FINAL_ANSWER: INCORRECT",
    "final-answer: INCORRECT",
    "finalAnswer: INCORRECT",
    "final_answer: INCORRECT.",
    "final_answer: 'INCORRECT'",
    "final_answer: “INCORRECT”",
    "final_answer: ”INCORRECT“",
    "final_answer: „INCORRECT“",
    "final_answer: 「INCORRECT」",
    "final_answer: ＂INCORRECT＂",
    "final_answer: *INCORRECT*",
    "final_answer: **“INCORRECT”**",
    "**final_answer:** `INCORRECT`",
    "***final_answer***: INCORRECT",
    "final_answer: <b>INCORRECT</b>",
    "<p>final_answer: INCORRECT</p>",
    "<b>Final answer:</b> INCORRECT<br>",
    "final_answer: \\boxed{INCORRECT}",
    "final_answer: ❌ INCORRECT",
    "final_answer : INCORRECT",
    "final_answer= INCORRECT",
    "> final_answer: INCORRECT",
    "• final_answer: INCORRECT",
    "3) final_answer: INCORRECT",
    "### Final Answer\n\nINCORRECT",
    "**Final Answer**\nINCORRECT.",
    "## Final Answer:\n**INCORRECT**",
    "Answer:\n\nINCORRECT",
    "| final_answer | INCORRECT |",
    "| key | value |\n| --- | --- |\n| **final_answer** | INCORRECT |",
    "<final_answer>INCORRECT</final_answer>",
    '<final_answer>"INCORRECT"</final_answer>',
    "<final_answer>\nINCORRECT\n</final_answer>",
    "<answer>INCORRECT</answer>",
    "<answer>\nINCORRECT\n</answer>",
    "<response>\n<final_answer>INCORRECT</final_answer>\n</response>",
    "<answer><final_answer>INCORRECT</final_answer></answer>",
    '{"final_answer": "INCORRECT"}',
    '{"final_answer":"incorrect"}',
    '{"Final_Answer": "INCORRECT"}',
    '{"Final Answer": "INCORRECT"}',
    '{"finalAnswer": "INCORRECT"}',
    '{"answer": "INCORRECT"}',
    "{'final_answer': 'INCORRECT'}",
    "{'reason': 'It\\'s late', 'final_answer': 'INCORRECT'}",
    '{"final_answer": "INCORRECT",}',
    '{\n  "reason": "The dose, a line, {braced}.",\n  "final_answer": "INCORRECT",\n}',
    '{"final_answer": "INCORRECT", "reason": null, "sure": true}',
    '{"evidence": {"sentence": 2}, "final_answer": "INCORRECT"}',
    '[{"final_answer": "INCORRECT"}]',
    '```json\n{"final_answer": "INCORRECT"}\n```',
    "~~~\n{'final_answer': 'INCORRECT'}\n~~~",
    'Here is my answer: {"final_answer": "INCORRECT"}',
    'The dose is odd.\n\n{"final_answer": "INCORRECT"}',
    '{"final_answer": "INCORRECT"}\n{"final_answer": "INCORRECT"}',
    '{"final_answer": "INCORRECT", "final_answer": "INCORRECT"}',
    '"final_answer": "INCORRECT"',
    "The correct dose is 5 mg.\nIs it not incorrect?\n\nFinal answer: INCORRECT",
    "Answer: The correct dose is 5 mg.\nfinal_answer: INCORRECT",
    "Answer: Correct dosing would be 5 mg.\nfinal_answer: INCORRECT",
    "Final answer\nThe correct dose is 5 mg.\nfinal_answer: INCORRECT",
    'final_answer: "INCORRECT"\n</answer>',
    '<answer>\nfinal_answer: "INCORRECT"\n</answer>',
    "ıncorrect",
    "final_answer: İncorrect",
]
NONE = [  # no verdict, or one that nobody can be sure of
    "",
    " \n\t ",
    "\u200b",
    "The note is correct",
    "The note is INCORRECT.",
    "I believe this note is incorrect because the dose is wrong.",
    "Not incorrect",
    "not correct",
    "This is not INCORRECT.",
    "final_answer: not INCORRECT",
    "final_answer: NOT CORRECT",
    "Answer: not incorrect",
    "final_answer: CORRECT or INCORRECT",
    'final_answer: "CORRECT"|"INCORRECT"',
    "CORRECT/INCORRECT",
    "CORRECT\nINCORRECT",
    "CORRECT INCORRECT",
    "**CORRECT** or **INCORRECT**",
    'final_answer: "CORRECT"\nfinal_answer: "INCORRECT"',
    'final_answer: "INCORRECT"\nFinal answer: CORRECT',
    "Answer: CORRECT\nfinal_answer: INCORRECT",
    "Verdict: INCORRECT\n\nfinal_answer: CORRECT",
    "Answer: CORRECT, as the dose fits.\nVerdict: INCORRECT",
    "Answer: CORRECT because the dose fits.\nfinal_answer: INCORRECT",
    "**Answer:** Correct.\nfinal_answer: INCORRECT",
    "<answer>CORRECT</answer>\n<answer>INCORRECT</answer>",
    "<answer>CORRECT</answer>\nfinal_answer: INCORRECT",
    "| final_answer | CORRECT |\nfinal_answer: INCORRECT",
    '{"final_answer": "CORRECT"}\n{"final_answer": "INCORRECT"}',
    "{'final_answer': 'CORRECT', 'final_answer': 'INCORRECT'}",
    '{"answer": "CORRECT", "final_answer": "INCORRECT"}',
    '{"final_answer": "CORRECT"} no: {"final_answer": "INCORRECT"}',
    '{"final_answer": ["CORRECT", "INCORRECT"]}',
    '{"final_answer": true}',
    '{"final_answer": null}',
    '{"final_answer": ""}',
    '{"verdict": "perhaps"}',
    "final_answer:",
    "### Final Answer",
    "final_answer: INCORRECTLY",
    "final_answer: 1",
    "final_answer: yes",
    "final_answer: FALSE",
    'final_answer: "INCORRECT',
    'final_answer: INCORRECT"',
    'final_answer: "INCORRECT"\n\nLet me know if you need more.',
    '{"final_answer": "INCORRECT"}\nThe dose is ten times too high.',
    "<think>The dose is wrong. final_answer: INCORRECT",
    "<think>final_answer: INCORRECT</think>",
    "INCORRECT</think>",
    "The final answer is INCORRECT, I think.",
    "Incorrect dose.",
    "Correct: metformin 500 mg",
    "I cannot judge medical notes.",
    "final_answer: <INCORRECT or CORRECT>",
    'final_answer: "<verdict>"',
    "CORRECTED",
    "in correct",
    "{" * 50,
    "final_answer",
]


@pytest.mark.parametrize("other", [False, True])
def test_verdicts_in_every_dress(other: bool) -> None:
    def said(reply: str) -> str:
        return reply.replace("INCORRECT", "CORRECT").replace("Incorrect", "Correct").replace("incorrect", "correct")

    replies = [said(reply) if other else reply for reply in WRONG if not other or reply.isascii()]
    replies = [reply for reply in replies if not (other and "not correct" in reply)]
    found = {reply: read_answer(reply) for reply in replies}
    label = Label.CORRECT if other else Label.INCORRECT
    assert {reply: answer for reply, answer in found.items() if answer.label is not label or answer.strict} == {}


def test_no_verdict_is_guessed() -> None:
    found = {reply: read_answer(reply) for reply in NONE}
    # "INCORRECT</think>": nothing follows the stray tag, so that it is the whole reply.
    read = {reply: answer.label for reply, answer in found.items() if answer.label is not None}
    assert read == {"INCORRECT</think>": Label.INCORRECT}
    assert all(answer.why for reply, answer in found.items() if reply not in read)


def test_a_reply_of_two_bare_verdicts_states_both() -> None:
    assert read_answer("CORRECT\nINCORRECT").form is Form.BOTH


KEYED = [reply for reply in WRONG if "nswer:" in reply and "think" not in reply and reply.isascii()]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(KEYED), st.booleans()), min_size=1, max_size=4), st.sampled_from(["\n", "\n\n"])
)
def test_answers_that_disagree_are_none(said: list[tuple[str, bool]], glue: str) -> None:
    replies = [
        reply if wrong else reply.replace("INCORRECT", "CORRECT").replace("incorrect", "correct")
        for reply, wrong in said
        if "not incorrect" not in reply
    ]
    if replies:
        found = read_answer(glue.join(replies)).label
        kinds = {"incorrect" in reply.lower() for reply in replies}
        assert found is (None if len(kinds) > 1 else Label.INCORRECT if kinds == {True} else Label.CORRECT)


NUMBERS = ["2", "(2)", "[2]", "2.", "2)", "#2", "<2>", '"2"', "'2'", "“2”", "**2**", "`2`", "Sentence 2", "sentence #2"]
NUMBERS += ["Sentence (2)", "no. 2", "No 2", "№ 2", "line 2", "002"]
SENTENCES = [
    "No rash was seen.",
    '"No rash was seen."',
    "'No rash was seen.'",
    "“No rash was seen.”",
    "`No rash was seen.`",
]
SENTENCES += ["„No rash was seen.“", "**No rash was seen.**", "_No rash was seen._", "<b>No rash was seen.</b>"]
SENTENCES += ["[2] No rash was seen.", "(2) No rash was seen.", "2. No rash was seen.", "2: No rash was seen."]
SENTENCES += ["2 No rash was seen.", '"[2] No rash was seen."', '[2] "No rash was seen."']
EDITS = [
    '{"sentence_id": 2, "new_sentence": "No rash was seen."}',
    '{"new_sentence": "No rash was seen.", "sentence_id": 2}',
    '{"Sentence ID": "2", "New Sentence": "No rash was seen."}',
    '{"sentenceId": 2.0, "newSentence": "No rash was seen."}',
    "{'sentence_id': 2, 'new_sentence': 'No rash was seen.',}",
    '{\n "sentence_id": 2,\n "new_sentence": "No rash was seen.",\n}',
    '```json\n{\n "sentence_id": 2,\n "new_sentence": "No rash was seen."\n}\n```\nThis changes the tense only.',
    'I change a tense. {"sentence_id": 2, "new_sentence": "No rash was seen."}',
    "<sentence_id>2</sentence_id>\n<new_sentence>No rash was seen.</new_sentence>",
    "<edit><sentence_id>2</sentence_id><new_sentence>No rash was seen.</new_sentence></edit>",
    "| sentence_id | 2 |\n| --- | --- |\n| new_sentence | No rash was seen. |",
    "**Sentence ID:** 2\n\n**New Sentence:** No rash was seen.",
    "1. sentence_id: 2\n2. new_sentence: No rash was seen.",
    '"sentence_id": 2,\n"new_sentence": "No rash was seen.",',
    '<p>"sentence_id": 2,\n</p> "new_sentence": "No rash was seen.",',
    'sentence_id: 2\n{"why": "x", "new_sentence": "No rash was seen."}',
    "sentence_id: 2\nnew_sentence: No rash was seen.\n" * 3,
    "sentence_id：2\nnew_sentence：No rash was seen.",
]


def test_edits_in_every_dress() -> None:
    replies = [f"sentence_id: {n}\nnew_sentence: {s}" for n in NUMBERS for s in SENTENCES[:1]]
    replies += [f"sentence_id: 2\nnew_sentence: {s}" for s in SENTENCES] + EDITS
    found = {reply: parse_edit(reply, NOTE) for reply in replies}
    wrong = {r: f for r, f in found.items() if not isinstance(f, InjectorEdit) or f.modified != GOUT}
    assert wrong == {}
    strict = [reply for reply, f in found.items() if isinstance(f, InjectorEdit) and f.strict]
    assert strict == [f"sentence_id: {n}\nnew_sentence: No rash was seen." for n in ("2", "002")]


@pytest.mark.parametrize(
    "reply",
    [
        '{"sentence_id": 2, "new_sentence": "A rash."}\n{"sentence_id": 1, "new_sentence": "He takes none."}',
        '{"sentence_id": [1, 2], "new_sentence": "A rash."}',
        '{"sentence_id": 2.5, "new_sentence": "A rash."}',
        'sentence_id: 1\nnew_sentence: A rash.\n{"sentence_id": 2, "new_sentence": "A rash."}',
        "sentence_id: 1, 2\nnew_sentence: A rash.",
        "sentence_id: Sentence\nnew_sentence: A rash.",
        "sentence_id: 1st\nnew_sentence: A rash.",
        "ſentence_id: 2\nnew_ſentence: A rash.",
        "<sentence_id>2</sentence_id>",
        "sentence_id: 2\nnew_sentence: A rash.\nsentence_id: 2\nnew_sentence: No rash.",
    ],
)
def test_edits_that_nobody_can_be_sure_of(reply: str) -> None:
    assert isinstance(parse_edit(reply, NOTE), ParseFailure)


def test_tags_that_are_the_notes_stay() -> None:
    note = "Seen today. <b>No rash.</b> He left."
    edited = parse_edit("sentence_id: 1\nnew_sentence: <b>No fever.</b>", note)
    assert isinstance(edited, InjectorEdit) and edited.strict and edited.new_sentence == "<b>No fever.</b>"


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        ("1. generated_note: He is well.", "He is well."),
        ("__generated_note__: He is well.\nNo rash.", "He is well.\nNo rash."),
        ("{generated_note: He is well.}", "He is well."),
        ('{"Generated Note": "He is well."}', "He is well."),
        ("<generated_note>He is well.</generated_note>", "He is well."),
        ("**Generated note:**\nHe is well.  \nNo rash.", "He is well.  \nNo rash."),
        ("| generated_note | He is well. |", "He is well."),
    ],
)
def test_whole_notes_in_another_dress(reply: str, note: str) -> None:
    assert parse_note(reply) == InjectorEdit(note, strict=False)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"corrected_sentence": "A rash.", "error_sentence_id": 2, "final_answer": "INCORRECT"}', (2, "A rash.")),
        ('{"answer": "INCORRECT", "corrected_sentence": "A rash.", "error_sentence_id": 2}', (2, "A rash.")),
        ('final_answer: "INCORRECT"\nerror_sentence_id: (2)\ncorrected_sentence: [2] A rash.', (2, "A rash.")),
        ('final_answer: "INCORRECT"\nerror_sentence_id: Sentence 2\ncorrected_sentence: "2. A rash."', (2, "A rash.")),
        ("Answer: INCORRECT\nerror_sentence_id: 2\ncorrected_sentence: 2 days of rash.", (2, "2 days of rash.")),
        ('final_answer: "CORRECT"\nerror_sentence_id: NA\ncorrected_sentence: NA', (-1, None)),
        ('final_answer: "CORRECT"\nerror_sentence_id: \u22121\ncorrected_sentence: N/A.', (-1, None)),
        ("{'final_answer': 'CORRECT', 'error_sentence_id': -1, 'corrected_sentence': None}", (-1, None)),
        ('{"final_answer": "CORRECT", "error_sentence_id": null, "corrected_sentence": null}', (-1, None)),
    ],
)
def test_full_answers_in_another_dress(reply: str, expected: tuple[int, str | None]) -> None:
    found = parse_full(reply, 5)
    assert isinstance(found, FullAnswer) and (found.error_sentence_id, found.corrected_sentence) == expected
    assert found.form is not Form.STRICT


def test_a_bare_verdict_is_one_in_the_full_format_too() -> None:
    found = parse_full("**INCORRECT**", 5)
    assert isinstance(found, ParseFailure) and (found.answer, found.form) == (Label.INCORRECT, Form.INCOMPLETE)
    assert isinstance(
        parse_full('final_answer: "INCORRECT"\nerror_sentence_id: NA\ncorrected_sentence: x', 5), ParseFailure
    )


MARKS = ["* ", "*", "_", "`", "# ", "1. ", '"', "(", "{", '{"a":', "{'", "| ", "<", "<b>", "<answer>", "CORRECT ", " "]
MARKS += ["CORRECT*", "final_answer: ", "\\boxed{", "</answer>"]


def test_no_reply_takes_more_than_linear_time() -> None:
    """Each parser took minutes for "* " repeated in 100 000 characters; this ends by the suite's limit on a test."""
    for mark in MARKS:
        text = mark * (20_000 // len(mark))
        for reply in (text, f"final_answer: CORRECT{text}x", f"sentence_id: 0\nnew_sentence: {text}", f"{text}}}"):
            read_answer(reply)
            parse_full(reply, 3)
            parse_edit(reply, NOTE)
            parse_note(reply)
            parse_phrase(reply, NOTE)
