"""Parsers for what the two roles write: the answer, and whether it kept the strict form.

The strict form is what the prompts ask for, and what the format bonus is for. Another dress that cannot be misread
(bold, JSON, other quotes or none, other case, a verdict as the whole reply) gives the same answer. Nothing is
guessed: a reply that states both verdicts, or none at its end, is a parse failure that says why.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medserl.game.labels import Label
from medserl.game.reply import (
    OTHER_KEY,
    QUOTES,
    Body,
    Field,
    Form,
    after_key,
    index_of,
    once,
    read_body,
    split_think,
    undressed,
    unquoted,
    without_tags,
)
from medserl.game.sentences import split_sentences
from medserl.game.verdicts import BOXED, VERDICT, balanced, label_of, lone_verdicts, verdicts

NO_SENTENCE = -1
"""MEDEC's error sentence id of a text without an error."""
_NO_CORRECTION = "NA"
_NO_CORRECTIONS = ("NA", "N/A", "N.A", "NONE", "NULL", "NOT APPLICABLE", "-", "")
_WORD = re.compile(r"\b(?:in)?correct\b", re.IGNORECASE)
_SAID = re.compile(r"\W*(?:((?:(?i:in))?(?i:correct))\b(?!\s+\w)|((?:IN)?CORRECT)\b)")
"""A verdict, with reasons behind it or without; not "Correct dosing is …"."""
_STATED = re.compile(r"final(?:\\_|[ _-])?answer\W{0,12}(?:is\W{1,4})?((?:in)?correct)\b", re.IGNORECASE)


NOT_PARSED = (Form.SILENT, Form.BOTH, Form.MISPLACED, Form.INCOMPLETE, Form.UNFINISHED)
"""Forms of replies without an answer."""
_WHY = {
    Form.SILENT: "no 'final_answer: \"CORRECT\"' or '\"INCORRECT\"'",
    Form.BOTH: "no 'final_answer: …' that stands alone: both verdicts are stated",
    Form.MISPLACED: "no 'final_answer: …' on a line of its own at the end, but one elsewhere",
    Form.UNFINISHED: "no 'final_answer: …': the reasoning has no end",
}


@dataclass(frozen=True, slots=True)
class InjectorEdit:
    """A parsed injector reply: the whole edited note, and for the edit format which sentence was named."""

    modified: str
    sentence_id: int | None = None
    new_sentence: str | None = None
    strict: bool = True
    """Whether the reply kept the strict form."""


@dataclass(frozen=True, slots=True)
class AssessorAnswer:
    """What an assessor's reply says."""

    label: Label | None
    """None where it states no verdict; ``form`` then says why."""
    form: Form

    @property
    def strict(self) -> bool:
        return self.form is Form.STRICT

    @property
    def why(self) -> str | None:
        """Why there is no verdict; None where there is one."""
        return _WHY.get(self.form)


@dataclass(frozen=True, slots=True)
class FullAnswer:
    """An assessor's verdict with the place and the correction of the error, MEDEC's three subtasks."""

    answer: Label
    error_sentence_id: int
    """-1 with CORRECT, else an index into the sentences that the prompt numbered."""
    corrected_sentence: str | None
    """None with CORRECT."""
    form: Form = Form.STRICT


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A reply that does not follow its format, and why."""

    why: str
    form: Form = Form.SILENT
    answer: Label | None = None
    """In the full format, the one verdict of a reply whose other lines are missing or wrong."""


def strip_think(text: str, opened: bool = False) -> str:
    """The answer part of a reply: everything outside ``<think>…</think>`` (`split_think`)."""
    return split_think(text, opened)[0]


def thinking_part(text: str, opened: bool = False) -> str:
    """What `strip_think` removes, without the tags; for length statistics."""
    return split_think(text, opened)[1]


# ---------------------------------------------------------------------------------------------- injector


def parse_edit(text: str, original_note: str, opened: bool = False) -> InjectorEdit | ParseFailure:
    """Parse ``sentence_id: N`` and, after it, ``new_sentence: …`` on one line; rebuild the note.

    Sentences are counted from 0 as `split_sentences` finds them in ``original_note``; every other sentence
    and all white space between sentences stay as they are, byte for byte. Not strict, but read: a bracket or quotes
    around the number, quotes or a list's marks around the sentence, its number in front of it. ``opened``: as in
    `split_think`.
    """
    fields = once(read_body(strip_think(text, opened)).fields)
    places = [i for i, field in enumerate(fields) if field.key == "sentence_id" and _index(field) is not None]
    if len(places) != 1:
        return ParseFailure(f"expected one line 'sentence_id: N', found {len(places)}")
    news = [field for field in fields[places[0] + 1 :] if field.key == "new_sentence"]
    if len(news) != 1:
        return ParseFailure(f"expected one line 'new_sentence: …' after sentence_id, found {len(news)}")
    index = _index(fields[places[0]])
    assert index is not None
    if not news[0].value:
        return ParseFailure("new_sentence is empty")
    spans = split_sentences(original_note)
    if index >= len(spans):
        return ParseFailure(f"sentence_id {index} is not among the note's {len(spans)} sentences")
    span = spans[index]
    old = original_note[span.start : span.end]
    sentence = without_number(undressed(news[0].value, old), index, old)
    sentence = undressed(sentence, old)
    if not sentence:
        return ParseFailure("new_sentence is empty")
    strict = (
        fields[places[0]].strict and news[0].strict and fields[places[0]].value.isdigit() and sentence == news[0].value
    )
    modified = original_note[: span.start] + sentence + original_note[span.end :]
    return InjectorEdit(modified, index, sentence, strict)


def parse_note(text: str, opened: bool = False) -> InjectorEdit | ParseFailure:
    """Parse the whole-note format: everything after the one line start ``generated_note:``."""
    answer = strip_think(text, opened)
    body = read_body(answer)
    starts = [field for field in body.fields if field.key == "generated_note"]
    if len(starts) != 1:
        return ParseFailure(f"expected one 'generated_note:', found {len(starts)}")
    note = starts[0].value
    if starts[0].strict:
        note = after_key(answer, "generated_note")
    elif not starts[0].json:
        note = (after_key(body.text, "generated_note") or note).removeprefix("**").strip()
    bare = unquoted(note) if note[:1] in QUOTES and note.count(note[:1]) <= 2 else note
    return (
        InjectorEdit(bare, strict=starts[0].strict and bare == note)
        if bare
        else ParseFailure("generated_note is empty")
    )


def _index(field: Field) -> int | None:
    index = index_of(field.value)
    return index if index is not None and index >= 0 else None


def without_number(sentence: str, index: int, old: str) -> str:
    """Without the sentence's own number in front, as the prompt shows it; not where it may belong to the text."""
    match = re.match(r"([\[(]?)([0-9]{1,6})([\]).:]*)\s+(?=\S)", sentence)
    if match is None or int(match.group(2)) != index or old.startswith(match.group(0).strip()):
        return sentence
    rest = sentence[match.end() :]
    marked = match.group(1) or match.group(3)
    return rest if marked or rest.split()[:1] == old.split()[:1] else sentence


# ---------------------------------------------------------------------------------------------- assessor


def parse_assessor(text: str, opened: bool = False) -> Label | None:
    """The verdict of `read_answer`, or None."""
    return read_answer(text, opened).label


def read_answer(text: str, opened: bool = False) -> AssessorAnswer:
    """The verdict outside the reasoning, and its form.

    It stands on a line of its own at the end, ``final_answer: "CORRECT"|"INCORRECT"``, or is the whole reply. There
    is no verdict where both are stated, whatever the order, be it a line without a key, and no fallback to a word
    elsewhere in the reply, because "INCORRECT" contains "CORRECT" and reasoning names both. ``opened``: as in
    `split_think`.
    """
    answer, thinking = split_think(text, opened)
    if not answer:
        return AssessorAnswer(None, Form.UNFINISHED if thinking or opened else Form.SILENT)
    body = read_body(answer)
    alone = verdicts(body.text)
    if len(alone) == 1:
        return AssessorAnswer(alone.pop(), Form.BARE)
    found = _verdict(body.fields[-1]) if body.fields and body.last else AssessorAnswer(None, Form.SILENT)
    stated = _stated(body) | alone
    if len(stated | lone_verdicts(body.text) | ({found.label} if found.label else set())) > 1:
        return AssessorAnswer(None, Form.BOTH)
    if found.label is None and stated:
        return AssessorAnswer(None, Form.MISPLACED)
    return found


def _stated(body: Body) -> set[Label]:
    """Every verdict that is named as the answer, affirmed or not."""
    named = [label_of(match.group(1)) for match in _STATED.finditer(body.text)]
    for field in body.fields:
        if field.key == "final_answer":
            named += map(label_of, _WORD.findall(field.value))
        elif field.key == OTHER_KEY and (said := _SAID.match(field.value)) is not None:
            named.append(label_of(said.group(1) or said.group(2)))
    return set(named)


def _verdict(field: Field) -> AssessorAnswer:
    if field.key not in ("final_answer", OTHER_KEY):
        return AssessorAnswer(None, Form.SILENT)
    value = without_tags(field.value)
    match = VERDICT.fullmatch(BOXED.sub(r"\1", value))
    if match is None or not (field.json or balanced(match)):
        return AssessorAnswer(None, Form.SILENT)
    word, marks = match.group(2), match.group(1).strip() + match.group(3)
    return AssessorAnswer(label_of(word), _verdict_form(field, word, marks, tagged=value != field.value))


def _verdict_form(field: Field, word: str, marks: str, tagged: bool) -> Form:
    """``marks``: what stood around the word."""
    if field.form in (Form.JSON, Form.TAGS, Form.KEY):
        return field.form
    if tagged:
        return Form.TAGS
    if field.form is Form.MARKDOWN or any(mark in marks for mark in "*_`"):
        return Form.MARKDOWN
    if field.form is Form.CASE or not word.isupper():
        return Form.CASE
    if not marks:
        return Form.UNQUOTED
    if marks.strip('"'):
        return Form.QUOTES
    return field.form if field.form is not Form.STRICT or field.value == f'"{word}"' else Form.LAYOUT


def parse_full(text: str, sentence_count: int, opened: bool = False) -> FullAnswer | ParseFailure:
    """Parse the assessor's full format for a note of ``sentence_count`` sentences, numbered from 0.

    After the LAST ``final_answer: "…"`` outside the reasoning there must be one line ``error_sentence_id: N``
    and after that one line ``corrected_sentence: …``. CORRECT goes with -1 and NA and with nothing else,
    INCORRECT with a sentence of the note and a correction. All or nothing: an answer whose lines contradict
    each other or are missing is a failure as a whole, as MEDEC's script drops an invalid line of a submission.
    """
    answer, thinking = split_think(text, opened)
    if not answer:
        form = Form.UNFINISHED if thinking or opened else Form.SILENT
        return ParseFailure(_WHY[form], form)
    body = read_body(answer)
    places = [i for i, field in enumerate(body.fields) if _verdict(field).label is not None]
    stated = _stated(body)
    alone = verdicts(body.text)
    if len(alone) == 1:
        return replace(_incomplete("the verdict alone, without its sentence and correction"), answer=alone.pop())
    both = len(stated | lone_verdicts(body.text)) > 1
    if not places or both:
        form = Form.BOTH if both else Form.MISPLACED if stated else Form.SILENT
        return ParseFailure(_WHY[form], form)
    found, rest = _verdict(body.fields[places[-1]]), body.fields[places[-1] + 1 :]
    read = _place_and_correction(found, rest, sentence_count)
    return replace(read, answer=found.label) if isinstance(read, ParseFailure) else read


def _place_and_correction(
    found: AssessorAnswer, rest: Sequence[Field], sentence_count: int
) -> FullAnswer | ParseFailure:
    """The two lines after the verdict."""
    ids = [i for i, f in enumerate(rest) if f.key == "error_sentence_id" and _place(f, found.label) is not None]
    if len(ids) != 1:
        return _incomplete(f"expected one line 'error_sentence_id: N' after final_answer, found {len(ids)}")
    corrections = [field for field in rest[ids[0] + 1 :] if field.key == "corrected_sentence"]
    if len(corrections) != 1:
        return _incomplete(
            f"expected one line 'corrected_sentence: …' after error_sentence_id, found {len(corrections)}"
        )
    place, given = rest[ids[0]], corrections[0]
    index, correction = _place(place, found.label), unquoted(given.value)
    assert index is not None and found.label is not None
    correction = unquoted(without_number(correction, index, ""))
    none = correction.upper().rstrip(".") in _NO_CORRECTIONS
    strict = place.strict and given.strict and place.value.lstrip("-").isdigit() and correction == given.value
    form = found.form
    if found.strict and not (strict and (correction == _NO_CORRECTION or not none)):
        form = next((f.form for f in (place, given) if not f.strict), Form.LAYOUT)
    if found.label is Label.CORRECT:
        if index != NO_SENTENCE or not none or not (correction or given.json):
            return _incomplete("CORRECT goes with error_sentence_id -1 and corrected_sentence NA")
        return FullAnswer(found.label, NO_SENTENCE, None, form)
    if not 0 <= index < sentence_count:
        return _incomplete(f"error_sentence_id is not among the note's {sentence_count} sentences")
    if none:
        return _incomplete("INCORRECT without a corrected sentence")
    return FullAnswer(found.label, index, correction, form)


def _place(field: Field, label: Label | None) -> int | None:
    """The number that a field holds; with CORRECT, a word for "none" is -1."""
    if label is Label.CORRECT and (field.value or field.json) and unquoted(field.value).upper() in _NO_CORRECTIONS:
        return NO_SENTENCE
    return index_of(field.value)


def _incomplete(why: str) -> ParseFailure:
    return ParseFailure(why, Form.INCOMPLETE)
