"""Demonstrations of the game: what a role is asked, and an answer in its format. Pure; for supervised warm starts.

From notes with a gold error come an assessor's pair (the note with and without the error), an injector's error turn
(the gold error as an edit, or one that the rules prove) and, where a whitelisted synonym fits into the note, an
injector's benign turn.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medserl.game.labels import Label, Mode
from medserl.game.parse import InjectorEdit
from medserl.game.phrase import changed_phrase, parse_phrase, phrase_answer
from medserl.game.prompts import Message, PromptSet
from medserl.game.proved_errors import Place, drawn_places, proved_error
from medserl.game.records import Note
from medserl.game.referee.base import RulingKind
from medserl.game.referee.canonical import shipped_lexicon
from medserl.game.referee.rules import RulesReferee
from medserl.game.sentences import sentence_texts
from medserl.game.vcf import apply_vcf

EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One turn of one role. With ``thinking`` the answer opens with an empty thought of its own, as Qwen3's
    answers do when its chat template does not write one into the prompt."""

    role: str
    messages: tuple[Message, ...]
    answer: str
    thinking: bool
    learn_text: bool
    """Whether the words of the note in the prompt are learnt too; never those of an erroneous one."""
    decisive: tuple[int, int] | None = None
    """Where in the answer its decisive word stands, from and to which character: an assessor's verdict, or the first
    word of an injector's edit that differs from the note's. What stands before it is format and copying."""
    place: tuple[int, int] | None = None
    """Where in the answer it says what is edited, likewise: the sentence's number, or the old phrase; None in the
    format ``note``."""

    @property
    def reply(self) -> str:
        return EMPTY_THOUGHT + self.answer if self.thinking else self.answer

    @property
    def decisive_in_reply(self) -> tuple[int, int] | None:
        """``decisive``, counted from the reply's first character."""
        return self._in_reply(self.decisive)

    @property
    def place_in_reply(self) -> tuple[int, int] | None:
        """``place``, counted from the reply's first character."""
        return self._in_reply(self.place)

    def _in_reply(self, span: tuple[int, int] | None) -> tuple[int, int] | None:
        offset = len(self.reply) - len(self.answer)
        return None if span is None else (span[0] + offset, span[1] + offset)


def assessor_demonstration(
    messages: Sequence[Message], verdict: Label, thinking: bool, learn_text: bool
) -> Demonstration:
    """An assessor's turn; ``learn_text`` for correct notes only."""
    answer = verdict_answer(verdict)
    start = answer.index(f'"{verdict.value}"') + 1
    decisive = (start, start + len(verdict.value))
    return Demonstration("assessor", tuple(messages), answer, thinking, learn_text, decisive)


def injector_demonstration(
    messages: Sequence[Message], answer: str, before: str, after: str, thinking: bool, learn_text: bool = True
) -> Demonstration:
    """An injector's turn about a correct note, whose answer ends in ``after``, written in the place of ``before``."""
    decisive = first_changed_word(before, after)
    if decisive is not None:
        offset = len(answer) - len(after)
        decisive = (decisive[0] + offset, decisive[1] + offset)
    where = re.match(r"(?:sentence_id: (?=\d+\n)|old_phrase: )(.+)\n", answer)
    place = where.span(1) if where else None
    return Demonstration("injector", tuple(messages), answer, thinking, learn_text, decisive, place)


def first_changed_word(before: str, after: str) -> tuple[int, int] | None:
    """From and to which character of ``after`` the first word stands that ``before`` has not in its place; None where
    ``after`` only ends earlier, or changes no word."""
    old = before.split()
    for i, word in enumerate(re.finditer(r"\S+", after)):
        if i == len(old) or old[i] != word.group():
            return word.start(), word.end()
    return None


def edit_answer(index: int, sentence: str) -> str:
    """The injector's answer in the ``edit`` format."""
    return f"sentence_id: {index}\nnew_sentence: {sentence}"


def note_answer(text: str) -> str:
    """The injector's answer in the ``note`` format."""
    return f"generated_note: {text}"


def verdict_answer(label: Label) -> str:
    """The assessor's answer."""
    return f'final_answer: "{label.value}"'


def changed_sentence(before: str, after: str) -> tuple[int, str] | None:
    """Index and new text of the one sentence in which two notes differ; None where it is not exactly one."""
    old, new = sentence_texts(before), sentence_texts(after)
    if len(old) != len(new):
        return None
    changed = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    return (changed[0], new[changed[0]]) if len(changed) == 1 else None


def edit_turn(injector_format: str, text: str, modified: str) -> tuple[str, str, str] | None:
    """The injector's answer that makes an edit, what it replaces, and by what; None where the format cannot say it."""
    if injector_format == "note":
        return note_answer(modified), text, modified
    if injector_format == "phrase":
        words = changed_phrase(text, modified)
        if words is None:
            return None
        answer = phrase_answer(*words)
        read = parse_phrase(answer, text)  # a word in quotes or brackets may be taken for dress
        kept = isinstance(read, InjectorEdit) and read.strict and read.modified.split() == modified.split()
        return (answer, *words) if kept else None
    change = changed_sentence(text, modified)
    return None if change is None else (edit_answer(*change), sentence_texts(text)[change[0]], change[1])


class NoteDemonstrations:
    """Demonstrations from notes with gold errors, such as MEDEC's pairs.

    Args:
        prompts: The prompt set.
        injector_format: ``edit``, ``note`` or ``phrase``.
        label_noise: Share of the assessor's pairs whose two answers are swapped.
        thinking: Share of the turns in which the model writes an empty thought itself.
        proved_errors: Share of the injector's error turns that make an error which the rules prove, where the note has
            room for one (`medserl.game.proved_errors`), instead of the gold error.
        habit: Share of the edits other than gold errors that change the first place of a sentence in the usual way.

    ``left_out`` counts by reason the turns that could not be made.
    """

    def __init__(
        self,
        prompts: PromptSet,
        injector_format: str = "edit",
        label_noise: float = 0.0,
        thinking: float = 0.0,
        proved_errors: float = 0.0,
        habit: float = 0.0,
    ) -> None:
        self._prompts, self._format = prompts, injector_format
        self._label_noise, self._thinking, self._proved = label_noise, thinking, proved_errors
        self._habit = habit
        self._referee = RulesReferee()
        self._synonyms = _synonyms()
        self._drawn = {mode: Counter[str]() for mode in Mode}
        self.left_out: Counter[str] = Counter()

    def assessor_pair(self, note: Note, rng: random.Random) -> list[Demonstration]:
        """The note with and without its gold error; empty where it has none."""
        if note.error_text is None:
            self.left_out["no gold error"] += 1
            return []
        swapped = rng.random() < self._label_noise
        pair = []
        for label, text in ((Label.CORRECT, note.text), (Label.INCORRECT, note.error_text)):
            verdict = label.other if swapped else label
            thinking = rng.random() < self._thinking
            right = label is Label.CORRECT
            pair.append(assessor_demonstration(self._prompts.assessor(text), verdict, thinking, right))
        return pair

    def injector_turn(self, note: Note, mode: Mode, rng: random.Random) -> list[Demonstration]:
        """One turn that the filter accepts; empty where the note offers none."""
        modified = self._error(note, rng) if mode is Mode.ERROR else self._benign(note, rng)
        return self._turn(note, mode, modified, rng)

    def gold_turn(self, note: Note, rng: random.Random) -> list[Demonstration]:
        """The turn that makes the note's gold error; empty where it has none that the filter accepts."""
        return self._turn(note, Mode.ERROR, note.error_text, rng)

    def _turn(self, note: Note, mode: Mode, modified: str | None, rng: random.Random) -> list[Demonstration]:
        if modified is None:
            self.left_out["no gold error" if mode is Mode.ERROR else "no synonym fits"] += 1
            return []
        if not apply_vcf(note.text, modified).passed:
            self.left_out[f"the filter refuses the {mode.value} edit"] += 1
            return []
        made = edit_turn(self._format, note.text, modified)
        if made is None:
            self.left_out[f"the format {self._format!r} cannot say it"] += 1
            return []
        answer, before, after = made
        messages = self._prompts.injector(note.text, mode, self._format)
        return [injector_demonstration(messages, answer, before, after, rng.random() < self._thinking)]

    def _error(self, note: Note, rng: random.Random) -> str | None:
        """The note with an error that the rules prove, as often as asked for, or else with its gold error."""
        asked = rng.random() < self._proved
        proved = proved_error(note, rng, self._habit, self._drawn[Mode.ERROR]) if asked else None
        return note.error_text if proved is None else proved

    def _benign(self, note: Note, rng: random.Random) -> str | None:
        """The note with one whitelisted synonym put in, which the ``rules`` referee calls benign."""
        found = ((m, group) for pattern, group in self._synonyms for m in pattern.finditer(note.text))
        places = [
            Place(m.span(), tuple(phrase for phrase in group if phrase != m.group().lower())) for m, group in found
        ]
        for modified in drawn_places(note.text, places, rng, self._habit, self._drawn[Mode.BENIGN]):
            ruling = self._referee.rule(note, Mode.BENIGN, modified)
            if ruling.kind is RulingKind.BENIGN and apply_vcf(note.text, modified).passed:
                return modified
        return None


def _synonyms() -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
    """A pattern per whitelisted phrase with its group; longer phrases first."""
    pairs = [(phrase, tuple(group)) for group in shipped_lexicon().synonym_groups for phrase in group]
    pairs.sort(key=lambda pair: -len(pair[0]))
    return [(re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE), group) for phrase, group in pairs]


def note_batches(
    notes: Sequence[Note], maker: NoteDemonstrations, *, assessor_pairs: int, injector_turns: int, seed: int
) -> Iterator[list[Demonstration]]:
    """Endless batches of ``2 * assessor_pairs + injector_turns`` demonstrations; same arguments, with a new ``maker``,
    same batches.

    Raises:
        ValueError: the notes offer no demonstration of a kind that is asked for.
    """
    rng = random.Random(f"medserl demonstrations {seed}")

    def fill(count: int, make: str, mode: Mode | None = None) -> list[Demonstration]:
        filled: list[Demonstration] = []
        before = maker.left_out.copy()
        for _ in range(100 * max(count, 1)):
            if len(filled) >= count:
                return filled
            note = notes[rng.randrange(len(notes))]
            filled += maker.assessor_pair(note, rng) if mode is None else maker.injector_turn(note, mode, rng)
        reasons = ", ".join(f"{reason}: {times} draws" for reason, times in (maker.left_out - before).most_common())
        wanted = "words that have a synonym here" if mode is Mode.BENIGN else "error variants"
        raise ValueError(f"the notes offer no {make} ({reasons}); give notes that have {wanted}")

    while True:
        half = injector_turns // 2
        yield [
            *fill(2 * assessor_pairs, "assessor pair"),
            *fill(half, "benign turn", Mode.BENIGN),
            *fill(injector_turns - half, "error turn", Mode.ERROR),
        ]
