"""Whole games on the ward in one process: both roles learn, as in a run, without Ray, Megatron and vLLM.

usage: python benchmarks/whole_games.py [--rounds 30] [--out FILE] [options]

Notes, games, referee, rewards, what is asked again, which rows train in which mini-batch, credit and advantages are the
product's own functions under the embedded default's settings, without a gold note; what is here is the model in
transformers, AdamW and the clipped loss in plain torch. So it costs a second or two of one core a round, and says what
a whole run would teach before it takes hours. Where it differs from a run: the rate rises over the first three rounds,
a round is dealt into as many mini-batches as come nearest to `--mini` rows (verl fills the last one up), and
replies are cut off earlier.

Writes one line of JSON a round, then prints what the last weights say of test patients. The injector that explores is
made by `python benchmarks/ward_learning.py explorer DIR`.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import math
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from ward_learning import NOTE_SEED, judged

from medserl.config.load import game_settings, load_config
from medserl.config.settings import VERDICT_CREDITS, make_setup
from medserl.game import Game, LabelledNote, Note, NoteStream, Reply, Role, assess_labelled, play_game
from medserl.game.explored import WINDOW, change_of
from medserl.game.replay import Replay
from medserl.training.advantage import role_advantages
from medserl.training.exploration import accepted_edits, explored_by
from medserl.training.game_rows import said_incorrect
from medserl.training.round_state import RoundState
from medserl.training.rows import PADDING, Row, choose, deal, pairs, stratum, verdict_credits
from medserl.ward import model_dir, ward_notes
from medserl.ward.oracle import OracleReferee
from medserl.ward.player import Player

CHATS, ROWS = 64, 24  # in one pass through the model: of replies, of the update
LONGEST = {Role.INJECTOR: 48, Role.ASSESSOR: 12}  # tokens; replies in the form have 40 and 7 at most
CLIP = 0.2
RISING, LEAST_RATE = 3, 0.05  # rounds; what an annealed rate ends at, as a share
LAST, SETTLED = 10, 20  # rounds that a mean is of; that the first ones are given


class Task(NamedTuple):
    """A row of a round, as `accepted_edits` wants it: the note that is played on, or None."""

    note: Note | None


class Tokens(NamedTuple):
    """What a game carries along of a reply."""

    prompt: list[int]
    reply: list[int]


class Answers:
    """Answers what the games of a round ask, those that wait at one time together."""

    def __init__(self, players: dict[Role, Player]) -> None:
        self._players = players
        self._waiting: list[tuple[Role, list[dict[str, str]], asyncio.Future[Reply]]] = []

    async def __call__(self, role: Role, messages: list[dict[str, str]]) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((role, messages, future))
        return await future

    async def play(self, games: Sequence[Awaitable[Game]]) -> list[Game]:
        """All games to their ends."""
        tasks = [asyncio.ensure_future(game) for game in games]
        while not all(task.done() for task in tasks):
            asked = -1
            while asked != len(self._waiting):  # every game goes on until it waits for a reply
                asked = len(self._waiting)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            batch, self._waiting = self._waiting, []
            for role in Role:
                self._answer(role, [(messages, future) for asker, messages, future in batch if asker is role])
        return [task.result() for task in tasks]

    def _answer(self, role: Role, waiting: list[tuple[list[dict[str, str]], asyncio.Future[Reply]]]) -> None:
        player = self._players[role]
        for start in range(0, len(waiting), CHATS):
            part = sorted(waiting[start : start + CHATS], key=lambda each: len(each[0][0]["content"]))
            rows = player.answer_ids([messages for messages, _ in part], 1.0, LONGEST[role])
            for (_, future), (prompt, ids) in zip(part, rows, strict=True):
                text = player.tokenizer.decode(ids, skip_special_tokens=True)
                future.set_result(Reply(text, Tokens(prompt, ids), len(ids), 0))


def token_log_probs(
    player: Player, rows: Sequence[Tokens], entropies: list[torch.Tensor] | None = None
) -> list[torch.Tensor]:
    """Of each reply's tokens, (tokens,) a row; the entropies of their distributions go into ``entropies``."""
    width = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.full((len(rows), width), player.tokenizer.pad_token_id)
    before, written = [], []
    for row, (prompt, reply) in enumerate(rows):
        ids[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        before += [(row, len(prompt) - 1 + place) for place in range(len(reply))]
        written += reply
    hidden = player.model.model(input_ids=ids, use_cache=False).last_hidden_state
    places, lengths = torch.tensor(before), [len(reply) for _, reply in rows]
    log_p = torch.log_softmax(player.model.lm_head(hidden[places[:, 0], places[:, 1]]), -1)
    if entropies is not None:
        entropies.extend((-(log_p.exp() * log_p).sum(-1)).split(lengths))
    return list(log_p.gather(1, torch.tensor(written)[:, None])[:, 0].split(lengths))


def of_like_length(rows: Sequence[Tokens], size: int) -> list[list[int]]:
    """Places in ``rows``, so many at a time as go through the model together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt) + len(rows[i].reply))
    return [order[start : start + size] for start in range(0, len(order), size)]


class SelfPlay:
    """A run: the policy, the reference that it began as, and all that goes on from round to round."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        overrides = {
            "rollout_batch_size": options.play,
            "labelled_batch_size": 0,
            "replay_batch_size": options.replay,
            "notes.count": options.notes,
            "advantage.verdict_credit": options.credit,
            "train_roles": "assessor" if options.frozen else "both",
            "frozen_injector": str(options.frozen).lower(),
            "referee.name": options.referee,
            "seed": options.seed,
        }
        config = load_config("embedded", [f"medserl.{key}={value}" for key, value in overrides.items()])
        self.settings = game_settings(config)
        self.setup, self.oracle = make_setup(self.settings), OracleReferee()
        torch.manual_seed(options.seed)
        loaded = Player.load(options.model)
        self.policy = Player(loaded.model, loaded.tokenizer, batch_size=CHATS)
        self.reference = Player(copy.deepcopy(loaded.model), loaded.tokenizer, batch_size=CHATS)
        self.optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=options.lr, weight_decay=0.0)
        self.notes = NoteStream(ward_notes("train", options.notes, NOTE_SEED), options.play, options.seed)
        self.replay, self.explored = Replay(), explored_by(self.settings)
        self.advantages = role_advantages(self.settings)
        self.recent: list[set[str]] = []

    def round(self, number: int) -> dict[str, float]:
        """Play and update once; what it was like."""
        rising = min(1.0, number / RISING)
        falling = LEAST_RATE + (1 - LEAST_RATE) / 2 * (1 + math.cos(math.pi * (number - 1) / self.options.rounds))
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * rising * (falling if self.options.annealed else 1.0)
        seed = f"{self.settings.seed}/{number}"
        batch = self.notes.next_batch()
        again = self.replay.questions(self.settings.replay_batch_size, seed)
        games = self._play(list(zip(batch.notes, batch.modes, strict=True)), again)
        uids = [f"u{place:05d}" for place in range(len(games))]
        state = RoundState(games=dict(zip(uids, games, strict=True)))
        tasks = dict(zip(uids, map(Task, [*batch.notes, *[None] * len(again)]), strict=True))
        edits = accepted_edits(tasks, state.games)  # type: ignore[arg-type]
        rare = self._rare(tasks, state.games)
        self.replay.see(edits)
        found = self.explored.see(edits)
        kl, rows, steps = self._update(state, rare, number)
        played = games[: len(batch.notes)]
        decided = [game for game in played if game.decisive]
        return {
            "round": number,
            "acceptance": len(edits) / sum(len(game.attempts) for game in played),
            "inversion": sum(game.contradiction for game in decided) / max(1, len(decided)),
            "kl": kl,
            "questions": sum(row is Role.ASSESSOR for row in rows),
            "optimizer_steps": steps,
            **{name.removeprefix("edit/"): value for name, value in found.items()},
        }

    def _play(self, notes: Sequence[tuple[Note, Any]], again: Sequence[LabelledNote]) -> list[Game]:
        rules = {"prompts": self.setup.prompts, "rules": self.setup.rules}
        injector = self.reference if self.options.frozen else self.policy
        answers = Answers({Role.INJECTOR: injector, Role.ASSESSOR: self.policy})
        referees = {"referee": self.setup.referee, "second_referee": self.oracle}
        games = [play_game(note, mode, generate=answers, **rules, **referees) for note, mode in notes]
        games += [assess_labelled(each, generate=answers, replayed=True, **rules) for each in again]
        return asyncio.run(answers.play(games))

    def _rare(self, tasks: dict[str, Task], games: dict[str, Game]) -> set[str]:
        """Games whose edit makes a change that no edit of the last rounds made."""
        changes = {
            uid: change_of(task.note.text, accepted)
            for uid, task in tasks.items()
            if task.note is not None and (accepted := games[uid].accepted) is not None
        }
        known = set[str]().union(*self.recent)
        self.recent = [*self.recent, set(changes.values())][-WINDOW:]
        return {uid for uid, change in changes.items() if change not in known}

    def _update(self, state: RoundState, rare: set[str], number: int) -> tuple[float, list[Role], int]:
        """One optimizer step a mini-batch; the mean KL of a token, roles of the rows that trained, and steps."""
        turns, rewards = {}, {}
        for uid, game in state.games.items():
            for index, trajectory in enumerate(game.trajectories):
                key = f"{uid}_{index}_0"
                state.rows[key] = Row(trajectory.role, trajectory.trains, index)
                turns[key], rewards[key] = trajectory.reply.payload, trajectory.reward
                if uid in rare and trajectory.role is Role.INJECTOR and index == len(game.attempts) - 1:
                    rewards[key] += self.options.rare
        keys = choose(state.rows, state.games, self.settings, number)
        if not keys:
            return 0.0, [], 0
        state.roles = {key: state.rows[key].role.value for key in keys}
        taken = [turns[key] for key in keys]
        old, reference = self._log_probs(self.policy, taken), self._log_probs(self.reference, taken)
        for key, turn, log_p in zip(keys, taken, old, strict=True):
            if state.rows[key].role is Role.ASSESSOR:
                said = said_incorrect(turn.reply, log_p.tolist(), self.policy.tokenizer)
                state.rows[key] = replace(state.rows[key], p_incorrect=said[0], verdict_at=said[1])
        apart = [ours - theirs for ours, theirs in zip(old, reference, strict=True)]
        advantages = self._advantages(keys, state, apart, [rewards[key] for key in keys])
        steps = 0
        for hand in self._hands(keys, state, number):
            self._step([taken[i] for i in hand], [old[i] for i in hand], [advantages[i] for i in hand],
                       [state.rows[keys[i]].role for i in hand])  # fmt: skip
            steps += 1
        return float(torch.cat(apart).mean()), [state.rows[key].role for key in keys], steps

    @torch.no_grad()
    def _log_probs(self, player: Player, rows: Sequence[Tokens]) -> list[torch.Tensor]:
        found: dict[int, torch.Tensor] = {}
        for part in of_like_length(rows, CHATS):
            found |= zip(part, token_log_probs(player, [rows[i] for i in part]), strict=True)
        return [found[i] for i in range(len(rows))]

    def _advantages(
        self, keys: list[str], state: RoundState, apart: list[torch.Tensor], rewards: list[float]
    ) -> list[torch.Tensor]:
        """As `SelfPlayTrainer._compute_advantage` and what it calls of verl: KL in the token reward, returns without a
        discount, normalised by role; the weights of the roles, and the credit of verdicts."""
        lengths = [len(row) for row in apart]
        returns, mask = torch.zeros(len(keys), max(lengths)), torch.zeros(len(keys), max(lengths))
        credits = verdict_credits(keys, state, self.settings.advantage)
        for i, (row, reward) in enumerate(zip(apart, rewards, strict=True)):
            per_token = -self.options.kl * row
            per_token[-1] += reward
            returns[i, : len(row)] = per_token.flip(0).cumsum(0).flip(0)
            mask[i, : len(row)] = 1
            if i in credits:
                returns[i, : len(row)] -= credits[i].reward
        roles = [state.roles[key] for key in keys]
        weight = self.settings.advantage.injector_weight
        weights = torch.tensor([weight if role == Role.INJECTOR.value else 1.0 for role in roles])
        advantages = self.advantages(returns, mask, roles) * weights[:, None]
        for i, credit in credits.items():
            advantages[i, credit.token] = credit.advantage
        return [row[:length] for row, length in zip(advantages, lengths, strict=True)]

    def _hands(self, keys: list[str], state: RoundState, number: int) -> list[list[int]]:
        """Places in ``keys``, of each mini-batch."""
        hands = max(1, round(len(keys) / self.options.mini))
        strata = [stratum(key, state.roles, state.games) for key in keys] + [(PADDING, "")] * (-len(keys) % hands)
        dealt = deal(strata, hands, f"{self.settings.seed}/{number}", pairs(keys, state))
        return [[i for i in hand if i < len(keys)] for hand in dealt]

    def _step(
        self, rows: list[Tokens], old: list[torch.Tensor], advantages: list[torch.Tensor], roles: list[Role]
    ) -> None:
        """Clipped loss, a mean over the mini-batch's tokens."""
        self.optimizer.zero_grad()
        for part in of_like_length(rows, ROWS):
            entropies: list[torch.Tensor] | None = [] if self.options.entropy else None
            loss = torch.zeros(())
            for place, log_p in enumerate(token_log_probs(self.policy, [rows[i] for i in part], entropies)):
                i = part[place]
                if entropies is not None and roles[i] is Role.INJECTOR:
                    loss = loss - self.options.entropy * entropies[place].sum()
                ratio = (log_p - old[i]).exp()
                clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
                loss = loss + torch.max(-advantages[i] * ratio, -advantages[i] * clipped).sum()
            (loss / sum(len(row.reply) for row in rows)).backward()
        torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), 1.0)
        self.optimizer.step()


def summary(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of a run's rounds, what docs/ward.md shows of them."""
    settled = [row["acceptance"] for row in rows[SETTLED:]]
    return {
        "rounds": len(rows),
        "questions": sum(row["questions"] for row in rows),
        "optimizer_steps": sum(row["optimizer_steps"] for row in rows),
        "acceptance_last_ten": fmean(row["acceptance"] for row in rows[-LAST:]),
        "least_acceptance_after_20": min(settled) if settled else math.nan,
        **{name: rows[-1][name] for name in ("kl", "inversion", "errors_so_far", "table_coverage", "novel_rate")},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=model_dir(), help="what both roles start from")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--stop", type=int, help="end after this round, with the rates of --rounds")
    parser.add_argument("--play", type=int, default=32, help="notes a round")
    parser.add_argument("--notes", type=int, default=4800, help="training notes")
    parser.add_argument("--replay", type=int, default=0, help="questions asked again a round")
    parser.add_argument("--lr", type=float, default=1.5e-4)
    parser.add_argument("--annealed", action="store_true", help="the rate falls along a cosine over the rounds")
    parser.add_argument("--kl", type=float, default=0.01, help="coefficient of the KL term")
    parser.add_argument("--credit", choices=VERDICT_CREDITS, default="reward", help="medserl.advantage.verdict_credit")
    parser.add_argument("--mini", type=int, default=40, help="rows of a mini-batch")
    parser.add_argument("--frozen", action="store_true", help="the start model plays the injector")
    parser.add_argument("--referee", choices=("oracle", "instruction", "rules"), default="oracle")
    parser.add_argument(
        "--rare", type=float, default=0.0, help="reward for a change that the last 20 rounds did not have"
    )
    parser.add_argument("--entropy", type=float, default=0.0, help="bonus for the entropy of the injector's tokens")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, help="judge test patients after so many rounds too")
    parser.add_argument("--out", type=Path, default=Path("outputs/whole_games.jsonl"), help="a line a round")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began, folder = time.perf_counter(), options.out.with_suffix(".model")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    run, rows = SelfPlay(options), []
    with options.out.open("w") as file:
        for number in range(1, (options.stop or options.rounds) + 1):
            rows.append(run.round(number))
            last = dict[str, Any](rows[-1])
            if options.every and number % options.every == 0:
                with torch.random.fork_rng():  # judging draws answers too
                    last |= judged(run.policy, folder, ["test"])
            file.write(json.dumps(last) + "\n")
            file.flush()
    print(json.dumps({**summary(rows), **judged(run.policy, folder)}, indent=1))
    print(f"{time.perf_counter() - began:.0f} s, {time.process_time():.0f} s of one core")


if __name__ == "__main__":
    main()
