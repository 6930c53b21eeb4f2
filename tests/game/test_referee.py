"""Referees: the register, the plain one, and the verifiable edit classes."""

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.game.labels import Label, Mode
from medserl.game.records import Note
from medserl.game.referee import (
    REFEREES,
    Referee,
    Ruling,
    RulingKind,
    make_referee,
    referee_names,
    register_referee,
)
from medserl.game.referee.canonical import shipped_lexicon
from medserl.game.referee.instruction import unchecked_labels
from medserl.ward.cases import benign_edits, error_edits
from medserl.ward.generator import ward_cases
from medserl.ward.table import load_table


def rule(before: str, after: str, **fields: str) -> tuple[str, str]:
    note = replace(Note("n", f"He is 40. {before} He left."), **fields)
    ruling = make_referee("rules").rule(note, Mode.ERROR, f"He is 40. {after} He left.")
    return ruling.kind.value, ruling.reason


# ------------------------------------------------------------------------------------------- the register


def test_the_shipped_referees() -> None:
    assert {"instruction", "rules"} <= set(referee_names())
    assert [make_referee(name).name for name in ("instruction", "rules")] == ["instruction", "rules"]


def test_unknown_names_and_options() -> None:
    with pytest.raises(ConfigError, match=r"'orakel'.*instruction.*rules"):
        make_referee("orakel")
    with pytest.raises(ConfigError, match=r"'rules'.*strict"):
        make_referee("rules", strict=True)


def test_another_package_can_register_its_own() -> None:
    @register_referee
    class Coin(Referee):
        name: ClassVar[str] = "test-coin"

        def __init__(self, side: str) -> None:
            self.side = side

        def rule(self, note: Note, mode: Mode, modified: str) -> Ruling:
            return Ruling(RulingKind(self.side))

    assert make_referee("test-coin", side="lossy").rule(Note("n", "x"), Mode.ERROR, "y").kind is RulingKind.LOSSY
    with pytest.raises(ValueError, match="registered already"):
        register_referee(type("Coin2", (Coin,), {}))


@pytest.mark.parametrize(
    ("kind", "label"),
    [("error", Label.INCORRECT), ("benign", Label.CORRECT), ("void", None), ("lossy", None)],
)
def test_a_rulings_label_and_contradiction(kind: str, label: Label | None) -> None:
    ruling = Ruling(RulingKind(kind))
    assert ruling.label is label
    for mode in Mode:
        assert ruling.contradicts(mode) == (label is mode.label.other)


@pytest.mark.parametrize("mode", list(Mode))
def test_instruction_takes_the_mode_at_its_word(mode: Mode) -> None:
    ruling = make_referee("instruction").rule(Note("n", "x"), mode, "anything")
    assert ruling.label is mode.label
    assert not ruling.contradicts(mode)


@pytest.mark.parametrize("mode", list(Mode))
def test_instruction_knows_the_notes_own_gold_error_and_no_other(mode: Mode) -> None:
    note = Note("n", "Pain in the left knee. Given 5 mg.", error_text="Pain in the left knee. Given 50 mg.")
    referee = make_referee("instruction")
    made = referee.rule(note, mode, "Pain in the left knee.  Given 50mg.")
    assert made.label is Label.INCORRECT and made.checked and made.reason == "gold_error"
    restored = referee.rule(note, mode, "pain in the left knee. Given 5 mg.")
    assert restored.label is Label.CORRECT and restored.checked
    for other in ("Pain in the left knee. Given 500 mg.", "Pain in the right knee. Given 50 mg."):
        ruling = referee.rule(note, mode, other)
        assert ruling.label is mode.label and not ruling.checked


def test_only_instruction_leaves_labels_unchecked() -> None:
    said = unchecked_labels("instruction", None)
    assert said is not None and "were not checked" in said and "inversion is not measured" in said
    assert "measured by rules only" in str(unchecked_labels("instruction", "rules"))
    assert unchecked_labels("instruction", "instruction") == said, "nobody checks anything"
    assert unchecked_labels("rules", None) is None and unchecked_labels("judge", None) is None
    assert make_referee("rules").rule(Note("n", "x"), Mode.ERROR, "anything").checked


# ---------------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("Pain in the left knee.", "Pain in the right knee.", "laterality"),
        ("Bilateral wheezes.", "Left wheezes.", "laterality"),
        ("Left arm and right leg.", "Right arm and left leg.", "laterality"),
        ("Upper lobe mass.", "Lower lobe mass.", "location"),
        ("Given intravenous fluids.", "Given subcutaneous fluids.", "location"),
        ("Culture was negative.", "Culture was positive.", "polarity"),
        ("He has hypertension.", "He has low blood pressure.", "polarity"),
        ("Fever without rash.", "Fever with rash.", "polarity"),
        ("There is no rash.", "There is rash.", "negation"),
        ("There is rash.", "There is no rash.", "negation"),
        ("She denies pain.", "She reports pain.", "negation"),
        ("It was tender.", "It was not tender.", "negation"),
        ("Metformin 500 mg.", "Metformin 5000 mg.", "dose"),
        ("Metformin 500 mg.", "Metformin 500 mcg.", "dose"),
        ("Metformin 500mg.", "Metformin 50 mg.", "dose"),
        ("Give 5 mg/kg/day.", "Give 50 mg/kg/day.", "dose"),
        ("Insulin 10 units.", "Insulin 100 units.", "dose"),
        ("Give 5 mL.", "Give 5 mg.", "unit"),
        ("Give 5 mg/kg.", "Give 5 mg.", "unit"),
        ("Give 90 mg/day.", "Give 90 mg/kg/day.", "unit"),
        ("Give 90 mg/day.", "Give 90 mg/hour.", "dose"),
        ("Cough for 3 days.", "Cough for 3 weeks.", "time_scale"),
        ("A 3-day history.", "A 3-month history.", "time_scale"),
        ("Cough for two days.", "Cough for ten days.", "time_scale"),
        ("Take it b.i.d. now.", "Take it q.i.d. now.", "frequency"),
        ("Take it once daily.", "Take it once weekly.", "frequency"),
    ],
)
def test_errors(before: str, after: str, reason: str) -> None:
    assert rule(before, after) == ("error", reason)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("He has hypertension.", "He has high blood pressure."),
        ("He has shortness of breath.", "He has dyspnea."),
        ("She denies pain.", "She reports no pain."),
        ("Metformin 500 mg b.i.d. was given.", "Metformin 0.5 g twice daily was given."),
        ("Take 1000 mg.", "Take 1,000 mg."),
        ("For 6 weeks.", "For 42 days."),
        ("A 3-day history.", "A three day history."),
        ("He has a cough.", "He has cough."),
        ("He smokes, drinks.", "he smokes; drinks!"),
        ("Acetaminophen was given.", "Paracetamol was given."),
        ("Heparin 1000 units/hour.", "Heparin 1000 units/hr."),
        ("Give 5 mcg/kg/min.", "Give 5 mcg/kg/minute."),
        ("Give 90 mg/kg/day.", "Give 90 mg/day/kg."),
        ("Give 100 mL/h.", "Give 2400 mL/day."),
        ("Amoxicillin 15 mg/kg/dose.", "Amoxicillin 15 mg/kg."),
        ("He went to the ER.", "He went to the emergency room."),
        ("ASA 81 mg was given.", "Aspirin 81 mg was given."),
        ("IV fluids were given.", "Intravenous fluids were given."),
    ],
)
def test_benign(before: str, after: str) -> None:
    assert rule(before, after)[0] == "benign"


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("He has severe hypertension.", "He has hypertension.", "lossy"),
        ("Fever of 39 C and cough.", "Fever and cough.", "lossy"),
        ("Metformin 500 mg was given.", "Metformin was given.", "lossy"),
        ("Penicillin was given.", "Vancomycin was given.", "void"),
        ("He has hypertension.", "He has severe hypertension.", "void"),
        ("A 24-year-old man.", "A 42-year-old man.", "void"),
        ("Glucose 123 mg/dL.", "Glucose 321 mg/dL.", "void"),
        ("Give 500 mg.", "Give 510 mg.", "void"),
        ("A growth of -5.", "A growth of 5.", "void"),
        ("It is no longer there.", "It is there.", "void"),
        ("Acute severe pain today.", "Chronic pain.", "void"),
        ("Oxygen 2 L/min.", "Oxygen 2 L.", "void"),
        ("2 tablets of 250 mg were given.", "One tablet of 500 mg was given.", "void"),
        ("Cranial nerve IV is intact.", "Cranial nerve intravenous is intact.", "void"),
        ("ASA class 3.", "Aspirin class 3.", "void"),
        ("ER positive tumor.", "Emergency room positive tumor.", "void"),
        ("Metoprolol ER 50 mg.", "Metoprolol emergency room 50 mg.", "void"),
        ("No pain.", "Not pain.", "void"),
    ],
)
def test_undecided(before: str, after: str, kind: str) -> None:
    assert rule(before, after)[0] == kind


def test_a_proven_error_outweighs_an_open_question() -> None:
    assert rule("Penicillin for the left ear.", "Vancomycin for the right ear.") == ("error", "laterality")
    assert rule("Severe pain and penicillin.", "Pain and vancomycin.")[0] == "void"


SAME = [
    ("Left and right lungs are clear.", "Right and left lungs are clear."),
    ("Upper and lower extremities are warm.", "Lower and upper extremities are warm."),
    (
        "The flu test was negative and the strep test was positive.",
        "The strep test was positive and the flu test was negative.",
    ),
    ("She has no fever, chills, or cough.", "She has no fever, no chills, or cough."),
    ("She denies fever and chills.", "She denies fever and denies chills."),
    ("He takes one tablet of aspirin.", "He takes 81 mg of aspirin."),
    ("Pain in left or right knee.", "Pain in right or left knee."),
    ("Left arm and right arm are weak.", "Right arm and left arm are weak."),
    ("Pain in the left knee and in the right knee.", "Pain in the right knee and in the left knee."),
    ("Left/right eyes are red.", "Right/left eyes are red."),
    ("Left, right lungs clear.", "Right, left lungs clear."),
    ("Flu negative, strep positive.", "Strep positive, flu negative."),
    ("Positive flu test and negative strep test.", "Negative strep test and positive flu test."),
    ("Fever with cough and without rash.", "Fever without rash and with cough."),
    ("The wrist is tender, the elbow nontender.", "The elbow is nontender, the wrist tender."),
    ("Neither left nor right lung is involved.", "Neither right nor left lung is involved."),
    ("500 mg of metformin and 10 mg of lisinopril.", "10 mg of lisinopril and 500 mg of metformin."),
    ("3 days of fever and 2 weeks of cough.", "2 weeks of cough and 3 days of fever."),
    ("No wheezes, rales.", "No wheezes, no rales."),
    ("Without fever or chills.", "Without fever or without chills."),
    ("Negative for fever, chills.", "Negative for fever, negative for chills."),
    ("No pain. No dyspnea, palpitations.", "No pain. No dyspnea, no palpitations."),
    ("She does not have fever or chills.", "She does not have fever and does not have chills."),
    ("No evidence of an abnormal heart is seen.", "Evidence of a normal heart is seen."),
    ("The rash is not present.", "The rash is absent."),
    ("He uses two puffs of albuterol.", "He uses 180 mcg of albuterol."),
    ("He takes 10 mL of ibuprofen.", "He takes 400 mg of ibuprofen."),
    ("Insulin 10 units.", "Insulin 0.1 mL."),
    ("Strength is normal in upper and lower extremities.", "Strength is normal in the lower and upper extremities."),
    ("The mass is superior to the left kidney.", "The left kidney is inferior to the mass."),
    ("The left kidney is smaller than the right kidney.", "The right kidney is larger than the left kidney."),
    ("The right leg is longer than the left.", "The left leg is shorter than the right."),
    ("More pain on the left side than on the right side.", "Less pain on the right side than on the left side."),
    ("Her sister had gout, her brother did not.", "Her brother had no gout, her sister did."),
    ("He is not taking any medications.", "He is taking no medications."),
    ("She has not had fever.", "She has had no fever."),
    ("Normal S1 and normal S2.", "Normal S1 and S2."),
    ("Edema of the left ankle and left foot.", "Edema of the left ankle and foot."),
    ("Negative for flu and negative for strep.", "Negative for flu and strep."),
    ("Plan is physical therapy.", "Plan: physical therapy."),
    ("Patient denies swelling.", "Denies swelling."),
]


@pytest.mark.parametrize(("before", "after"), SAME)
def test_what_says_the_same_is_no_error(before: str, after: str) -> None:
    assert rule(before, after)[0] in ("benign", "void")
    assert rule(after, before)[0] in ("benign", "void")


CHANGED = [
    ("Pain in the left knee.", "Pain in the right knee."),
    ("Pain spreads from left to right.", "Pain spreads from right to left."),
    ("Left ear pain and right ear discharge.", "Right ear pain and left ear discharge."),
    (
        "The flu test was negative and the strep test was positive.",
        "The flu test was positive and the strep test was negative.",
    ),
    ("She denies fever and reports chills.", "She denies fever and denies chills."),
    ("She has no fever and has chills.", "She has no fever and has no chills."),
    ("She denies fever but has chills.", "She denies fever but has no chills."),
    ("She denies fever. She has chills.", "She denies fever. She has no chills."),
    ("No fever. No chills.", "No fever. Chills."),
    ("No fever, no chills.", "Fever, no chills."),
    ("No fever.\nChills and cough.", "No fever.\nNo chills and cough."),
    ("He takes two tablets.", "He takes four tablets."),
    ("Give 5 g.", "Give 5 mL."),
    ("Metformin 500 mg and lisinopril 10 mg.", "Metformin 10 mg and lisinopril 500 mg."),
]


@pytest.mark.parametrize(("before", "after"), [*CHANGED, *((b, a) for a, b in CHANGED)])
def test_a_changed_statement_stays_an_error(before: str, after: str) -> None:
    assert rule(before, after)[0] == "error"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("He has hepatitis A.", "He has hepatitis B."),
        ("Group A strep was found.", "Group B strep was found."),
        ("He has diabetes.", "He has diabetes insipidus."),
        ("He has diabetes mellitus.", "He has diabetes insipidus."),
        ("Stage IV cancer.", "Stage intravenous cancer."),
        ("Given metformin 500 mg daily.", "Given lisinopril 10 mg daily."),
        ("Metformin is discontinued.", "Hydrochlorothiazide is started."),
        ("He reports no fever.", "He reports cough."),
    ],
)
def test_another_statement_is_not_ruled_on(before: str, after: str) -> None:
    assert rule(before, after)[0] == rule(after, before)[0] == "void"


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("Possible pneumonia.", "Pneumonia.", "void"),
        ("Fever resolved.", "Fever.", "void"),
        ("Family history of gout.", "Gout.", "void"),
        ("He is unable to walk.", "He is to walk.", "void"),
        ("Give 5 to 10 mg.", "Give 10 mg.", "void"),
        ("Given 1 or 2 tablets.", "Given 2 tablets.", "void"),
        ("Take ½ tablet daily.", "Take tablet daily.", "void"),
        ("Nothing by mouth.", "By mouth.", "error"),
        ("He has hepatitis A.", "He has hepatitis.", "lossy"),
        ("Oral and IV fluids.", "Oral fluids.", "lossy"),
        ("Insulin glargine was given.", "Insulin was given.", "lossy"),
    ],
)
def test_what_only_removes_a_fact_says_less_and_nothing_else(before: str, after: str, kind: str) -> None:
    assert rule(before, after)[0] == kind


def test_the_rules_contradict_no_edit_that_the_wards_table_knows() -> None:
    """Every other phrasing and every wrong fact of some notes, both ways."""
    table, said = load_table(), Counter[tuple[bool, str]]()
    for case, _ in ward_cases("train", 8, 3):
        for wrong, edits in ((False, benign_edits(table, case)), (True, error_edits(table, case))):
            for edit in edits:
                before, after = case.sentences[edit.index].text, edit.sentence.text
                said.update((wrong, rule(*pair)[0]) for pair in ((before, after), (after, before)))
    assert not said[False, "error"] and not said[True, "benign"] and not said[True, "lossy"]
    assert said[False, "benign"] > 50 and said[True, "error"] > 50, "it does speak"


SIDES = st.sampled_from(["left", "right", "upper", "lower", "positive", "negative", "increased", "decreased"])
PHRASE = st.lists(st.sampled_from(["ear", "lung", "test", "pressure", "of", "the", "two"]), min_size=1, max_size=3)


@given(SIDES, PHRASE, SIDES, PHRASE, st.sampled_from(["and", "or"]))
def test_phrases_may_change_places(a: str, first: list[str], b: str, second: list[str], joint: str) -> None:
    x, y = " ".join([a, *first]), " ".join([b, *second])
    assert rule(f"There is {x} {joint} {y}.", f"There is {y} {joint} {x}.")[0] != "error"


@given(st.lists(st.sampled_from(["fever", "chills", "cough", "rash", "gout"]), min_size=2, max_size=5, unique=True))
def test_a_negation_may_be_repeated_over_its_list(findings: list[str]) -> None:
    before, after = ", ".join(findings), ", no ".join(findings)
    assert rule(f"She has no {before}.", f"She has no {after}.")[0] != "error"
    assert rule(f"She has {before}.", f"She has no {before}.") == ("error", "negation")


def test_the_notes_own_gold_error() -> None:
    gold = "He is 40. Vancomycin was given. He left."
    assert rule("Penicillin was given.", "Vancomycin was given.", error_text=gold) == ("error", "gold_error")
    assert rule("Penicillin was given.", "vancomycin was  given", error_text=gold) == ("error", "gold_error")
    assert rule("Penicillin was given.", "Cefazolin was given.", error_text=gold)[0] == "void"


def test_a_rewritten_note_is_void() -> None:
    note = Note("n", " ".join(f"w{i}x" for i in range(100)))
    assert make_referee("rules").rule(note, Mode.BENIGN, note.text[::-1]).kind is RulingKind.VOID


@given(st.text(), st.text())
def test_any_texts_get_a_ruling(text: str, modified: str) -> None:
    ruling = make_referee("rules").rule(Note("n", text), Mode.BENIGN, modified)
    assert ruling.kind in RulingKind
    same = make_referee("rules").rule(Note("n", text), Mode.BENIGN, f" {text}\n")
    assert same.kind is RulingKind.BENIGN


def test_words_that_exclude_each_other_are_never_synonyms() -> None:
    lexicon = shipped_lexicon()
    for a, b in [("left", "right"), ("hypertension", "hypotension"), ("with", "without"), ("no", "any")]:
        assert lexicon.tokens(a) != lexicon.tokens(b)
    assert lexicon.exclusive_class("left", "left") is None
    assert lexicon.exclusive_class("left", "right") == lexicon.exclusive_class("right", "left") == "laterality"


def test_what_a_constructor_raises_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REFEREES, "_classes", dict(REFEREES._classes))

    @register_referee
    class Mine(Referee):
        name: ClassVar[str] = "test-mine"

        def __init__(self, size: int = 1) -> None:
            len(size)  # type: ignore[arg-type]

        def rule(self, note: Note, mode: Mode, modified: str) -> Ruling:
            raise AssertionError

    with pytest.raises(TypeError, match="has no len"):
        make_referee("test-mine")
    with pytest.raises(ConfigError, match=r"colour.*it takes size"):
        make_referee("test-mine", colour=1)
