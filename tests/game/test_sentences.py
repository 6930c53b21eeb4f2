"""Sentence boundaries in clinical text."""

import re

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
    "Swabs were positive for S. Aureus and E. Coli today.",
    "T. pallidum, N. Gonorrhoeae and B. Quintana were absent.",
    "Seen by J. Smith today.",
    "Smith and A. Jones saw him.",
    "He presents with 1) fever, 2) cough, and 3) rash.",
    "CULTURE GREW S. AUREUS AND E. COLI.",
    "SEEN BY J. SMITH AND DR. A. JONES TODAY.",
    "LISINOPRIL 10 MG Q.D. WITH FOOD.",
    "TEMP. 37.5 AND RESP. RATE 18 WERE NOTED.",
    "AMOXICILLIN 500 MG P.O. B.I.D. FOR 10 DAYS WAS GIVEN.",
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
    ("Plan: 1. Aspirin 2. Statin", 2),
    ("Plan: 1. aspirin 2. statin", 2),
    ("Assessment: 1. Hypertension 2. Diabetes mellitus 3. Gout", 3),
    ("Assessment 1. Hypertension 2. Diabetes", 2),
    ("Plan: 1) Aspirin 81 mg 2) Statin", 2),
    ("Plan: (1) Aspirin (2) Statin", 2),
    ("The count was 1. The next was 2. He left.", 3),
    ("Details are in Figure A. Creams were stopped.", 2),
    ("Lesions are in Fig. B. Creams were stopped.", 2),
    ("Hepatitis B. Serology was sent.", 2),
    ("See Fig. 2. He is well.", 2),
    ("Blood type is O. Crossmatch is done.", 2),
    ("Given vitamins D and K. Warfarin was stopped.", 2),
    ("He got penicillin G. Cultures were drawn.", 2),
    ("He has pain. J. Smith saw him.", 2),
    ("Positive for H. Pylori. He was treated.", 2),
    ("Seen by Robert Smith Jr. He agreed.", 2),
    ("SHE HAS HEPATITIS B. SHE TAKES NOTHING.", 2),
    ("HE TAKES VITAMIN K. WARFARIN WAS STOPPED.", 2),
    ("BP IS 120/70 MM HG. HE IS WELL.", 2),
    ("TEMPERATURE IS 98.6 F. HE IS WELL.", 2),
    ("LISINOPRIL 10 MG Q.D. FOLLOW UP IN 2 WEEKS.", 2),
    ("HE WEIGHS 80 LBS. DENIES PAIN.", 2),
    ("He weighs 5 mg.\u200b She is well\u200b .", 2),
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


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("History: asthma\nMedications: salbutamol\nAllergies: none", 3),
        ("meds: aspirin 81 mg\nallergies: none\nplan: home", 3),
        ("MEDICATIONS\nAspirin\nStatin", 3),
        ("Plan:\naspirin\n\nstatin", 3),
        ("- aspirin 81 mg\n- metformin 500 mg", 2),
        ("\u2022 aspirin\r\n\u2022 statin\r\n\u2022 ibuprofen", 3),
        ("1. Aspirin\n2. Statin 3. Metformin", 3),
        ("1.\nAspirin\n2.\nStatin", 2),
        ("[ ] call ward\n[x] order labs", 2),
        ("08:30 pulse 80\n09:30 pulse 90", 2),
        ("HISTORY: ASTHMA\nALLERGIES: PENICILLIN", 2),
        ("Aspirin\u2028Statin\x0bIbuprofen", 3),
        ("# Plan\naspirin\n-----\nhome today", 3),
        ("SHE HAS PAIN IN THE\nLEFT KNEE.", 1),
        ("She was treated for\nHodgkin lymphoma by\nDr. Smith.", 1),
        ("HIS PRESSURE IS 120/70 MM\nHG.", 1),
        ("His weight is\n72. He is well.", 2),
    ],
)
def test_notes_made_of_lines(text: str, count: int) -> None:
    found = sentence_texts(text)
    assert len(found) == count, found
    assert " ".join(found) == " ".join(text.split())


ORDINARY = [
    *(
        text
        for text in ONE_SENTENCE
        if not re.search(r"al\. M|J\. R\.|\.\.\. then|e\.g\. A", text) and text[0].isupper()
    ),
    *(text for text, _ in SEVERAL_SENTENCES if text[0].isupper() and " no." not in text and "Follow" not in text),
]


@pytest.mark.parametrize("text", ORDINARY)
def test_capitals_have_the_same_boundaries(text: str) -> None:
    assert [s.upper() for s in sentence_texts(text)] == sentence_texts(text.upper())


@given(st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=6).map(" ".join), st.booleans())
def test_case_does_not_move_boundaries_of_joined_sentences(text: str, closed: bool) -> None:
    text = text if closed else text.rstrip(".")
    assert [s.upper() for s in sentence_texts(text)] == sentence_texts(text.upper())


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


LINES = st.lists(
    st.sampled_from(
        [*ONE_SENTENCE, *(text for text, _ in SEVERAL_SENTENCES), "Meds:", "- aspirin", "2) gout", "BP 120/70", "of"]
    ),
    max_size=6,
)


@given(st.text() | st.builds(" ".join, CLINICAL) | LINES.map("\n".join) | LINES.map(" ".join))
def test_a_sentence_is_not_split_again(text: str) -> None:
    for sentence in sentence_texts(text):
        assert sentence_texts(sentence) == [sentence]


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
