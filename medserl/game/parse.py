"""Strict parsers for what the two roles write.

Nothing here guesses: a reply that does not follow its format is a parse failure with a sentence that says
why.
"""

import re
from dataclasses import dataclass

from medserl.game.labels import Label
from medserl.game.sentences import split_sentences

_OPEN, _CLOSE = "<think>", "</think>"
_SENTENCE_ID = re.compile(r"^[ \t]*sentence_id:[ \t]*([0-9]{1,6})[ \t\r]*$", re.MULTILINE)
_NEW_SENTENCE = re.compile(r"^[ \t]*new_sentence:(.*)$", re.MULTILINE)
_GENERATED_NOTE = re.compile(r"^[ \t]*generated_note:", re.MULTILINE)
_ERROR_SENTENCE = re.compile(r"^[ \t]*error_sentence_id:[ \t]*(-1|[0-9]{1,6})[ \t\r]*$", re.MULTILINE)
_CORRECTED = re.compile(r"^[ \t]*corrected_sentence:(.*)$", re.MULTILINE)
_NO_CORRECTION = "NA"
NO_SENTENCE = -1
"""MEDEC's error sentence id of a text without an error."""
_FINAL_ANSWER = re.compile(r'final_answer:[ \t]*"(CORRECT|INCORRECT)"')


@dataclass(frozen=True, slots=True)
class InjectorEdit:
    """A parsed injector reply: the whole edited note, and for the edit format which sentence was named."""

    modified: str
    sentence_id: int | None = None
    new_sentence: str | None = None


@dataclass(frozen=True, slots=True)
class FullAnswer:
    """An assessor's verdict with the place and the correction of the error, MEDEC's three subtasks."""

    answer: Label
    error_sentence_id: int
    """-1 with CORRECT, else an index into the sentences that the prompt numbered."""
    corrected_sentence: str | None
    """None with CORRECT."""


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A reply that does not follow its format, and why."""

    why: str


def strip_think(text: str) -> str:
    """The answer part of a reply: everything outside ``<think>…</think>``.

    After an unclosed ``<think>`` nothing is answer; before a stray ``</think>`` (a chat template may have
    opened the block in the prompt) nothing is either.
    """
    outside: list[str] = []
    rest = 0
    while rest >= 0:  # not an expression: "<think>" repeated without an end would take quadratic time
        opened = text.find(_OPEN, rest)
        outside.append(text[rest:] if opened < 0 else text[rest:opened])
        closed = text.find(_CLOSE, opened) if opened >= 0 else -1
        rest = closed + len(_CLOSE) if closed >= 0 else -1
    # What was outside may close or open once more, by a stray tag or by two halves that now meet.
    return "".join(outside).rpartition(_CLOSE)[2].partition(_OPEN)[0].strip()


def thinking_part(text: str) -> str:
    """What `strip_think` removes, without the tags; for length statistics."""
    _, tag, rest = text.partition(_OPEN)
    if not tag:
        return text.rpartition(_CLOSE)[0].strip()
    return (rest.rpartition(_CLOSE)[0] if _CLOSE in rest else rest).strip()


def parse_edit(text: str, original_note: str) -> InjectorEdit | ParseFailure:
    """Parse ``sentence_id: N`` and, after it, ``new_sentence: …`` on one line; rebuild the note.

    Sentences are counted from 0 as `split_sentences` finds them in ``original_note``; every other sentence
    and all white space between sentences stay as they are, byte for byte.
    """
    answer = strip_think(text)
    ids = _SENTENCE_ID.findall(answer)
    if len(ids) != 1:
        return ParseFailure(f"expected one line 'sentence_id: N', found {len(ids)}")
    news = _NEW_SENTENCE.findall(answer, _SENTENCE_ID.search(answer).end())  # type: ignore[union-attr]
    if len(news) != 1:
        return ParseFailure(f"expected one line 'new_sentence: …' after sentence_id, found {len(news)}")
    index, sentence = int(ids[0]), news[0].strip()
    if not sentence:
        return ParseFailure("new_sentence is empty")
    spans = split_sentences(original_note)
    if index >= len(spans):
        return ParseFailure(f"sentence_id {index} is not among the note's {len(spans)} sentences")
    span = spans[index]
    modified = original_note[: span.start] + sentence + original_note[span.end :]
    return InjectorEdit(modified, index, sentence)


def parse_note(text: str) -> InjectorEdit | ParseFailure:
    """Parse the whole-note format: everything after the one line start ``generated_note:``."""
    answer = strip_think(text)
    starts = list(_GENERATED_NOTE.finditer(answer))
    if len(starts) != 1:
        return ParseFailure(f"expected one 'generated_note:', found {len(starts)}")
    note = answer[starts[0].end() :].strip()
    return InjectorEdit(note) if note else ParseFailure("generated_note is empty")


def parse_assessor(text: str) -> Label | None:
    """The LAST ``final_answer: "CORRECT"|"INCORRECT"`` outside the reasoning, or None.

    Case, double quotes and the key are exact; there is no fallback to a word elsewhere in the reply, because
    "INCORRECT" contains "CORRECT" and reasoning names both.
    """
    answers = _FINAL_ANSWER.findall(strip_think(text))
    return Label(answers[-1]) if answers else None


def parse_full(text: str, sentence_count: int) -> FullAnswer | ParseFailure:
    """Parse the assessor's full format for a note of ``sentence_count`` sentences, numbered from 0.

    After the LAST ``final_answer: "…"`` outside the reasoning there must be one line ``error_sentence_id: N``
    and after that one line ``corrected_sentence: …``. CORRECT goes with -1 and NA and with nothing else,
    INCORRECT with a sentence of the note and a correction. All or nothing: an answer whose lines contradict
    each other or are missing is a failure as a whole, as MEDEC's script drops an invalid line of a submission.
    """
    answer = strip_think(text)
    verdicts = list(_FINAL_ANSWER.finditer(answer))
    if not verdicts:
        return ParseFailure("no 'final_answer: \"CORRECT\"' or '\"INCORRECT\"'")
    label, rest = Label(verdicts[-1].group(1)), answer[verdicts[-1].end() :]
    ids = list(_ERROR_SENTENCE.finditer(rest))
    if len(ids) != 1:
        return ParseFailure(f"expected one line 'error_sentence_id: N' after final_answer, found {len(ids)}")
    corrections = _CORRECTED.findall(rest, ids[0].end())
    if len(corrections) != 1:
        return ParseFailure(
            f"expected one line 'corrected_sentence: …' after error_sentence_id, found {len(corrections)}"
        )
    index, correction = int(ids[0].group(1)), corrections[0].strip()
    if label is Label.CORRECT:
        if index != NO_SENTENCE or correction != _NO_CORRECTION:
            return ParseFailure("CORRECT goes with error_sentence_id -1 and corrected_sentence NA")
        return FullAnswer(label, NO_SENTENCE, None)
    if not 0 <= index < sentence_count:
        return ParseFailure(f"error_sentence_id is not among the note's {sentence_count} sentences")
    if correction in ("", _NO_CORRECTION):
        return ParseFailure("INCORRECT without a corrected sentence")
    return FullAnswer(label, index, correction)
