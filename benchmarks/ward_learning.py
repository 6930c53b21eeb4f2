"""What the ward's assessor learns from a fixed pool of played games, by the errors in it, the update and its volume.

usage: python benchmarks/ward_learning.py pool FILE [--model DIR]    plays the injector's side of games, once
       python benchmarks/ward_learning.py learn FILE|gold [options]  trains the assessor on such a pool

One process and one thread of torch, without Ray, Megatron and vLLM: minutes instead of hours, for asking what self-play
could teach before a whole run does. The injector is frozen; the assessor starts from the shipped model. Of an answer
the verdict alone is trained, and the format held by its KL to the start. An update asks about as many questions of each
kind: notes with an error of the injector's, the originals of these, notes with a benign edit. `gold` takes the gold
errors of the same notes, and random benign edits of the table, instead of the injector's edits.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medserl.ablation.cell import judge
from medserl.game import Label, Mode, load_prompt_set
from medserl.game.explored import change_of
from medserl.game.play import GameRules
from medserl.ward import model_dir, ward_notes
from medserl.ward.generator import benign_edit, ward_cases
from medserl.ward.heldout import seen_table
from medserl.ward.oracle import OracleReferee
from medserl.ward.player import Player
from medserl.ward.table import load_table

PROMPTS = load_prompt_set("ward")
NOTES, NOTE_SEED, TEST_PATIENTS = 4800, 7, 200
STEM = 'final_answer: "'


class Played(NamedTuple):
    """An accepted edit with the oracle's label."""

    original: str
    modified: str
    label: str


def play(model: Path, count: int) -> list[Played]:
    """First attempts in both modes on ``count`` training notes, kept where filter and oracle decide."""
    torch.manual_seed(3)
    player, rules, oracle = Player.load(model), GameRules(), OracleReferee()
    notes, found = ward_notes("train", NOTES, NOTE_SEED)[:count], []
    for mode in (Mode.ERROR, Mode.BENIGN):
        replies = player.answer([PROMPTS.injector(note.text, mode) for note in notes], 1.0)
        for note, reply in zip(notes, replies, strict=True):
            modified, verdict = rules.judge(reply, note.text)
            if modified is not None and verdict.passed:
                label = oracle.rule(note, mode, modified).label
                found += [] if label is None else [Played(note.text, modified, label.value)]
    return found


def gold(count: int) -> list[Played]:
    """The same notes with their gold errors, and benign edits of the table."""
    table, rng, found = seen_table(load_table()), random.Random(5), []
    for case, error in ward_cases("train", NOTES, NOTE_SEED)[:count]:
        found.append(Played(case.text, error.apply(case), Label.INCORRECT.value))
        edit = benign_edit(table, case, rng)
        found += [] if edit is None else [Played(case.text, edit.apply(case), Label.CORRECT.value)]
    return found


class Assessor:
    """The model with what its verdict reads.

    Args:
        directory: A model of the ward.
    """

    def __init__(self, directory: Path) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        self.player = Player(self.model, self.tokenizer)
        self.stem = self.tokenizer.encode(STEM, add_special_tokens=False)
        self.verdicts = [
            self.tokenizer.encode(label.value, add_special_tokens=False)[0]
            for label in (Label.CORRECT, Label.INCORRECT)
        ]

    def log_probs(self, model: Any, texts: Sequence[str]) -> torch.Tensor:
        """Float (texts, tokens of the stem and the verdict, vocabulary)."""
        rows = [self.player.prompt_ids(PROMPTS.assessor(text)) + self.stem for text in texts]
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max())
        ids = torch.tensor([row + [self.tokenizer.pad_token_id] * (width - len(row)) for row in rows])
        hidden = model.model(input_ids=ids, attention_mask=(torch.arange(width) < lengths[:, None]).long())
        places = torch.stack([lengths - 1 - back for back in range(len(self.stem), -1, -1)], 1)
        chosen = hidden.last_hidden_state[torch.arange(len(rows))[:, None], places]
        return torch.log_softmax(model.lm_head(chosen), -1)


class Deck:
    """Deals games in a seeded order, all of them before one comes again."""

    def __init__(self, games: Sequence[Played], rng: random.Random) -> None:
        self._games, self._rng, self._left = games, rng, list[Played]()

    def take(self, count: int) -> list[Played]:
        taken = []
        for _ in range(count):
            if not self._left:
                self._left = list(self._games)
                self._rng.shuffle(self._left)
            taken.append(self._left.pop())
        return taken


def reinforced(log_p: torch.Tensor, wrong: torch.Tensor, weight: torch.Tensor, answers: int) -> torch.Tensor:
    """REINFORCE with the mean of a question's other answers as its baseline; rewards are +1 and -1.

    Args:
        log_p: (questions, 2), log-probabilities of CORRECT and INCORRECT.
        wrong: (questions,), 1 where the note is wrong.
        weight: (questions,).
        answers: Answers that are sampled to each question.
    """
    p = (log_p[:, 1] - torch.logsumexp(log_p, 1)).exp().detach()
    said = torch.binomial(torch.full_like(p, answers), p)
    right = wrong * said + (1 - wrong) * (answers - said)
    total = 2 * right - answers
    when_right, when_wrong = 1 - (total - 1) / (answers - 1), -1 - (total + 1) / (answers - 1)
    says_incorrect = said * torch.where(wrong > 0, when_right, when_wrong)
    says_correct = (answers - said) * torch.where(wrong > 0, when_wrong, when_right)
    return -(weight / answers * (says_incorrect * log_p[:, 1] + says_correct * log_p[:, 0])).mean()


def learn(games: Sequence[Played], options: argparse.Namespace) -> dict[str, Any]:
    """Train on a pool; what the assessor measures on test patients afterwards."""
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    assessor = Assessor(model_dir())
    start = copy.deepcopy(assessor.model)
    errors = Deck([game for game in games if game.label == Label.INCORRECT.value], rng)
    benign = Deck([game for game in games if game.label == Label.CORRECT.value], rng)
    optimizer = torch.optim.AdamW(assessor.model.parameters(), lr=options.lr, weight_decay=0.0)
    asked, began = 0, time.perf_counter()
    for number in range(options.updates):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * (0.05 + 0.475 * (1 + math.cos(math.pi * number / options.updates)))
        taken = errors.take(options.games // 2)
        questions = [(game.modified, 1.0) for game in taken]
        questions += [] if options.edits_only else [(game.original, 0.0) for game in taken]
        questions += [(game.modified, 0.0) for game in benign.take(options.games // 2)]
        asked += len(questions)
        wrong = torch.tensor([label for _, label in questions])
        weight = torch.where(wrong > 0, len(wrong) / 2 / wrong.sum(), len(wrong) / 2 / (len(wrong) - wrong.sum()))
        texts = [text for text, _ in questions]
        full = assessor.log_probs(assessor.model, texts)
        with torch.no_grad():
            reference = assessor.log_probs(start, texts)
        log_p = full[:, -1][:, assessor.verdicts]
        if options.supervised:
            loss = -(weight * (wrong * log_p[:, 1] + (1 - wrong) * log_p[:, 0])).mean()
        else:
            loss = reinforced(log_p, wrong, weight, options.answers)
        between = log_p - torch.logsumexp(log_p, 1, keepdim=True)
        loss = loss + options.entropy * (weight * (between.exp() * between).sum(1)).mean()
        divergence = (full.exp() * (full - reference)).sum(-1)
        loss = loss + 0.1 * divergence[:, :-1].sum(1).mean() + options.kl * divergence[:, -1].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(assessor.model.parameters(), 1.0)
        optimizer.step()
    folder = Path(options.out)
    assessor.model.save_pretrained(folder)
    assessor.tokenizer.save_pretrained(folder)
    found = {split: judge(folder, split, TEST_PATIENTS) for split in ("test", "test_heldout")}
    return {"questions": asked, "seconds": round(time.perf_counter() - began), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pool", "learn"))
    parser.add_argument("file", help="the pool, or gold")
    parser.add_argument("--model", type=Path, default=model_dir(), help="what plays the injector")
    parser.add_argument("--notes", type=int, default=1600)
    parser.add_argument("--supervised", action="store_true", help="cross-entropy on the label, no sampling")
    parser.add_argument("--answers", type=int, default=4)
    parser.add_argument("--entropy", type=float, default=0.0, help="bonus for the verdict's entropy")
    parser.add_argument("--kl", type=float, default=0.0, help="of the verdict to the start")
    parser.add_argument("--edits-only", action="store_true", help="leave the originals out")
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--games", type=int, default=44, help="an update; half of them errors")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="outputs/ward_learning", help="where the trained model goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "pool":
        games = play(options.model, options.notes)
        Path(options.file).write_text("".join(json.dumps(game) + "\n" for game in games))
    else:
        games = (
            gold(options.notes)
            if options.file == "gold"
            else [Played(*json.loads(line)) for line in Path(options.file).read_text().splitlines()]
        )
    changes = [change_of(game.original, game.modified) for game in games if game.label == Label.INCORRECT.value]
    print(f"{len(games)} games, {len(changes)} errors, {len(set(changes))} different ones", flush=True)
    if options.what == "learn":
        print(json.dumps(learn(games, options), indent=1))


if __name__ == "__main__":
    main()
