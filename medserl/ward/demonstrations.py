"""Demonstrations of the game on ward notes: what each role is asked, and an answer in its format.

Assessor demonstrations come in pairs, a note and a corrupted version of it: unpaired ones taught a tiny model
nothing. A share of the pairs has its two answers swapped (label noise), which keeps the warm start's detection
moderate, so that reinforcement learning has something to teach.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from medserl.game.labels import Label, Mode
from medserl.game.prompts import Message, PromptSet, load_prompt_set
from medserl.ward.cases import Case, Edit, benign_edits, error_edits
from medserl.ward.generator import GoldCase, benign_edit, error_edit, first_accepted
from medserl.ward.heldout import seen_table
from medserl.ward.table import Table

FOCUS: Mapping[Mode, Mapping[str, tuple[str, ...]]] = {
    Mode.BENIGN: {
        "presentation": ("person",), "denial": ("pattern",), "vitals": ("pattern",), "exam": ("pattern",),
        "test": ("pattern",), "organism": ("organism",), "diagnosis": ("diagnosis",), "drug": ("drug", "frequency"),
        "treatment": ("treatment",), "management": ("pattern",),
    },
    Mode.ERROR: {
        "exam": ("side",), "test": ("side",), "organism": ("organism",), "diagnosis": ("diagnosis",),
        "drug": ("drug", "dose"), "treatment": ("treatment",), "management": ("management",),
    },
}  # fmt: skip
"""What the demonstrated injector changes in each kind of sentence.

One place per sentence on purpose: where a change may come at every word, the likeliest next word is always the
old one, and a model that has learnt it copies the whole sentence. Of two places it is the sentence's pattern,
which the model sees, that says which.
"""

PROMPT_SET = "ward"
EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One turn of one role. With ``thinking`` the answer opens with an empty thought of its own, as Qwen3's
    answers do when its chat template does not write one into the prompt."""

    role: str
    messages: tuple[Message, ...]
    answer: str
    thinking: bool
    note_is_right: bool
    """Whether the note in the prompt is correct, so that its words may be learnt too."""

    @property
    def reply(self) -> str:
        return EMPTY_THOUGHT + self.answer if self.thinking else self.answer


@dataclass(frozen=True)
class Mixture:
    """What a batch of demonstrations consists of."""

    assessor_pairs: int = 16
    injector_turns: int = 24
    """Half benign, half error."""
    label_noise: float = 0.1
    """Share of the assessor's pairs whose two answers are swapped."""
    benign_variant: float = 0.5
    """Share of the assessor's correct notes that carry a benign edit, as they do in the game."""
    gold_error: float = 0.3
    """Share of the assessor's erroneous notes that are the note's own gold error."""
    thinking: float = 0.15
    """Share of the turns in which the model writes the empty thought itself."""


def prompts_sha256() -> str:
    """SHA-256 of everything that the ward's prompt set says around a note."""
    prompts, note = load_prompt_set(PROMPT_SET), "First sentence. Second sentence."
    chats = [*(prompts.injector(note, mode) for mode in Mode), prompts.assessor(note)]
    return hashlib.sha256(json.dumps(chats, sort_keys=True).encode()).hexdigest()


def edit_answer(edit: Edit) -> str:
    """The injector's answer in the ``edit`` format."""
    return f"sentence_id: {edit.index}\nnew_sentence: {edit.sentence.text}"


def verdict_answer(label: Label) -> str:
    return f'final_answer: "{label.value}"'


def demonstration_batches(
    table: Table, cases: Sequence[GoldCase], prompts: PromptSet, mixture: Mixture, seed: int
) -> Iterator[list[Demonstration]]:
    """Endless batches over ``cases``, without held-out phrasings; the same arguments give the same batches."""
    table = seen_table(table)
    rng = random.Random(f"medserl demonstrations {seed}")
    while True:
        batch: list[Demonstration] = []
        for gold in _sample(cases, mixture.assessor_pairs, rng):
            batch.extend(_assessor_pair(table, gold, prompts, mixture, rng))
        for i, gold in enumerate(_sample(cases, mixture.injector_turns, rng)):
            mode = Mode.ERROR if i % 2 else Mode.BENIGN
            batch.append(_injector_turn(table, gold, prompts, mode, mixture, rng))
        yield batch


def _sample(cases: Sequence[GoldCase], count: int, rng: random.Random) -> list[GoldCase]:
    return [cases[rng.randrange(len(cases))] for _ in range(count)]


def _error(table: Table, gold: GoldCase, mixture: Mixture, rng: random.Random) -> Edit:
    if rng.random() < mixture.gold_error:
        return gold.error
    return error_edit(table, gold.case, rng) or gold.error


def _benign_text(table: Table, case: Case, mixture: Mixture, rng: random.Random) -> str:
    edit = benign_edit(table, case, rng) if rng.random() < mixture.benign_variant else None
    return edit.apply(case) if edit else case.text


def _assessor_pair(
    table: Table, gold: GoldCase, prompts: PromptSet, mixture: Mixture, rng: random.Random
) -> list[Demonstration]:
    texts = {
        Label.CORRECT: _benign_text(table, gold.case, mixture, rng),
        Label.INCORRECT: _error(table, gold, mixture, rng).apply(gold.case),
    }
    swapped = rng.random() < mixture.label_noise
    return [
        Demonstration(
            "assessor",
            tuple(prompts.assessor(text)),
            verdict_answer(label.other if swapped else label),
            rng.random() < mixture.thinking,
            label is Label.CORRECT,
        )
        for label, text in texts.items()
    ]


def _in_focus(table: Table, case: Case, edit: Edit, mode: Mode) -> bool:
    sentence = case.sentences[edit.index]
    places = FOCUS[mode].get(sentence.kind)
    if places is None:
        return False
    return edit.slot == places[table.sentences[sentence.kind].index(sentence.pattern) % len(places)]


def _injector_turn(
    table: Table, gold: GoldCase, prompts: PromptSet, mode: Mode, mixture: Mixture, rng: random.Random
) -> Demonstration:
    edits = error_edits(table, gold.case) if mode is Mode.ERROR else benign_edits(table, gold.case)
    edit = first_accepted(gold.case, [edit for edit in edits if _in_focus(table, gold.case, edit, mode)], rng)
    if edit is None:  # nothing in focus passes the filter; the note's own error always does
        mode, edit = Mode.ERROR, gold.error
    messages = tuple(prompts.injector(gold.case.text, mode))
    return Demonstration("injector", messages, edit_answer(edit), rng.random() < mixture.thinking, True)
