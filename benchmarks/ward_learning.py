"""What the ward's assessor learns from a fixed pool of played games, by the errors in it, the update and its volume.

usage: python benchmarks/ward_learning.py explorer DIR               an injector that draws its wrong facts at random
       python benchmarks/ward_learning.py pool FILE [--model DIR]    plays the injector's side of games, once
       python benchmarks/ward_learning.py learn FILE|gold [options]  trains the shipped model's assessor on such a pool

One process and one thread of torch, without Ray, Megatron and vLLM: minutes instead of hours, for asking what self-play
could teach before a whole run does. The injector is frozen, and the assessor starts from the shipped model. No gold
label is read but by `gold`: it takes the gold errors of the same notes, and random benign edits of the table, in place
of the injector's edits. Of an answer the verdict alone is credited; the form has a loss of its own, in place of the
penalty that a whole game has for answers that cannot be read.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from medserl.ablation.cell import judge
from medserl.game import Label, Mode, load_prompt_set
from medserl.game.demonstrations import verdict_answer
from medserl.game.explored import change_of
from medserl.game.play import GameRules
from medserl.training.rows import LEAST_RIGHT
from medserl.ward import model_dir, ward_notes
from medserl.ward.coverage import facts_made
from medserl.ward.demonstrations import Mixture, demonstration_batches
from medserl.ward.generator import benign_edit, ward_cases
from medserl.ward.heldout import seen_table
from medserl.ward.oracle import OracleReferee
from medserl.ward.player import STEM, Player
from medserl.ward.table import load_table

PROMPTS = load_prompt_set("ward")
NOTE_SEED, TEST_PATIENTS, SPLITS = 7, 200, ("test", "test_heldout")
RULES = ("reward", "divided", "likelihood", "supervised")
FORM_WEIGHT = 0.3
GROUPS = 11  # notes in one pass through the model, of like length


class Played(NamedTuple):
    """An accepted edit with the oracle's label."""

    original: str
    modified: str
    label: str


# ------------------------------------------------------------------------------------------------ games


def explorer(folder: Path, notes: int, steps: int, seed: int) -> None:
    """Train the shipped model to draw a wrong fact at random where it has learnt the usual one, in all kinds of
    sentences alike; supervised, on the table's edits of training notes, injector's turns alone."""
    torch.manual_seed(seed)
    player = Player.load(model_dir())
    model = player.model
    mixture = Mixture(assessor_pairs=0, injector_turns=48, habit=0.0, thinking=0.0)
    batches = demonstration_batches(load_table(), ward_cases("train", notes, NOTE_SEED), PROMPTS, mixture, seed + 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    end = [player.tokenizer.eos_token_id]
    for number, batch in enumerate(islice(batches, steps)):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (number + 1) / 10) * max(0.05, 1 - number / steps)
        rows = [
            (player.prompt_ids(turn.messages), player.tokenizer.encode(turn.reply, add_special_tokens=False) + end)
            for turn in batch
        ]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        optimizer.zero_grad()
        for start in range(0, len(rows), 16):
            (_answers_loss(player, rows[start : start + 16]) / sum(len(answer) for _, answer in rows)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.save_pretrained(folder)
    player.tokenizer.save_pretrained(folder)


def _answers_loss(player: Player, rows: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Summed over the answers' tokens."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), width), player.tokenizer.pad_token_id)
    targets = torch.full((len(rows), width), -1)
    for row, (prompt, answer) in enumerate(rows):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        targets[row, len(prompt) - 1 : len(prompt) + len(answer) - 1] = torch.tensor(answer)
    hidden = player.model.model(input_ids=ids).last_hidden_state  # padding is on the right: causal attention suffices
    learnt = targets >= 0
    return torch.nn.functional.cross_entropy(player.model.lm_head(hidden[learnt]), targets[learnt], reduction="sum")


def play(model: Path, count: int, temperatures: Sequence[float], seed: int) -> Iterator[Played]:
    """First attempts on ``count`` training notes, kept where filter and oracle decide: one in benign mode, and one in
    error mode at each temperature."""
    torch.manual_seed(seed + 2)
    player, rules, oracle = Player.load(model), GameRules(), OracleReferee()
    notes = sorted(ward_notes("train", count, NOTE_SEED), key=lambda note: len(note.text))
    for mode, temperature in [(Mode.BENIGN, 1.0), *((Mode.ERROR, each) for each in temperatures)]:
        replies = player.answer([PROMPTS.injector(note.text, mode) for note in notes], temperature)
        for note, reply in zip(notes, replies, strict=True):
            modified, verdict = rules.judge(reply, note.text)
            if modified is not None and verdict.passed:
                label = oracle.rule(note, mode, modified).label
                if label is not None:
                    yield Played(note.text, modified, label.value)


def gold(count: int) -> Iterator[Played]:
    """The same notes with their gold errors, and benign edits of the table."""
    table, rng = seen_table(load_table()), random.Random(5)
    for case, error in ward_cases("train", count, NOTE_SEED):
        yield Played(case.text, error.apply(case), Label.INCORRECT.value)
        edit = benign_edit(table, case, rng)
        if edit is not None:
            yield Played(case.text, edit.apply(case), Label.CORRECT.value)


# ------------------------------------------------------------------------------------------------ the assessor


class Assessor:
    """A model of the ward with what its verdict reads.

    Texts that share their beginning, as a note and its edits do, share its place in the model too: half the tokens.
    It is for learning; `medserl.ward.player.verdict_probabilities`, which judges, says the same of each text.

    Args:
        directory: The model.
    """

    def __init__(self, directory: Path) -> None:
        self.player = Player.load(directory)
        self.model, self.tokenizer = self.player.model, self.player.tokenizer
        self.stem = self.tokenizer.encode(STEM, add_special_tokens=False)
        answers = [self.tokenizer.encode(verdict_answer(label), add_special_tokens=False) for label in Label]
        self.ends = [[*answer[len(self.stem) :], self.tokenizer.eos_token_id] for answer in answers]
        """What follows the stem, for CORRECT and INCORRECT: the verdict's token, then the form's last ones."""
        self._ids: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self._ids:
            self._ids[text] = self.player.prompt_ids(PROMPTS.assessor(text)) + self.stem
        return self._ids[text]

    def __call__(self, groups: Sequence[Sequence[str]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ask about texts, those of a group with a common beginning.

        Returns:
            Float (texts, 2), log-probabilities of CORRECT and INCORRECT after the form's first tokens; and (texts,),
            that of the whole form: these tokens, one of the two verdicts, and what follows one of them drawn at random.
        """
        packed = [self._packed(texts) for texts in groups]
        width = max(len(ids) for ids, _, _ in packed)
        ids = torch.full((len(groups), width), self.tokenizer.pad_token_id)
        positions = torch.zeros((len(groups), width), dtype=torch.long)
        seen = torch.zeros((len(groups), width, width), dtype=torch.bool)
        rows, places = [], []
        stem, end = len(self.stem), len(self.ends[0])
        for group, (tokens, numbers, parts) in enumerate(packed):
            ids[group, : len(tokens)], positions[group, : len(tokens)] = torch.tensor(tokens), torch.tensor(numbers)
            seen[group, len(tokens) :, 0] = True  # padding must see something
            for begin, stop, shared in parts:
                seen[group, begin:stop, begin:stop] = torch.ones(stop - begin, stop - begin, dtype=torch.bool).tril()
                seen[group, begin:stop, :shared] = True
                rows.append(group)
                places.append(list(range(stop - stem - end - 1, stop)))
        mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[:, None]
        hidden = self.model.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        chosen = hidden.last_hidden_state[torch.tensor(rows)[:, None], torch.tensor(places)]
        log_p = torch.log_softmax(self.model.lm_head(chosen[:, :-1]), -1)
        written = ids[torch.tensor(rows)[:, None], torch.tensor(places)][:, 1:]
        verdicts = log_p[:, stem, [each[0] for each in self.ends]]
        form = log_p.gather(2, written[..., None])[..., 0]
        return verdicts, form[:, :stem].sum(1) + torch.logsumexp(verdicts, 1) + form[:, stem + 1 :].sum(1)

    def _answered(self, text: str) -> list[int]:
        return self.ids(text) + self.ends[int(torch.randint(2, ()))]

    def _packed(self, texts: Sequence[str]) -> tuple[list[int], list[int], list[tuple[int, int, int]]]:
        """Tokens of the first text, then of each other one those after its common beginning; their positions; where
        each text's own tokens begin and end, and how many of the first one's it shares."""
        first = self._answered(texts[0])
        tokens, positions, parts = list(first), list(range(len(first))), [(0, len(first), 0)]
        for text in texts[1:]:
            own = self._answered(text)
            most = min(len(own) - len(self.stem) - len(self.ends[0]) - 1, len(first))
            shared = next((i for i in range(most) if own[i] != first[i]), most)
            parts.append((len(tokens), len(tokens) + len(own) - shared, shared))
            tokens += own[shared:]
            positions += range(shared, len(own))
        return tokens, positions, parts


# ------------------------------------------------------------------------------------------------ learning


def verdict_loss(log_p: torch.Tensor, wrong: torch.Tensor, rule: str, answers: int) -> torch.Tensor:
    """Of each question; (questions,). Answers are sampled here.

    Args:
        log_p: (questions, 2), log-probabilities of CORRECT and INCORRECT.
        wrong: (questions,), 1 where the text has an error.
        rule: ``reward``: REINFORCE, 1 or -1, less the mean of a question's other answers; ``divided``: 1 or 0, less
            their mean and divided by it; ``likelihood``: one answer, credited as `medserl.training.rows` does;
            ``supervised``: cross-entropy on the label.
        answers: Answers to each question.
    """
    right_log_p = torch.where(wrong > 0, log_p[:, 1], log_p[:, 0])
    other_log_p = torch.where(wrong > 0, log_p[:, 0], log_p[:, 1])
    if rule == "supervised":
        return -right_log_p
    p = (right_log_p - torch.logsumexp(log_p, 1)).exp().detach()
    if rule == "likelihood":
        right = torch.bernoulli(p)
        return -(right * right_log_p - (1 - right) * (1 - p) / p.clamp(min=LEAST_RIGHT) * other_log_p)
    right = torch.binomial(torch.full_like(p, answers), p)
    if rule == "reward":
        credit, blame = 2 * (answers - right) / (answers - 1), 2 * right / (answers - 1)
    else:
        credit, blame = torch.where(right > 0, answers / right.clamp(min=1) - 1, 0.0), (right > 0).float()
    return -(right * credit * right_log_p - (answers - right) * blame * other_log_p) / answers


class Questions:
    """Deals notes with an error, one of the note's edits at a time, its original and, where there is one, a benign
    edit of it; all notes before one comes again."""

    def __init__(self, games: Sequence[Played], rng: random.Random) -> None:
        self._edits: dict[str, tuple[list[str], list[str]]] = {}
        for game in games:
            edits = self._edits.setdefault(game.original, ([], []))
            edits[game.label != Label.INCORRECT.value].append(game.modified)
        self._notes = [note for note, (errors, _) in self._edits.items() if errors]
        self._rng, self._left = rng, list[str]()

    def take(self) -> tuple[list[str], list[float]]:
        """Texts with a common beginning, and 1 for each that has an error."""
        if not self._left:
            self._left = list(self._notes)
            self._rng.shuffle(self._left)
        note = self._left.pop()
        errors, benign = self._edits[note]
        texts, wrong = [note, self._rng.choice(errors)], [0.0, 1.0]
        return ([*texts, self._rng.choice(benign)], [*wrong, 0.0]) if benign else (texts, wrong)


def learn(games: Sequence[Played], options: argparse.Namespace) -> tuple[Assessor, int]:
    """Train the shipped model's assessor on a pool; it, and the number of questions it was asked."""
    torch.manual_seed(options.seed)
    assessor = Assessor(model_dir())
    questions = Questions(games, random.Random(options.seed))
    optimizer = torch.optim.AdamW(assessor.model.parameters(), lr=options.lr, weight_decay=0.0)
    asked = 0
    for number in range(options.updates):
        for group in optimizer.param_groups:
            annealed = 0.05 + 0.475 * (1 + math.cos(math.pi * number / options.updates))
            group["lr"] = options.lr * min(1, (number + 1) / 10) * annealed
        taken = [questions.take() for _ in range(options.games)]
        taken.sort(key=lambda question: len(assessor.ids(question[0][0])))
        labels = [label for _, group_labels in taken for label in group_labels]
        asked += len(labels)
        even = {label: len(labels) / 2 / labels.count(label) for label in (0.0, 1.0)}
        optimizer.zero_grad()
        for start in range(0, len(taken), GROUPS):
            part = taken[start : start + GROUPS]
            wrong = torch.tensor([label for _, group_labels in part for label in group_labels])
            weight = torch.where(wrong > 0, even[1.0], even[0.0])
            log_p, form = assessor([texts for texts, _ in part])
            between = torch.log_softmax(log_p, 1)
            loss = weight * verdict_loss(log_p, wrong, options.rule, options.answers)
            loss = loss + options.entropy * weight * (between.exp() * between).sum(1) - FORM_WEIGHT * form
            (loss.sum() / len(labels)).backward()
        torch.nn.utils.clip_grad_norm_(assessor.model.parameters(), 1.0)
        optimizer.step()
    return assessor, asked


def judged(model: Assessor | Player, folder: Path, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
    """What it says of patients that it was not trained on; its weights go into ``folder``."""
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return {split: judge(folder, split, TEST_PATIENTS) for split in splits}


def described(games: Sequence[Played]) -> str:
    """How many errors a pool has, and of what kinds."""
    errors = [game for game in games if game.label == Label.INCORRECT.value]
    kinds = [facts_made(game.original, game.modified)[:1] for game in errors]
    names = [kind[0].split("/")[1] if kind else "other" for kind in kinds]
    shares = {name: round(names.count(name) / len(names), 2) for name in sorted(set(names))}
    different = len({change_of(game.original, game.modified) for game in errors})
    return f"{len(games)} games, {len(errors)} errors, {different} different ones: {shares}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("explorer", "pool", "learn"))
    parser.add_argument("file", help="where the explorer goes; the pool, or gold")
    parser.add_argument("--model", type=Path, default=model_dir(), help="what plays the injector")
    parser.add_argument("--notes", type=int, default=4800)
    parser.add_argument("--steps", type=int, default=150, help="of the explorer's training")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0], help="of the injector's errors")
    parser.add_argument("--rule", choices=RULES, default="likelihood")
    parser.add_argument("--answers", type=int, default=8, help="to a question, for the rules reward and divided")
    parser.add_argument("--entropy", type=float, default=0.0, help="bonus for the verdict's entropy")
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--games", type=int, default=22, help="an update, each with two or three questions")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/ward_learning"), help="where the model goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, file = time.perf_counter(), Path(options.file)
    if options.what == "explorer":
        explorer(file, options.notes, options.steps, options.seed)
    elif options.what == "pool":
        games = list(play(options.model, options.notes, options.temperatures, options.seed))
        file.write_text("".join(json.dumps(game) + "\n" for game in games))
        print(described(games))
    else:
        read = (Played(*json.loads(line)) for line in file.read_text().splitlines()) if file.name != "gold" else None
        games = list(gold(options.notes) if read is None else read)
        print(described(games), flush=True)
        assessor, asked = learn(games, options)
        print(json.dumps({"questions": asked, **judged(assessor, options.out)}, indent=1))
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
