"""Demonstrations of the game on ward notes: what each role is asked, and an answer in its format.

Assessor demonstrations come in pairs, a note and a corrupted version of it: unpaired ones taught a tiny model
nothing. A share of the pairs has its two answers swapped (label noise), which keeps the warm start's detection
moderate, so that reinforcement learning has something to teach.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from medserl.game.demonstrations import (
    Demonstration,
    assessor_demonstration,
    edit_turn,
    injector_demonstration,
)
from medserl.game.labels import Label, Mode
from medserl.game.prompts import PromptSet, load_prompt_set
from medserl.game.vcf import MIN_JACCARD, apply_vcf
from medserl.ward.cases import Case, Edit, benign_edits, error_edits, phrasings
from medserl.ward.generator import GoldCase, benign_edit, error_edit
from medserl.ward.heldout import seen_table
from medserl.ward.table import Table

FOCUS: Mapping[Mode, Mapping[str, tuple[str, ...]]] = {
    Mode.BENIGN: {
        "organism": ("organism",), "diagnosis": ("diagnosis",), "drug": ("drug", "frequency"),
        "treatment": ("treatment",), "management": ("pattern",),
    },
    Mode.ERROR: {
        "organism": ("organism",), "diagnosis": ("diagnosis",), "drug": ("drug", "dose"), "treatment": ("treatment",),
        "management": ("management",),
    },
}  # fmt: skip
"""What the demonstrated injector changes in each kind of sentence: short sentences, in which a tiny model copies the
rest without a slip, and all five error types.

One place per sentence on purpose: where a change may come at every word, the likeliest next word is always the
old one, and a model that has learnt it copies the whole sentence. Of two places it is the sentence's pattern,
which the model sees, that says which.
"""

HARD: Mapping[Mode, tuple[str, ...]] = {Mode.BENIGN: ("drug", "management"), Mode.ERROR: ("management",)}
"""Kinds of sentences in which a tiny model's edits often fail: the benign ones copy the whole sentence, the erroneous
ones change too much of it."""
PROMPT_SET = "ward"


@dataclass(frozen=True)
class Mixture:
    """What a batch of demonstrations consists of."""

    assessor_pairs: int = 16
    injector_turns: int = 24
    """Half benign, half error."""
    label_noise: float = 0.1
    """Share of the assessor's pairs whose two answers are swapped."""
    missed_errors: float = 0.0
    """Share of the assessor's erroneous notes that are called correct, as a reader who overlooks errors would."""
    benign_variant: float = 0.5
    """Share of the assessor's correct notes that carry a benign edit, as they do in the game."""
    gold_error: float = 0.3
    """Share of the assessor's erroneous notes that are the note's own gold error."""
    habit: float = 0.85
    """Share of the injector's edits that replace a phrase by its usual successor: one likely answer per place, where
    many unlikely ones would leave the old phrase the likeliest."""
    hard_places: float = 1.0
    """Share of the injector's turns that may change a sentence of a kind in ``HARD``; the others do so only where the
    note offers nothing else."""
    least_similarity: float = 0.0
    """Shingle similarity that an injector's edit keeps where the note offers such an edit; elsewhere the filter's own
    bound. A tiny model does not count a note's words, so that edits close to the bound often fail."""
    learn_text: float = 1.0
    """Share of the correct notes whose words are learnt too, with the text's weight."""
    thinking: float = 0.15
    """Share of the turns in which the model writes the empty thought itself."""


@dataclass(frozen=True)
class Late:
    """The mixture of the last part of a warm start. A model learns to tell right notes from wrong ones much later when
    its answers are noisy from the first, so errors begin to be missed here."""

    mixture: Mixture
    first_batch: int


def prompts_sha256() -> str:
    """SHA-256 of everything that the ward's prompt set says around a note."""
    prompts, note = load_prompt_set(PROMPT_SET), "First sentence. Second sentence."
    chats = [*(prompts.injector(note, mode) for mode in Mode), prompts.assessor(note)]
    return hashlib.sha256(json.dumps(chats, sort_keys=True).encode()).hexdigest()


def demonstration_batches(
    table: Table,
    cases: Sequence[GoldCase],
    prompts: PromptSet,
    mixture: Mixture,
    seed: int,
    late: Late | None = None,
    injector_format: str = "edit",
) -> Iterator[list[Demonstration]]:
    """Endless batches over ``cases``, without held-out phrasings; the same arguments give the same batches."""
    table = seen_table(table)
    rng = random.Random(f"medserl demonstrations {seed}")
    for number in count():
        if late is not None and number >= late.first_batch:
            mixture = late.mixture
        batch: list[Demonstration] = []
        for gold in _sample(cases, mixture.assessor_pairs, rng):
            batch.extend(_assessor_pair(table, gold, prompts, mixture, rng))
        for i, gold in enumerate(_sample(cases, mixture.injector_turns, rng)):
            mode = Mode.ERROR if i % 2 else Mode.BENIGN
            batch.append(_injector_turn(table, gold, prompts, mode, mixture, rng, injector_format))
        yield batch


def _sample(cases: Sequence[GoldCase], wanted: int, rng: random.Random) -> list[GoldCase]:
    return [cases[rng.randrange(len(cases))] for _ in range(wanted)]


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
    missed = rng.random() < mixture.missed_errors
    pair = []
    for label, text in texts.items():
        verdict = label.other if swapped else label
        if label is Label.INCORRECT and missed:
            verdict = Label.CORRECT
        thinking = rng.random() < mixture.thinking
        learnt = label is Label.CORRECT and _text_learnt(mixture, rng)
        pair.append(assessor_demonstration(prompts.assessor(text), verdict, thinking, learnt))
    return pair


def _text_learnt(mixture: Mixture, rng: random.Random) -> bool:
    return mixture.learn_text == 1.0 or rng.random() < mixture.learn_text


def _in_focus(table: Table, case: Case, edit: Edit, mode: Mode) -> bool:
    sentence = case.sentences[edit.index]
    places = FOCUS[mode].get(sentence.kind)
    if places is None:
        return False
    return edit.slot == places[table.sentences[sentence.kind].index(sentence.pattern) % len(places)]


def _injector_turn(
    table: Table,
    gold: GoldCase,
    prompts: PromptSet,
    mode: Mode,
    mixture: Mixture,
    rng: random.Random,
    injector_format: str,
) -> Demonstration:
    edits = error_edits(table, gold.case) if mode is Mode.ERROR else benign_edits(table, gold.case)
    chosen = [e for e in edits if _in_focus(table, gold.case, e, mode)]
    if mixture.hard_places < 1.0 and rng.random() >= mixture.hard_places:
        chosen = [e for e in chosen if gold.case.sentences[e.index].kind not in HARD[mode]] or chosen
    edit = _demonstrated(table, gold.case, chosen, mixture, rng)
    if edit is None:  # nothing in focus passes the filter; the note's own error always does
        mode, edit = Mode.ERROR, gold.error
    messages, thinking = prompts.injector(gold.case.text, mode, injector_format), rng.random() < mixture.thinking
    made = edit_turn(injector_format, gold.case.text, edit.apply(gold.case))
    assert made is not None  # it replaces one sentence of the case
    answer, before, after = made
    return injector_demonstration(messages, answer, before, after, thinking, _text_learnt(mixture, rng))


def _demonstrated(table: Table, case: Case, edits: Sequence[Edit], mixture: Mixture, rng: random.Random) -> Edit | None:
    """An edit that the filter accepts, at a random place; there mostly the usual one."""
    if mixture.least_similarity:
        far = _random_place(table, case, edits, mixture, rng, mixture.least_similarity)
        if far is not None:
            return far
    return _random_place(table, case, edits, mixture, rng, MIN_JACCARD)


def _random_place(
    table: Table, case: Case, edits: Sequence[Edit], mixture: Mixture, rng: random.Random, min_jaccard: float
) -> Edit | None:
    places: dict[tuple[int, str], list[Edit]] = {}
    for edit in edits:
        places.setdefault((edit.index, edit.slot), []).append(edit)
    order = list(places.values())
    rng.shuffle(order)
    for choices in order:
        if rng.random() < mixture.habit:
            choices.sort(key=lambda edit: _unusualness(table, case, edit))
        else:
            rng.shuffle(choices)
        accepted = next((edit for edit in choices if apply_vcf(case.text, edit.apply(case), min_jaccard).passed), None)
        if accepted is not None:
            return accepted
    return None


def _unusualness(table: Table, case: Case, edit: Edit) -> float:
    """0 for the usual successor of what is replaced, which follows from the old phrase alone: the next phrasing in
    the table's order, the first wrong fact, ten times the dose."""
    old, new = case.sentences[edit.index], edit.sentence
    if edit.slot == "pattern":
        return _steps(table.sentences[old.kind], old.pattern, new.pattern)
    before, after = old.slots[edit.slot], new.slots[edit.slot]
    if edit.error_type is None:
        return _steps(phrasings(table, before), before.phrase, after.phrase)
    return abs(math.log(float(after.concept) / (10 * float(before.concept)))) if edit.slot == "dose" else 0.0


def _steps(cycle: Sequence[str], old: str, new: str) -> int:
    """Steps from the old to the new member; a phrase outside the cycle stands before its first member."""
    return (cycle.index(new) - (cycle.index(old) if old in cycle else -1)) % len(cycle)
