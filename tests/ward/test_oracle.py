"""The oracle: benign edits never become errors, wrong facts always do, whatever the mode."""

import random
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medserl.game.labels import Mode
from medserl.game.records import Note
from medserl.game.referee import RulingKind, make_referee
from medserl.ward.cases import Case, Sentence, Slot, benign_edits, error_edits
from medserl.ward.facts import Fact, reader, tokens
from medserl.ward.generator import SPLITS, GoldCase, ward_cases, ward_notes
from medserl.ward.oracle import OracleReferee
from medserl.ward.replaced import DECISIVE
from medserl.ward.table import load_table

TABLE = load_table()
ORACLE = OracleReferee()
TEXT = (
    "A 54-year-old man presents with fever and productive cough for 3 days. Denies dysuria. "
    "Exam shows crackles at the right lung base. Workup shows a right lower lobe infiltrate on chest X-ray. "
    "Assessment: community-acquired pneumonia. Started on ceftriaxone 1 g IV daily."
)


def ruling(old: str, new: str) -> tuple[str, str]:
    assert TEXT.count(old) == 1, old
    found = ORACLE.rule(Note("n", TEXT), Mode.BENIGN, TEXT.replace(old, new))
    return found.kind.value, found.reason


def test_every_edit_whose_truth_the_table_gives_is_ruled_so() -> None:
    for gold in [*ward_cases("validation", 28, 2), *ward_cases("test_heldout", 28, 2)]:
        note = Note("n", gold.case.text)
        for edit in [*benign_edits(TABLE, gold.case), *error_edits(TABLE, gold.case)]:
            kind = RulingKind.BENIGN if edit.error_type is None else RulingKind.ERROR
            for mode in Mode:
                found = ORACLE.rule(note, mode, edit.apply(gold.case))
                assert found.kind is kind, (found, note.text, edit.sentence.text)


def drawn_case(data: st.DataObject, *kinds: str) -> Case:
    """A case of any split with a sentence of each of the kinds."""
    split, seed = data.draw(st.sampled_from(SPLITS)), data.draw(st.integers(0, 15))
    cases = [gold.case for gold in cached_cases(split, seed)]
    fitting = [case for case in cases if {s.kind for s in case.sentences} >= set(kinds)]
    assume(fitting)
    return data.draw(st.sampled_from(fitting))


@cache
def cached_notes() -> list[Note]:
    return ward_notes("train", 3000, 9)


@cache
def cached_cases(split: str, seed: int) -> list[GoldCase]:
    return ward_cases(split, 12, seed)


def sentence_of(case: Case, kind: str) -> Sentence:
    return next(sentence for sentence in case.sentences if sentence.kind == kind)


def rule(case: Case, old: str, new: str, mode: Mode = Mode.BENIGN) -> tuple[str, str]:
    """The ruling on the case's text with the sentence ``old`` replaced by ``new``."""
    assert case.text.count(old) == 1, old
    found = ORACLE.rule(Note("n", case.text), mode, case.text.replace(old, new))
    return found.kind.value, found.reason


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_synonyms_are_benign_and_wrong_facts_errors_with_their_reason(data: st.DataObject) -> None:
    case = drawn_case(data)
    note = Note("n", case.text)
    edits = [*benign_edits(TABLE, case), *error_edits(TABLE, case)]
    edit = data.draw(st.sampled_from(edits))
    for mode in Mode:
        found = ORACLE.rule(note, mode, edit.apply(case))
        expected = [("benign", "same facts") if edit.error_type is None else ("error", edit.slot)]
        if edit.error_type is None and edit.slot == "specimen":  # some conditions have two
            expected.append(("benign", "facts that fit"))
        assert (found.kind.value, found.reason) in expected, edit


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_another_writing_of_the_same_dose_is_benign(data: st.DataObject) -> None:
    case = drawn_case(data, "drug")
    sentence = sentence_of(case, "drug")
    dose, unit = float(sentence.slots["dose"].concept), sentence.slots["unit"].concept
    grams = {"mg": 1e-3, "g": 1.0, "mcg": 1e-6}
    assume(unit in grams)
    other = data.draw(st.sampled_from(sorted(grams)))
    number = f"{dose * grams[unit] / grams[other]:.12f}".rstrip("0").rstrip(".")
    written = data.draw(st.sampled_from([f"{number} {other}", f"{number}{other}", f"{number} {other.upper()}"]))
    before = f"{sentence.slots['dose'].phrase} {sentence.slots['unit'].phrase}"
    assert sentence.text.count(before) == 1
    assert rule(case, sentence.text, sentence.text.replace(before, written))[0] == "benign"


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_complaints_in_another_order_are_benign(data: st.DataObject) -> None:
    case = drawn_case(data)
    sentence = sentence_of(case, "presentation")
    first, second = sentence.slots["complaint"], sentence.slots["complaint_2"]
    swapped = sentence.with_slot("complaint", second).with_slot("complaint_2", first)
    assert rule(case, sentence.text, swapped.text) == ("benign", "same facts")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_list_in_another_order_is_no_error(data: st.DataObject) -> None:
    """Where the table has no such phrasing the oracle may not know the words; it never calls them wrong."""
    case = drawn_case(data)
    lists = [(s, name, slot) for s in case.sentences for name, slot in s.slots.items() if " and " in slot.phrase]
    assume(lists)
    sentence, name, slot = data.draw(st.sampled_from(lists))
    left, right = slot.phrase.split(" and ", 1)
    swapped = sentence.with_slot(name, replace(slot, phrase=f"{right} and {left}"))
    assert rule(case, sentence.text, swapped.text)[0] != "error"


@given(st.data(), st.sampled_from(["drug", "organism", "diagnosis", "treatment", "management"]))
@settings(max_examples=120, deadline=None)
def test_any_other_term_of_the_table_is_an_error(data: st.DataObject, field: str) -> None:
    """Not only the wrong terms that the condition lists: there is one right term."""
    case = drawn_case(data, field)
    sentence = sentence_of(case, field)
    slot = sentence.slots[field]
    sided = "side" in sentence.slots
    others = [phrase for concept, phrases in TABLE.concepts[field].items() if concept != slot.concept
              for phrase in phrases if sided or "{side}" not in phrase]  # fmt: skip
    wrong = sentence.with_slot(field, replace(slot, phrase=data.draw(st.sampled_from(others))))
    assert rule(case, sentence.text, wrong.text, data.draw(st.sampled_from(list(Mode)))) == ("error", field)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_other_side_is_an_error(data: st.DataObject) -> None:
    case = drawn_case(data)
    sided = [sentence for sentence in case.sentences if sentence.has_side]
    assume(sided)
    sentence = data.draw(st.sampled_from(sided))
    slot = sentence.slots["side"]
    other = "left" if slot.concept == "right" else "right"
    phrase = data.draw(st.sampled_from(TABLE.concepts["side"][other]))
    wrong = sentence.with_slot("side", Slot("side", other, phrase))
    assert rule(case, sentence.text, wrong.text) == ("error", "side")


@given(st.data(), st.sampled_from(["denial", "presentation"]))
@settings(max_examples=40, deadline=None)
def test_a_negation_put_in_or_taken_away_is_an_error(data: st.DataObject, kind: str) -> None:
    case = drawn_case(data, kind)
    sentence = sentence_of(case, kind)
    symptom = sentence.slots["denied" if kind == "denial" else "complaint"].phrase
    said = [f"Reports {symptom}.", f"Has {symptom}."] if kind == "denial" else [f"Denies {symptom}.", f"No {symptom}."]
    assert rule(case, sentence.text, data.draw(st.sampled_from(said))) == ("error", "negation")


@given(st.data(), st.floats(1.05, 1000), st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_dose_out_of_the_tables_range_is_an_error(data: st.DataObject, factor: float, above: bool) -> None:
    case = drawn_case(data, "drug")
    drug = TABLE.conditions[case.patient.condition].drug
    assert drug is not None
    sentence = sentence_of(case, "drug")
    dose = drug.high * factor if above else drug.low / factor
    wrong = sentence.with_slot("dose", replace(sentence.slots["dose"], phrase=f"{dose:.9f}".rstrip("0").rstrip(".")))
    assert rule(case, sentence.text, wrong.text) == ("error", "dose")


@given(st.integers(0, 1000), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_reformatting_never_becomes_an_error(seed: int, rng: random.Random) -> None:
    """Case, white space, commas and stops between words change no fact."""
    for gold in ward_cases("train", 3, seed):
        words = gold.case.text.split(" ")
        changed = [rng.choice((word, word.upper(), word.lower(), word + " ", word + ",")) for word in words]
        found = ORACLE.rule(Note("n", gold.case.text), Mode.ERROR, " ".join(changed))
        assert found.kind in (RulingKind.BENIGN, RulingKind.VOID), found
        assert found.kind is RulingKind.BENIGN or found.reason == "unknown words"


@pytest.mark.parametrize(
    ("old", "new", "kind", "reason"),
    [
        ("crackles at the right lung base", "crackles at the left lung base", "error", "side"),
        ("Denies dysuria", "Reports dysuria", "error", "negation"),
        ("Denies dysuria", "Denies fever", "error", "negation"),
        ("1 g IV", "10 g IV", "error", "dose"),
        ("1 g IV", "1 mg IV", "error", "dose"),
        ("1 g IV", "1000 mg IV", "benign", "facts that fit"),
        ("1 g IV", "1,000 mg IV", "benign", "facts that fit"),
        ("1 g IV", "2 g IV", "benign", "facts that fit"),
        ("1 g IV", "1 g PO", "error", "route"),
        ("IV daily", "IV TID", "error", "frequency"),
        ("ceftriaxone", "Rocephin", "benign", "same facts"),
        ("ceftriaxone", "fluconazole", "error", "drug"),
        ("community-acquired pneumonia", "CAP", "benign", "same facts"),
        ("community-acquired pneumonia", "pulmonary embolism", "error", "diagnosis"),
        ("for 3 days", "for three days", "benign", "same facts"),
        ("for 3 days", "for 72 hours", "benign", "facts that fit"),
        ("for 3 days", "for 3 months", "void", "duration outside the condition's range"),
        ("fever and productive cough", "productive cough and fever", "benign", "same facts"),
        ("fever and productive cough", "fever and chills", "benign", "facts that fit"),
        ("fever and productive cough", "fever", "lossy", "a fact is lost"),
        ("fever and productive cough", "fever and tremor", "void", "a symptom that the table does not know here"),
        ("IV daily", "IV daily with food", "void", "unknown words"),
        ("54-year-old man", "54-year-old woman", "benign", "facts that fit"),
        ("right lower lobe infiltrate on", "right lower lobe shadow on", "void", "unknown words"),
    ],
)
def test_single_changes(old: str, new: str, kind: str, reason: str) -> None:
    assert ruling(old, new) == (kind, reason)


def test_a_sex_that_cannot_have_the_condition_is_an_error() -> None:
    text = (
        "21 y/o woman presents with pelvic pain and dizziness for 4 hours. Exam shows left adnexal tenderness. "
        "Diagnosed with ruptured ectopic pregnancy. Plan: serial beta-hCG."
    )
    found = ORACLE.rule(Note("n", text), Mode.BENIGN, text.replace("woman", "man"))
    assert (found.kind, found.reason) == (RulingKind.ERROR, "sex")


def test_text_that_is_not_of_the_ward_is_void() -> None:
    found = ORACLE.rule(Note("n", "The weather is fine today."), Mode.ERROR, "The weather is bad today.")
    assert found.kind is RulingKind.VOID


def test_longest_phrase_wins() -> None:
    read = reader(TABLE).sentence
    assert read("Plan: headache diary.").facts == {Fact("management", "headache diary"): 1}
    assert read("Swab positive for influenza A.").facts == {Fact("organism", "influenza A virus"): 1}
    assert read("Diagnosed with influenza.").facts == {Fact("diagnosis", "influenza"): 1}
    assert read("Pulse 66/min, BP 120/80.").facts == {Fact("pulse", "66"): 1, Fact("pressure", "120/80"): 1}


def test_tokens_ignore_case_punctuation_and_thousands() -> None:
    assert tokens("Rx: ASA 1,000 mg (x1); q.d.") == ("rx", "asa", "1000", "mg", "x1", "q", "d")


def test_oracle_is_registered() -> None:
    assert isinstance(make_referee("oracle"), OracleReferee)


def test_words_in_the_place_of_a_decisive_fact_that_name_nothing_are_an_error() -> None:
    assert ruling("community-acquired pneumonia", "seven purple elephants") == ("error", "diagnosis")
    assert ruling("ceftriaxone", "artesunic") == ("error", "drug")


@pytest.mark.parametrize(
    ("condition_phrase", "new", "field"),
    [
        ("pernicious anemia", "pernicious depression", "diagnosis"),
        ("anticoagulation for 3 months", "anticoagulation for 2 months", "management"),
        ("pulmonary tuberculosis", "lung tuberculosis", None),
        ("HbA1c in 3 months", "another HbA1c in 3 months", None),
    ],
)
def test_what_a_phrase_is_about_and_its_time_decide(condition_phrase: str, new: str, field: str | None) -> None:
    note = next(n for n in cached_notes() if condition_phrase in n.text)
    found = ORACLE.rule(note, Mode.ERROR, note.text.replace(condition_phrase, new))
    if field is None:
        assert found.kind is not RulingKind.ERROR
    else:
        assert (found.kind, found.reason) == (RulingKind.ERROR, field)


def test_a_phrasings_single_letters_are_near_no_other_word() -> None:
    """The "S." of "S. pneumoniae" is in "spreading" too."""
    note = next(n for n in cached_notes() if "positive for S. pneumoniae." in n.text)
    found = ORACLE.rule(note, Mode.ERROR, note.text.replace("S. pneumoniae.", "shallow spreading."))
    assert (found.kind, found.reason) == (RulingKind.ERROR, "organism")


@pytest.mark.parametrize("new", ["comunity-aquired pneumnia", "pneumonia of the lower lobe"])
def test_words_near_the_fact_that_they_replace_stay_undecided(new: str) -> None:
    """A slip of spelling, or a phrasing that the table does not have."""
    assert ruling("community-acquired pneumonia", new)[0] != "error"


@pytest.mark.parametrize(
    ("phrase", "new", "kind", "reason"),
    [
        ("hip fracture", "hip fixation", "error", "diagnosis"),
        ("hip fracture", "fracture of the leg", "void", "unknown words"),
        ("wrist splint", "knee splint", "error", "treatment"),
        ("thyroid uptake scan", "thyroid uptake goiter", "error", "management"),
        ("severe malaria", "severe falciparum", "lossy", "a fact is lost"),
        ("P. falciparum", "Plasmodium", "lossy", "a fact is lost"),
        ("orally q6h", "orally q32h", "error", "frequency"),
        ("orally q6h", "orally q6h four times", "benign", "words of the same concept"),
        ("orally q6h", "orally q assessmenth", "void", "unknown words"),
        ("severe malaria", "severe hours", "error", "diagnosis"),
        ("infective endocarditis", "meningococcal endocarditis", "error", "diagnosis"),
        ("septic arthritis", "no septic joint pain", "error", "diagnosis"),
        ("acute CHF", "C. albicans", "error", "diagnosis"),
        ("anticoagulation for 3 months", "anticoagulation for 3 diabetes", "error", "management"),
        ("1 g IV daily", "1 HbA1c check", "error", "dose"),
        ("septic arthritis", "arthritis", "lossy", "a fact is lost"),
        ("smoking cessation and spirometry", "smoking cessation", "lossy", "a fact is lost"),
        ("gout flare", "acute gout arthritis", "benign", "words of the same concept"),
        ("low-iron anemia", "ferrous deficiency anemia", "void", "unknown words"),
        ("CTS", "CTS flare", "void", "unknown words"),
    ],
)
def test_what_stands_in_a_decisive_facts_place_decides(phrase: str, new: str, kind: str, reason: str) -> None:
    note = next(n for n in cached_notes() if f" {phrase}." in n.text)
    found = ORACLE.rule(note, Mode.ERROR, note.text.replace(f" {phrase}.", f" {new}."))
    assert (found.kind.value, found.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("new", "kind", "reason"),
    [
        ("1 sensitivity IV daily", "error", "dose"),
        ("2 sensitivity IV daily", "error", "dose"),
        ("1000,000 mg IV daily", "error", "dose"),
        ("1kg IV daily", "error", "dose"),
        ("1 g IV every 2 hours", "error", "frequency"),
        ("1 g IV dailyh", "void", "unknown words"),
    ],
)
def test_what_stands_in_a_doses_place_decides(new: str, kind: str, reason: str) -> None:
    assert ruling("1 g IV daily", new) == (kind, reason)


def test_a_specimen_of_another_condition_is_an_error() -> None:
    note = next(n for n in cached_notes() if "Urethral swab" in n.text)
    found = ORACLE.rule(note, Mode.ERROR, note.text.replace("Urethral swab", "Synovial swab"))
    assert (found.kind.value, found.reason) == ("error", "specimen")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_words_of_a_concepts_phrasings_put_together_never_make_an_error(data: st.DataObject) -> None:
    """Words of one phrasing, then words of another, in their order."""
    case = drawn_case(data)
    slots = [(s, name) for s in case.sentences for name in s.slots if name in DECISIVE]
    assume(slots)
    sentence, name = data.draw(st.sampled_from(slots))
    phrasings = TABLE.concepts[name][sentence.slots[name].concept]
    words = []
    for phrasing in data.draw(st.lists(st.sampled_from(phrasings), min_size=1, max_size=2)):
        words += [word for word in phrasing.split() if "{" in word or data.draw(st.booleans())]
    assume(any(len(word.strip("{}.")) > 1 for word in words))
    new = sentence.with_slot(name, replace(sentence.slots[name], phrase=" ".join(words)))
    found = rule(case, sentence.text, new.text)
    assert found[0] != "error", (sentence.text, words)


def test_another_phrasing_beside_something_undecided_stays_undecided() -> None:
    old, new = "Assessment: community-acquired pneumonia.", "Assessment: acquired pneumonia with tremor."
    assert ruling(old, new)[0] == "void"


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_words_left_out_never_make_an_error(data: st.DataObject) -> None:
    """A diagnosis, treatment or plan that says less is lossy, undecided, or benign where that is a phrasing too."""
    case = drawn_case(data)
    slots = [(s, name) for s in case.sentences for name in s.slots if name in ("diagnosis", "treatment", "management")]
    assume(slots)
    sentence, name = data.draw(st.sampled_from(slots))
    words = sentence.slots[name].phrase.split()
    assume(len(words) > 1)
    left_out = data.draw(st.integers(0, len(words) - 1))
    assume("{" not in words[left_out])
    shorter = " ".join(words[:left_out] + words[left_out + 1 :])
    found = rule(case, sentence.text, sentence.with_slot(name, replace(sentence.slots[name], phrase=shorter)).text)
    assert found[0] != "error", (sentence.text, shorter)
