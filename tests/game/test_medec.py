"""The game on MEDEC's public notes; runs where MEDSERL_MEDEC_DIR names their folder."""

import os
from collections import Counter
from pathlib import Path

import pytest

from medserl.game.labels import Mode
from medserl.game.notes import check_disjoint, load_notes_with_report
from medserl.game.parse import InjectorEdit, parse_edit
from medserl.game.play import GameRules
from medserl.game.referee import RulingKind, make_referee
from medserl.game.sentences import sentence_texts, split_sentences
from medserl.game.vcf import Reason, apply_vcf

pytestmark = pytest.mark.medec


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(os.environ["MEDSERL_MEDEC_DIR"])


def test_the_published_files_load(folder: Path) -> None:
    validation, report = load_notes_with_report(folder / "MEDEC-MS-ValidationSet.csv")
    assert (report.rows, report.with_error, dict(report.dropped)) == (574, 319, {})
    pairs, pairs_report = load_notes_with_report(folder / "medec_ms_train_pairs.jsonl")
    assert pairs_report.with_error == len(pairs) == 304
    check_disjoint({"train": pairs, "validation": validation})


@pytest.mark.parametrize(
    ("file", "pairs", "passed"), [("MEDEC-MS-ValidationSet.csv", 319, 274), ("medec_ms_train_pairs.jsonl", 304, 251)]
)
def test_real_errors_pass_the_filter(folder: Path, file: str, pairs: int, passed: int) -> None:
    """As docs/game.md says; what does not has too many words changed, and none is called cosmetic."""
    notes, _ = load_notes_with_report(folder / file)
    verdicts = [apply_vcf(note.text, note.error_text) for note in notes if note.error_text is not None]
    assert (len(verdicts), sum(verdict.passed for verdict in verdicts)) == (pairs, passed)
    reasons = Counter(verdict.reason for verdict in verdicts if not verdict.passed)
    assert reasons[Reason.COSMETIC] == 0 and reasons[Reason.TOO_MANY_EDITS] >= 0.8 * sum(reasons.values())


def test_the_gold_error_is_an_error_and_can_be_written_as_an_edit(folder: Path) -> None:
    """Replacing the split sentence that holds the gold correction rebuilds the note's error variant."""
    notes, _ = load_notes_with_report(folder / "medec_ms_train_pairs.jsonl")
    rebuilt = 0
    for note in notes:
        assert note.error_text is not None and note.error_sentence and note.corrected_sentence
        assert make_referee("rules").rule(note, Mode.ERROR, note.error_text).kind is RulingKind.ERROR
        corrected = " ".join(note.corrected_sentence.split())
        for index, sentence in enumerate(sentence_texts(note.text)):
            new = sentence.replace(corrected, " ".join(note.error_sentence.split()))
            edit = parse_edit(f"sentence_id: {index}\nnew_sentence: {new}", note.text)
            assert isinstance(edit, InjectorEdit)
            if corrected in sentence and edit.modified.split() == note.error_text.split():
                rebuilt += 1
                break
    assert rebuilt / len(notes) >= 0.85


def test_no_sentence_is_cut_inside_a_measurement(folder: Path) -> None:
    notes, _ = load_notes_with_report(folder / "MEDEC-MS-ValidationSet.csv")
    for note in notes:
        for span in split_sentences(note.text):
            sentence = note.text[span.start : span.end]
            assert not sentence.startswith(("Hg", "/", "%", ",")), sentence
            assert not sentence.endswith((" mm", "/", " Dr.", " vs.")), sentence


def test_judging_a_reply_with_the_default_rules(folder: Path) -> None:
    notes, _ = load_notes_with_report(folder / "MEDEC-MS-ValidationSet.csv")
    rules = GameRules()
    for note in notes[:50]:
        modified, verdict = rules.judge(f"sentence_id: 0\nnew_sentence: {sentence_texts(note.text)[0]}", note.text)
        assert modified is not None
        assert not verdict.passed and verdict.word_edits == 0
