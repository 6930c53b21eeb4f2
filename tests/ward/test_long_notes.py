"""Long notes say what the short ones say, and the oracle rules on them alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medserl.errors import ConfigError
from medserl.game.labels import Mode
from medserl.game.referee import RulingKind
from medserl.game.sentences import sentence_texts
from medserl.ward import OracleReferee, long_notes, ward_notes
from medserl.ward.facts import reader
from medserl.ward.long_notes import CONTEXT, LEAST_WORDS, MOST_WORDS, lengthened
from medserl.ward.table import load_table

TABLE = load_table()
SHORT = ward_notes("train", 60, 5, TABLE)
LONG = [lengthened(note, TABLE, 1) for note in SHORT]


def test_context_has_no_fact_of_the_shipped_table_and_is_one_sentence_each() -> None:
    assert len(set(CONTEXT)) == len(CONTEXT)
    for sentence in CONTEXT:
        assert not reader(TABLE).sentence(sentence).facts, sentence
        assert list(sentence_texts(sentence)) == [sentence]


def test_long_notes_have_a_usual_length_and_one_wrong_sentence() -> None:
    for short, note in zip(SHORT, LONG, strict=True):
        assert note.error_text is not None
        assert LEAST_WORDS <= len(note.text.split()) <= MOST_WORDS
        right, wrong = sentence_texts(note.text), sentence_texts(note.error_text)
        assert [(a, b) for a, b in zip(right, wrong, strict=True) if a != b] == [
            (note.corrected_sentence, note.error_sentence)
        ]
        assert [sentence for sentence in right if sentence not in CONTEXT] == list(sentence_texts(short.text))
    assert lengthened(SHORT[0], TABLE, 1) == LONG[0] != lengthened(SHORT[0], TABLE, 2)


def test_the_oracle_rules_on_long_notes_as_on_short_ones() -> None:
    oracle = OracleReferee()
    for short, note in zip(SHORT, LONG, strict=True):
        assert short.error_text is not None and note.error_text is not None
        assert oracle.rule(note, Mode.BENIGN, note.error_text).kind is RulingKind.ERROR
        mended = [replace(made, text=made.error_text) for made in (short, note)]
        assert oracle.rule(mended[1], Mode.ERROR, note.text) == oracle.rule(mended[0], Mode.ERROR, short.text)


def test_a_note_without_an_error_stays_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lengthened(replace(SHORT[0], error_text=None), TABLE, 1).error_text is None
    monkeypatch.setattr(long_notes, "CONTEXT", CONTEXT[:3])
    with pytest.raises(ConfigError, match="leave --long out"):
        lengthened(SHORT[0], TABLE, 1)
