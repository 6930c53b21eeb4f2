"""Sentence boundaries in clinical text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.game.sentences import sentence_ends, sentence_texts, split_sentences

ONE_SENTENCE = [
    "Her potassium was 7.2 mg and rose further.",
    "Dr. Smith saw the patient.",
    "Seen by Dr. A. Jones on the ward.",
    "He takes aspirin 81 mg q.d. with food.",
    "Amoxicillin 500 mg p.o. b.i.d. for 10 days was given.",
    "Antibiotics, e.g. amoxicillin, were given.",
    "Antibiotics (e.g. Amoxicillin) were given.",
    "Pain vs. Discomfort was discussed.",
    "Culture grew E. coli and S. aureus.",
    "He noticed pain ... then it stopped.",
    "Seen at approx. 5 p.m. in the clinic.",
    "Temp. 37.5 and resp. rate 18 were noted.",
    "Stage No. 3 was confirmed.",
    "J. R. Brown consented.",
    "It weighed .5 kg at 1.0 m.",
    "The pH was 7.35, pCO2 was 40, and HCO3- was 24.",
    "1. Aspirin was given.",
    "He was seen by Jones et al. Monday.",
]

SEVERAL_SENTENCES = [
    ("Blood pressure is 120/70 mm Hg. He is well.", 2),
    ("Temperature is 98.6 F. He is well.", 2),
    ("Temperature is 37.0 C (98.6 F). Pulse is 80/min.", 2),
    ("He has hepatitis B. She does not.", 2),
    ("He takes vitamin K. The dose is unknown.", 2),
    ("Lisinopril 10 mg q.d. Follow up in 2 weeks.", 2),
    ("His pulse is 98. She is well.", 2),
    ("Is he well? Yes. He went home!", 3),
    ('He said "no." Then he left.', 2),
    ("Pain in the leg. 12-lead ECG was normal.", 2),
    ("patient seen. denies pain. will return.", 3),
    ("Plan: 1. Aspirin daily. 2. Metformin daily.", 2),
    ("Given 2 g i.v. He improved.", 2),
    ("It hurt... He cried.", 2),
    ("bp is 120 / 70 . pulse is 80 .", 2),
    ("(He is well.) She is not.", 2),
    ("Diagnosis: flu. No. 3 of the list applies.", 2),
]


@pytest.mark.parametrize("text", ONE_SENTENCE)
def test_no_boundary_inside(text: str) -> None:
    assert sentence_texts(text) == [text]


@pytest.mark.parametrize(("text", "count"), SEVERAL_SENTENCES)
def test_boundaries_found(text: str, count: int) -> None:
    found = sentence_texts(text)
    assert len(found) == count, found
    assert " ".join(found) == text


def test_lines_and_bullets_split_for_numbering_only() -> None:
    text = "Labs show:\nHemoglobin 14.6 g/dL\nNa+ 137 mEq/L\n- aspirin 81 mg\n\nfollow up\nin 2 weeks"
    expected = [
        "Labs show:",
        "Hemoglobin 14.6 g/dL",
        "Na+ 137 mEq/L",
        "- aspirin 81 mg",
        "follow up in 2 weeks",
    ]
    assert sentence_texts(text) == expected
    assert len(split_sentences(text, lines=False)) == 1


def test_a_line_break_inside_a_sentence_is_no_boundary() -> None:
    assert sentence_texts("His blood pressure is\n120/70 mm\r\nHg.") == ["His blood pressure is 120/70 mm Hg."]


def test_empty() -> None:
    assert split_sentences("") == []
    assert split_sentences(" \n\t") == []
    assert sentence_ends([]) == []


CLINICAL = st.lists(
    st.sampled_from(["Dr.", "7.2", "mg.", "He", "no", "q.d.", "F.", "98.6", "(x)", "-", "1.", "...", "B.", "?", '."']),
    max_size=30,
)
SPACES = st.sampled_from([" ", "  ", "\n", "\t", "\r\n", "\n\n", "\u00a0"])


@given(st.text() | st.builds(" ".join, CLINICAL), st.booleans())
def test_spans_and_gaps_give_the_text_back(text: str, lines: bool) -> None:
    spans = split_sentences(text, lines=lines)
    position = 0
    for span in spans:
        assert text[position : span.start].strip() == ""
        sentence = text[span.start : span.end]
        assert sentence == sentence.strip() != ""
        position = span.end
    assert text[position:].strip() == ""


@given(CLINICAL, st.data())
def test_white_space_does_not_move_boundaries(words: list[str], data: st.DataObject) -> None:
    gaps = data.draw(st.lists(SPACES, min_size=len(words), max_size=len(words)))
    text = "".join(gap + word for gap, word in zip(gaps, words, strict=True))
    counts = [len(text[s.start : s.end].split()) for s in split_sentences(text, lines=False)]
    ends = sentence_ends(words)
    assert counts == [end - start for start, end in zip([-1, *ends], ends, strict=False)]


@given(CLINICAL, st.integers(0, 30), st.integers(0, 30))
def test_a_range_gives_the_ends_in_it(words: list[str], start: int, stop: int) -> None:
    stop = min(stop, len(words))
    assert sentence_ends(words, start, stop) == [end for end in sentence_ends(words) if start <= end < stop]
