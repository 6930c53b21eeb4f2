"""The verifiable change filter."""

import re
import string
from types import ModuleType

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.game.align import align_words
from medserl.game.changes import changed_sentences
from medserl.game.cosmetic import same_words
from medserl.game.sentences import sentence_ends, sentence_texts, visible_words
from medserl.game.vcf import Reason, apply_vcf, leak_markers, shingle_similarity

NOTE = (
    "A 45-year-old man presents to Dr. Smith with a 3-day history of cough. He takes metformin 500 mg b.i.d. "
    "for type 2 diabetes. His blood pressure is 120/70 mm Hg. There is no rash. He denies chest pain and "
    "fever. Penicillin was prescribed after examination of the left ear."
)


def changed(old: str, new: str) -> str:
    assert old in NOTE
    return NOTE.replace(old, new, 1)


# ------------------------------------------------------------------------------------------- examples


def test_the_acceptance_example_passes() -> None:
    verdict = apply_vcf(
        "Patient has type 2 diabetes controlled with metformin.",
        "Patient has type 1 diabetes controlled with metformin.",
        min_jaccard=0.85,
    )
    assert verdict.passed and verdict.reason is None
    assert verdict.word_edits == 1
    assert verdict.jaccard == pytest.approx(49 / 55)
    assert (verdict.changed_sentence, verdict.sentence_count, verdict.position) == (0, 1, 0.0)


@pytest.mark.parametrize(
    ("modified", "reason"),
    [
        ("", Reason.EMPTY),
        (" \n", Reason.EMPTY),
        ("\u200b\ufeff", Reason.EMPTY),
        (NOTE, Reason.IDENTICAL),
        (NOTE.replace(" ", "\n"), Reason.IDENTICAL),
        (NOTE.replace("type", "ty\u00adpe\u200b"), Reason.IDENTICAL),
        (NOTE.replace("type", "ty\x9dpe\x07"), Reason.IDENTICAL),
        (changed("cough.", "cough"), Reason.COSMETIC),
        (
            changed("He denies chest pain and fever.", "She is well today apart from a headache."),
            Reason.TOO_MANY_EDITS,
        ),
        (changed("Penicillin", "Pneumonoultramicroscopicsilicovolcanoconiosis-" * 3), Reason.JACCARD_LOW),
        (NOTE.replace("cough", "rash").replace("left", "right"), Reason.SEVERAL_SENTENCES),
        (NOTE + " He also has gout. He smokes.", Reason.SEVERAL_SENTENCES),
        (changed("There is no rash.", "There is no INCORRECT rash."), Reason.LEAK),
    ],
)
def test_rejections(modified: str, reason: Reason) -> None:
    verdict = apply_vcf(NOTE, modified)
    assert not verdict.passed
    assert verdict.reason is reason


def test_a_change_too_small_for_a_long_note() -> None:
    long_note = " ".join(f"Finding {i} was seen in region {i * 7919 % 10007}." for i in range(400))
    verdict = apply_vcf(long_note, long_note.replace("Finding 3 ", "Finding 4 ", 1))
    assert verdict.reason is Reason.JACCARD_HIGH
    assert verdict.jaccard is not None and verdict.jaccard > 0.99
    assert apply_vcf(long_note, long_note.replace("Finding 3 ", "Finding 4 ", 1), max_jaccard=1.0).passed


@pytest.mark.parametrize(
    ("modified", "sentence"),
    [
        (changed("cough", "fever"), 0),
        (changed("type 2", "type 1"), 1),
        (changed("120/70 mm Hg.", "180/70 mm Hg."), 2),
        (changed("no rash", "a rash"), 3),
        (changed("denies", "reports"), 4),
        (changed("left", "right"), 5),
        (changed(" There is no rash.", ""), 3),
        (changed("There is", "He has gout. There is"), 3),
        (NOTE + " He has gout.", 5),
    ],
)
def test_one_changed_sentence_and_its_place(modified: str, sentence: int) -> None:
    verdict = apply_vcf(NOTE, modified)
    assert verdict.passed, verdict
    assert (verdict.changed_sentence, verdict.sentence_count) == (sentence, 6)
    assert verdict.position == sentence / 5


@pytest.mark.parametrize(
    "modified",
    [
        changed("There is no rash. He denies", "He denies there. Is no rash"),
        changed("There is no rash.", "There is no rash. No gout. No pain."),
        changed("There is no rash.", "He has gout. There is a rash."),
        changed(" There is no rash.", "").replace("cough", "fever"),
        NOTE.replace("metformin 500", "metformin 50").replace("no rash", "a rash"),
    ],
)
def test_two_changed_sentences_are_rejected(modified: str) -> None:
    verdict = apply_vcf(NOTE, modified)
    assert verdict.reason is Reason.SEVERAL_SENTENCES


def test_measures_stop_where_the_verdict_falls() -> None:
    assert apply_vcf(NOTE, "").word_edits is None
    many = apply_vcf(NOTE, NOTE[::-1])
    assert (many.reason, many.word_edits, many.jaccard) == (Reason.TOO_MANY_EDITS, None, None)
    low = apply_vcf("a b c", "a b d")
    assert low.reason is Reason.JACCARD_LOW
    assert low.word_edits == 1 and low.jaccard is not None and low.changed_sentence is None


@pytest.mark.parametrize(
    "bounds",
    [
        {"min_jaccard": 0.9, "max_jaccard": 0.8},
        {"min_jaccard": -0.1},
        {"max_jaccard": 1.1},
        {"min_jaccard": float("nan")},
        {"max_word_edits": 0},
    ],
)
def test_impossible_bounds_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="vcf"):
        apply_vcf("a", "b", **bounds)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------- cosmetics

SAME_WORDS = [
    ("child\u2019s", "child's"),
    ("fever, vomiting", "fever vomiting"),
    ("paracetamol", "Paracetamol"),
    ("THE LUNGS", "the lungs"),
    ("2\u20133", "2-3"),
    ("2 - 3 days", "2-3 days"),
    ("clear.", "clear"),
    ("clear.", "clear\u2026"),
    ("clear. Heart", "clear; heart"),
    ("normal", "n\u043ermal"),
    ("PAIN", "\u0420AIN"),
    ("normal", "norrnal"),
    ("250 mg.", "250 mg.!"),
    ("250", "\uff12\uff15\uff10"),
    ("10 mg", "1O mg"),
    ("10 mg", "l0 mg"),
    (".5 mg", "0.5 mg"),
    ("2mg", "2 mg"),
    ("50 %", "50%"),
    ("37 \u00b0C", "37 C"),
    ("10\u2079/L", "10^9/L"),
    ("\u00b5g", "\u03bcg"),
    ("follow-up", "follow up"),
    ("follow-up", "followup"),
    ("3-day", "3 day"),
    ("b.i.d.", "bid"),
    ("caf\u00e9", "cafe"),
    ("\ufb01ne", "fine"),
    ("well", "**well**"),
    ("grade 3", "\u201cgrade 3\u201d"),
    ("well", "well \U0001f642"),
    ("5.0 mg", "5 mg"),
    ("0.50 mg", "0.5 mg"),
    ("05 mg", "5 mg"),
    ("1.5 mg", "1\u00b75 mg"),
    ("5 mg", "\u0665 mg"),
    ("3+ edema", "3 + edema"),
    ("ill", "iIl"),
    ("80 mmHg", "80 mm Hg"),
    (">= 30", "\u226530"),
    ("+/- 2", "\u00b12"),
    ("oedema", "\u0153dema"),
    ("low dose", "\u0142\u00f8w \u0111ose"),
    ("normal", "n\u2c9frmal"),  # Coptic
    ("normal", "n\U0001042crmal"),  # Deseret
    ("normal", "\u0274o\u0280\u1d0da\u029f"),  # small capitals
    ("normal", "norma|"),
    ("paracetamol", "paracetamol\u2122"),
    ("11.2", "11\u066b2"),
]
OTHER_WORDS = [
    ("1.5", "15"),
    ("2-3", "23"),
    ("2 - 3", "2 3"),
    ("37 . 2", "37 2"),
    ("1.5", "1,5"),
    ("1,000", "1000"),
    ("10:30", "1030"),
    ("120/70", "12070"),
    ("10\u2079", "109"),
    ("1\u00bd", "11/2"),
    ("37\u00ba C", "370 C"),
    ("-5", "5"),
    ("5'", '5"'),
    ("50%", "50"),
    ("<120", ">120"),
    ("\u2265 30", "\u2264 30"),
    ("CD4+", "CD4-"),
    ("HER2-", "HER2"),
    ("mg/kg", "mg"),
    ("\u03bcg", "mg"),
    ("\u03b1", "\u03b2"),
    ("\u03bb chain", "k chain"),
    ("\u03b4 wave", "\u03b8 wave"),
    ("\u03bcmol", "mmol"),
    ("atypical", "a typical"),
    ("notable", "no table"),
    ("fall", "fail"),
    ("type 2", "type 1"),
    ("hyper", "hypo"),
    ("5.05", "5.5"),
    ("5.01", "5.1"),
    ("50", "5"),
    ("10.10.20", "10.1.20"),
    ("E11.10", "E11.1"),
    ("3+", "3"),
    ("<= 30", ">= 30"),
    ("80 mm Hg", "80 cm Hg"),
    ("5 milligrams", "5 mg"),
    ("anaemia", "anemia"),
]


@pytest.mark.parametrize("code", [0xAD, 0x34F, 0x115F, 0x180E, 0x200B, 0x3164, 0xFE0F, 0xFFA0, 0xE0041, 0xE0101])
def test_what_no_font_shows_is_no_edit(code: int) -> None:
    for changed in (f"no r{chr(code)}ash", f"no {chr(code)} rash", f"{chr(code)}no rash"):
        verdict = apply_vcf(NOTE, NOTE.replace("no rash", changed))
        assert verdict.reason is Reason.IDENTICAL


@pytest.mark.parametrize(("old", "new"), [*SAME_WORDS, *((b, a) for a, b in SAME_WORDS)])
def test_an_edit_of_the_writing_only_is_cosmetic(old: str, new: str) -> None:
    original = NOTE.replace("There is no rash.", f"There is {old} today.")
    verdict = apply_vcf(original, NOTE.replace("There is no rash.", f"There is {new} today."))
    assert verdict.reason is Reason.COSMETIC and not verdict.passed and verdict.word_edits
    assert same_words(old, new)


@pytest.mark.parametrize(("old", "new"), [*OTHER_WORDS, *((b, a) for a, b in OTHER_WORDS)])
def test_what_changes_a_value_or_a_word_is_not(old: str, new: str) -> None:
    original = NOTE.replace("There is no rash.", f"There is {old} today.")
    verdict = apply_vcf(original, NOTE.replace("There is no rash.", f"There is {new} today."), max_jaccard=1.0)
    assert verdict.passed, verdict


def test_a_change_of_words_beside_one_of_the_writing_passes() -> None:
    assert apply_vcf(NOTE, changed("no rash.", "a Rash")).passed
    assert apply_vcf(NOTE, NOTE.replace(",", "").replace(". He", "; he")).reason is Reason.COSMETIC


@given(st.text(string.ascii_letters + string.digits + " .,-/'\u00e9\u0430\u2013"), st.text(max_size=30))
def test_same_words_is_an_equivalence_with_case_and_full_stops(a: str, b: str) -> None:
    assert same_words(a, a)
    assert same_words(a, b) == same_words(b, a)
    if a.isascii():
        assert same_words(a, a.swapcase()) or re.search("[iloILO]", a)
        assert same_words(f"x {a}", f"x {a} .") or re.search(r"\W$", a)


# ----------------------------------------------------------------------------------------------- lines

LINES = (
    "History: asthma, gout, hip replacement\nMedications: salbutamol as needed, allopurinol 100 mg once daily\n"
    "Allergies: penicillin\nExam: heart sounds regular, lungs clear, abdomen soft, no swelling of the ankles\n"
    "Plan: keep overnight for observation and repeat the blood tests in the morning"
)


@pytest.mark.parametrize(
    ("modified", "sentence"),
    [
        (LINES.replace("100", "300"), 1),
        (LINES.replace("penicillin", "latex"), 2),
        (LINES.replace("penicillin", "penicillin, latex"), 2),
        (LINES.replace("penicillin", "latex").replace("\n", " "), 2),
        (LINES.replace("Allergies: penicillin\n", ""), 2),
        (LINES.replace("Exam:", "Smoking: never\nExam:"), 3),
        (LINES.replace("100", "300").replace("penicillin", "latex"), None),
        (LINES.replace("100", "300").replace("penicillin", "latex").replace("\n", " "), None),
        (LINES.replace("Exam:", "Smoking: never\nAlcohol: none\nExam:"), None),
        (LINES.replace("asthma", "cough").replace("overnight", "here"), None),
    ],
)
def test_a_line_is_a_sentence_for_the_filter_too(modified: str, sentence: int | None) -> None:
    verdict = apply_vcf(LINES, modified)
    assert verdict.passed == (sentence is not None), verdict
    assert verdict.sentence_count == len(sentence_texts(LINES)) == 5
    if sentence is None:
        assert verdict.reason is Reason.SEVERAL_SENTENCES
    else:
        assert verdict.changed_sentence == sentence


@pytest.mark.parametrize("mark", ["- {}", "\u2022 {}", "{}.", "(x) {}", "\n{}"])
def test_bullets_and_blank_lines_bound_sentences_for_the_filter(mark: str) -> None:
    drugs = ["aspirin 81 mg", "metformin 500 mg", "lisinopril 10 mg", "atorvastatin 40 mg", "salbutamol as needed"]
    note = "\n".join(mark.format(drug) for drug in drugs)
    assert apply_vcf(note, note.replace("500", "850")).passed
    two = note.replace("500", "850").replace("10 mg", "20 mg")
    assert apply_vcf(note, two, min_jaccard=0.5).reason is Reason.SEVERAL_SENTENCES


def test_another_organism_is_one_changed_sentence() -> None:
    note = (
        "A 52-year-old man has loose stools after a week of antibiotics. A stool sample was positive for C. Difficile "
        "and oral treatment was begun the same day. He has no fever."
    )
    assert apply_vcf(note, note.replace("C. Difficile", "H. Pylori")).passed


# ----------------------------------------------------------------------------------------------- leaks

LEAKS = [
    'final_answer: "CORRECT"',
    "Final answer: none",
    "generated_note:",
    "sentence_id: 3",
    "new_sentence:",
    "old_phrase:",
    "new phrase",
    "<think>",
    "</think>",
    "<|im_end|>",
    "</note>",
    "the injector",
    "Assessor:",
    "User: hello",
    "assistant:",
    "label: correct",
    "Label = incorrect",
    "answer: 'incorrect'",
    "mode: error",
    "Error: none",
    "(error mode)",
    "INCORRECT",
    "ERROR",
    "BENIGN",
    "introduced an error",
    "contains a medical error",
    "error_type: dose",
    "is_error: yes",
    "a\u017f\u017fe\u017f\u017for",
]
CLEAN = [
    "correct the hyponatremia",
    "an error of refraction",
    "a benign mass",
    "The answer is unclear.",
    "incorrect dose",
    "user of tobacco",
    "Nervous system: normal",
    "medical assistant present",
    "BP < 120",
    "final diagnosis",
    "labels on bottles",
    "a mode of transmission",
    "He corrected it.",
    "think",
    "benign prostatic hyperplasia",
]


@pytest.mark.parametrize("mark", LEAKS)
def test_a_leak_is_rejected(mark: str) -> None:
    verdict = apply_vcf(NOTE, changed("no rash", f"no {mark} rash"))
    assert verdict.reason is Reason.LEAK, leak_markers(mark)


@pytest.mark.parametrize("phrase", CLEAN)
def test_clinical_language_is_no_leak(phrase: str) -> None:
    assert leak_markers(f"There is {phrase} today") == []


def test_a_mark_of_the_original_is_not_the_edits_fault() -> None:
    note = NOTE.replace("no rash", "no ERROR rash")
    assert apply_vcf(note, note.replace("no ERROR rash", "an ERROR rash")).passed
    assert apply_vcf(note, note.replace("ERROR", "ERROR ERROR"), max_jaccard=1.0).reason is Reason.LEAK


# ------------------------------------------------------------------------------------------ properties

WORD = st.text(string.ascii_letters + string.digits + ".,()", min_size=1, max_size=8)
WORDS = st.lists(WORD, min_size=1, max_size=40)
GAP = st.sampled_from([" ", "  ", "\n", "\t", "\r\n\r\n", "\u00a0", "\u2003", " \u200b "])
BLANK = st.sampled_from([" ", "  ", "\t", "\u00a0", "\u2003", " \u200b "])
ANY_TEXT = st.text() | st.builds(" ".join, WORDS)


@st.composite
def respaced(draw: st.DrawFn, text: str, gap: st.SearchStrategy[str] = GAP) -> str:
    """The same words with other white space between, before and after them."""
    words = text.split()
    gaps = draw(st.lists(gap, min_size=len(words) + 1, max_size=len(words) + 1))
    return "".join(gap + word for gap, word in zip(gaps, [*words, ""], strict=True))


@given(st.data(), ANY_TEXT, ANY_TEXT)
def test_white_space_never_changes_a_verdict(data: st.DataObject, original: str, modified: str) -> None:
    if data.draw(st.booleans()):  # most pairs of random texts are far apart; look at near ones too
        words = original.split() or ["x"]
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(WORD)
        modified = " ".join(words)
    original = " ".join(original.split())
    verdict = apply_vcf(original, modified)
    # Lines of the original count, as they do in the prompt; other white space never does, nor any of the edit's.
    assert apply_vcf(data.draw(respaced(original, BLANK)), modified) == verdict
    assert apply_vcf(original, data.draw(respaced(modified))) == verdict


@given(st.data(), ANY_TEXT)
def test_identity_is_always_rejected(data: st.DataObject, text: str) -> None:
    verdict = apply_vcf(text, data.draw(respaced(text)))
    assert not verdict.passed
    assert verdict.reason is (Reason.IDENTICAL if visible_words(text) else Reason.EMPTY)


SENTENCE = st.lists(
    st.text(string.ascii_lowercase + "0123456789", min_size=1, max_size=8), min_size=3, max_size=12
).map(lambda words: " ".join(["The", *words, "end."]))
# Words glued to full stops, abbreviations, units: where a swap can make or break a sentence boundary.
MESSY = st.lists(
    st.sampled_from(
        ["He", "was", "given", "7.2", "mg.", "Dr.", "q.d.", "F.", "98", "She", "no.", "pain.", "The", "J."]
    ),
    min_size=30,
    max_size=60,
)


@given(
    MESSY | st.lists(WORD, min_size=30, max_size=60),
    WORD | st.sampled_from(["The", "end.", "mg."]),
    st.data(),
)
def test_one_swapped_word_passes_the_edit_and_sentence_checks(words: list[str], word: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words) - 1))
    swapped = [*words[:place], word, *words[place + 1 :]]
    assume(swapped != words and not same_words(" ".join(words), " ".join(swapped)))
    verdict = apply_vcf(" ".join(words), " ".join(swapped), min_jaccard=0.0, max_jaccard=1.0)
    assert verdict.reason in (None, Reason.LEAK)
    assert verdict.word_edits == 1
    assert verdict.changed_sentence is not None


@given(st.lists(SENTENCE, min_size=2, max_size=8), st.data())
def test_two_changed_sentences_never_pass(sentences: list[str], data: st.DataObject) -> None:
    first, second = sorted(data.draw(st.sets(st.integers(0, len(sentences) - 1), min_size=2, max_size=2)))
    edited = list(sentences)
    for index in (first, second):
        words = edited[index].split()
        place = data.draw(st.integers(1, len(words) - 2))
        kind = data.draw(st.sampled_from(["swap", "insert", "delete"]))
        # Upper-case words occur nowhere else, so no other reading of the edit is as short.
        words[place : place + (kind != "insert")] = [] if kind == "delete" else ["NEWLY"]
        edited[index] = " ".join(words)
    original, modified = " ".join(sentences), " ".join(edited)
    verdict = apply_vcf(original, modified, min_jaccard=0.0, max_jaccard=1.0)
    assert not verdict.passed
    # Two deletions can shift into one another only where the sentences repeat each other's words.
    assert verdict.reason in (Reason.SEVERAL_SENTENCES, Reason.IDENTICAL)


@given(MESSY | WORDS, st.data())
def test_equals_the_straightforward_version(textbook: ModuleType, words: list[str], data: st.DataObject) -> None:
    edited = list(words)
    for _ in range(data.draw(st.integers(0, 7))):
        place = data.draw(st.integers(0, len(edited)))
        width = data.draw(st.integers(0, 2))
        edited[place : place + width] = data.draw(st.lists(st.sampled_from(words) | WORD, max_size=2))
    pair = (" ".join(words), " ".join(edited))
    assert apply_vcf(*pair) == textbook.textbook(*pair)


def test_the_benchmarks_pairs_get_equal_verdicts(textbook: ModuleType) -> None:
    pairs = textbook.make_pairs(60, 150, seed=3)
    verdicts = [apply_vcf(*pair) for pair in pairs]
    assert verdicts == [textbook.trimmed(*pair) for pair in pairs]
    assert {verdict.passed for verdict in verdicts} == {True, False}


@given(ANY_TEXT, ANY_TEXT)
def test_any_texts_give_a_verdict(original: str, modified: str) -> None:
    verdict = apply_vcf(original, modified)
    assert verdict.passed == (verdict.reason is None)
    assert verdict.jaccard is None or 0.0 <= verdict.jaccard <= 1.0
    assert verdict.position is None or 0.0 <= verdict.position <= 1.0


@given(st.text(max_size=200), st.text(max_size=200))
def test_similarity_is_a_symmetric_similarity(a: str, b: str) -> None:
    value = shingle_similarity(a, b)
    assert value == shingle_similarity(b, a)
    assert 0.0 <= value <= 1.0
    assert shingle_similarity(a, a) == 1.0


@given(st.text("ab é\u0142", min_size=1, max_size=60), st.integers(0, 59), st.text("ab é\u0142", max_size=4))
@example("abé", 1, "\u0142")
def test_similarity_of_an_edit_is_exact(text: str, place: int, new: str) -> None:
    """Hashing shared parts once, and integers in place of strings, changes nothing."""
    edited = text[:place] + new + text[place + 1 :]
    verdict = apply_vcf(text, edited, min_jaccard=0.0, max_jaccard=1.0)
    if verdict.jaccard is not None:
        joined = (" ".join(visible_words(text)), " ".join(visible_words(edited)))
        assert verdict.jaccard == shingle_similarity(*joined)


@given(WORDS, WORDS)
def test_changed_sentences_is_zero_only_for_equal_words(a: list[str], b: list[str]) -> None:
    alignment = align_words(a, b, 80)
    assert alignment is not None
    change = changed_sentences(a, b, alignment)
    assert (change.changed == 0) == (a == b)
    assert 0 <= change.first < change.total == len(sentence_ends(a))


# --------------------------------------------------------------------------------------- size and malice


def _steps_in_filter(original: str, modified: str, bound: int) -> int:
    """Word comparisons that the alignment makes: what grows with the texts."""
    count = 0

    class Counted(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal count
            count += 1
            return str.__eq__(self, other)  # type: ignore[arg-type]

    align_words([Counted(w) for w in original.split()], [Counted(w) for w in modified.split()], bound)
    return count


@pytest.mark.parametrize(
    ("original", "modified"),
    [
        ("a " * 20_000, "b " + "a " * 20_000),
        ("a " * 20_000, "a " * 19_995 + "b"),
        ("a b " * 10_000, "b a " * 10_000),
        ("x " + "a " * 20_000 + "y", "y " + "a " * 20_000 + "x"),
    ],
)
def test_comparisons_grow_linearly(original: str, modified: str) -> None:
    """At most one pass along each of the 2·6+1 diagonals, whatever the texts repeat."""
    words = max(len(original.split()), len(modified.split()))
    assert _steps_in_filter(original, modified, 6) <= 3 * 13 * (words + 20)


MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("original", "modified"),
    [
        (NOTE * (MEGABYTE // len(NOTE)), NOTE * (MEGABYTE // len(NOTE)) + " He has gout."),
        ("a" * MEGABYTE, "a" * (MEGABYTE - 1) + "b"),
        ("a " * (MEGABYTE // 2), "b " + "a " * (MEGABYTE // 2)),
        ("." * MEGABYTE, "." * (MEGABYTE - 1) + "!"),
        (". " * (MEGABYTE // 2), "! " * (MEGABYTE // 2)),
        ("(" * MEGABYTE + "x.", "(" * MEGABYTE + "y."),
        (")" * MEGABYTE, ")" * (MEGABYTE - 1) + "."),
        ("a.\u200b" * (MEGABYTE // 3), "a.\u200b" * (MEGABYTE // 3) + " \U0001f600"),
        ("<|" * (MEGABYTE // 2), "<|" * (MEGABYTE // 2) + "x"),
        ("word " + "< think " * (MEGABYTE // 8), "word2 " + "< think " * (MEGABYTE // 8)),
        ("a.b." * (MEGABYTE // 4), "a.b." * (MEGABYTE // 4) + " c"),
        ("\ud800" * 1000, "\ud800" * 1001),
    ],
    ids=range(12),
)
def test_huge_and_hostile_texts_give_a_verdict(original: str, modified: str) -> None:
    verdict = apply_vcf(original, modified, min_jaccard=0.0, max_jaccard=1.0)
    assert verdict.passed == (verdict.reason is None)
