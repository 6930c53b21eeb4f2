"""Demonstrations for the tiny model's warm start: what each setting of the mixture changes in them."""

from dataclasses import replace
from itertools import islice

import pytest

from medserl.game import GameRules, Label, Mode, apply_vcf, load_prompt_set
from medserl.game.demonstrations import Demonstration, verdict_answer
from medserl.game.parse import InjectorEdit, parse_edit
from medserl.game.prompts import FORMATS
from medserl.ward.demonstrations import HARD, Mixture, demonstration_batches
from medserl.ward.generator import GoldCase, ward_cases
from medserl.ward.table import load_table

TABLE = load_table()
CASES = ward_cases("train", 60, 5)
PROMPTS = load_prompt_set("ward")
TURNS = Mixture(assessor_pairs=0, injector_turns=40, thinking=0.0)


def demonstrated(mixture: Mixture, batches: int = 3) -> list[tuple[GoldCase, Mode, InjectorEdit]]:
    asked = {PROMPTS.injector(gold.case.text, mode)[-1]["content"]: (gold, mode) for gold in CASES for mode in Mode}
    found = []
    for batch in islice(demonstration_batches(TABLE, CASES, PROMPTS, mixture, 1), batches):
        for turn in batch:
            gold, mode = asked[turn.messages[-1]["content"]]
            edit = parse_edit(turn.reply, gold.case.text)
            assert isinstance(edit, InjectorEdit)
            found.append((gold, mode, edit))
    return found


def turns(mixture: Mixture) -> list[Demonstration]:
    return [demo for batch in islice(demonstration_batches(TABLE, CASES, PROMPTS, mixture, 1), 3) for demo in batch]


def test_every_edit_passes_the_filter() -> None:
    for gold, _, edit in demonstrated(TURNS):
        assert apply_vcf(gold.case.text, edit.modified).passed


@pytest.mark.parametrize("injector_format", FORMATS)
def test_the_same_edits_are_said_in_the_format_asked_for(injector_format: str) -> None:
    rules, cases = GameRules(injector_format=injector_format), {gold.case.text.strip(): gold for gold in CASES}
    batches = demonstration_batches(TABLE, CASES, PROMPTS, TURNS, 1, injector_format=injector_format)
    edited = []
    for turn in next(batches):
        shown = turn.messages[-1]["content"].partition("\n")[2].rpartition("\n")[0]
        gold = cases[" ".join(shown.split()) if injector_format != "edit" else sentences_of(shown)]
        made = rules.parse(turn.reply, gold.case.text)
        assert isinstance(made, InjectorEdit) and made.strict
        edited.append(made.modified)
    assert edited == [edit.modified for _, _, edit in demonstrated(TURNS, 1)]


def sentences_of(numbered: str) -> str:
    return " ".join(line.partition(" ")[2] for line in numbered.splitlines())


def test_edits_keep_the_similarity_asked_for_where_the_note_offers_one() -> None:
    def share(mixture: Mixture, mode: Mode) -> float:
        kept = [apply_vcf(g.case.text, e.modified, 0.9).passed for g, m, e in demonstrated(mixture) if m is mode]
        return sum(kept) / len(kept)

    far = replace(TURNS, least_similarity=0.9)
    assert share(far, Mode.BENIGN) > 0.9 > share(TURNS, Mode.BENIGN)
    assert share(far, Mode.ERROR) > 0.7 > share(TURNS, Mode.ERROR)
    assert all(apply_vcf(gold.case.text, edit.modified).passed for gold, _, edit in demonstrated(far))


def test_hard_sentences_can_be_left_alone() -> None:
    def hard(mixture: Mixture) -> float:
        edits = demonstrated(mixture)
        kinds = [gold.case.sentences[edit.sentence_id or 0].kind in HARD[mode] for gold, mode, edit in edits]
        return sum(kinds) / len(kinds)

    assert hard(replace(TURNS, hard_places=0.0)) < 0.5 * hard(TURNS)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_the_assessors_pairs_are_as_asked(share: float) -> None:
    mixture = Mixture(assessor_pairs=8, injector_turns=0, label_noise=0.0, missed_errors=share, benign_variant=share,
                      gold_error=share)  # fmt: skip
    pairs = next(demonstration_batches(TABLE, CASES, PROMPTS, mixture, 1))
    right, wrong = pairs[0::2], pairs[1::2]
    originals = {PROMPTS.assessor(gold.case.text)[-1]["content"] for gold in CASES}
    gold = {PROMPTS.assessor(gold.error.apply(gold.case))[-1]["content"] for gold in CASES}
    assert all((demo.messages[-1]["content"] in originals) == (share == 0) for demo in right)
    assert all(verdict_answer(Label.CORRECT) in demo.reply for demo in right)
    assert all(verdict_answer(Label.CORRECT if share else Label.INCORRECT) in demo.reply for demo in wrong)
    assert all(demo.messages[-1]["content"] in gold for demo in wrong) or share == 0
    assert share == 1 or any(demo.messages[-1]["content"] not in gold for demo in wrong)
    swapped = next(
        demonstration_batches(TABLE, CASES, PROMPTS, replace(mixture, missed_errors=0.0, label_noise=1.0), 1)
    )
    assert all(verdict_answer(Label.INCORRECT) in demo.reply for demo in swapped[0::2])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_words_of_correct_notes_are_learnt_as_often_as_asked(share: float) -> None:
    mixture = replace(TURNS, assessor_pairs=6, learn_text=share, label_noise=0.0)
    everything = turns(mixture)
    learnt = [demo for demo in everything if demo.learn_text]
    correct = len(everything) - sum(demo.role == "assessor" for demo in everything) // 2
    assert len(learnt) == share * correct
