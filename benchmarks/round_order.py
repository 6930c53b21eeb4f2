"""What a round's games take in step and at their own pace: batch-synchronous order against MedSeRL's.

usage: python benchmarks/round_order.py [--games 32] [--labelled 8] [--acceptance 0.4] [--repeats 5] [--long-tail]

Both orders do the same work: the same games, the same attempts accepted (drawn once), the same numbers of tokens, on
one vLLM (the tiny model, settings of `embedded`; on a GPU those of `embedded_gpu`). "Own pace": each game asks for its
next reply as soon as it has the last, as MedSeRL's agent loop does. "In step": all first attempts, then all second
ones, then all third ones, then all assessments. Replies are as long as the embedded model's, or, with --long-tail, of
the same mean but log-normal with sigma 0.8, as reasoning is. Passes alternate; prints a Markdown table and the ratio,
and the same in model steps, which does not depend on what else the machine does: where all sequences fit into a batch,
each step brings every reply under way one token further (prompts not counted).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ATTEMPTS = 3
PROMPT = {"injector": 130, "assessor": 80}
# Replies of the embedded default: mean and spread of a normal distribution of tokens.
REPLY = {"injector": (28, 9), "assessor": (8, 2)}
LONGEST = 120
SIGMA = 0.8
Ask = Callable[[str, int], Awaitable[None]]
"""Role and number of tokens; returns when the reply is there."""


@dataclass(frozen=True)
class Game:
    """How long each of its replies is: attempts up to the accepted one (or all three), and the assessment, if any."""

    attempts: tuple[int, ...]
    assessment: int | None


def drawn_games(options: argparse.Namespace, seed: int) -> list[Game]:
    """The round: games whose attempts are accepted with a probability, and labelled notes that are only assessed."""
    rng = random.Random(seed)

    def length(role: str) -> int:
        mean_length, spread = REPLY[role]
        if options.long_tail:
            drawn = rng.lognormvariate(math.log(mean_length) - SIGMA**2 / 2, SIGMA)
        else:
            drawn = rng.gauss(mean_length, spread)
        return max(2, min(LONGEST, round(drawn)))

    found = []
    for _ in range(options.games):
        attempts: list[int] = []
        accepted = False
        while not accepted and len(attempts) < ATTEMPTS:
            attempts.append(length("injector"))
            accepted = rng.random() < options.acceptance
        found.append(Game(tuple(attempts), length("assessor") if accepted else None))
    return found + [Game((), length("assessor")) for _ in range(options.labelled)]


async def own_pace(games: list[Game], ask: Ask) -> None:
    """Each game goes on by itself."""

    async def play(game: Game) -> None:
        for tokens in game.attempts:
            await ask("injector", tokens)
        if game.assessment is not None:
            await ask("assessor", game.assessment)

    await asyncio.gather(*map(play, games))


async def in_step(games: list[Game], ask: Ask) -> None:
    """No game's next reply before all games have the last."""
    for number in range(ATTEMPTS):
        await asyncio.gather(*(ask("injector", g.attempts[number]) for g in games if number < len(g.attempts)))
    await asyncio.gather(*(ask("assessor", g.assessment) for g in games if g.assessment is not None))


def steps(games: list[Game]) -> tuple[int, int]:
    """Model steps of a round at the games' own pace, those of the longest game, and in step, of each longest reply."""
    own = max(sum(game.attempts) + (game.assessment or 0) for game in games)
    rounds = [max((g.attempts[i] for g in games if i < len(g.attempts)), default=0) for i in range(ATTEMPTS)]
    return own, sum(rounds) + max((g.assessment for g in games if g.assessment is not None), default=0)


def engine() -> Any:
    """vLLM with the settings of the embedded configuration of this device."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from medserl.config.load import load_config

    config = load_config("embedded" if os.environ.get("VERL_PLATFORM") == "cpu" else "embedded_gpu")
    rollout = config.actor_rollout_ref.rollout
    arguments = AsyncEngineArgs(
        model=config.actor_rollout_ref.model.path,
        tensor_parallel_size=rollout.tensor_model_parallel_size,
        dtype=rollout.dtype,
        enforce_eager=rollout.enforce_eager,
        max_model_len=rollout.max_model_len,
        max_num_seqs=rollout.max_num_seqs,
        max_num_batched_tokens=rollout.max_num_batched_tokens,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=rollout.engine_kwargs.vllm.kv_cache_memory_bytes,
        seed=1,
    )
    return AsyncLLM.from_engine_args(arguments)


async def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each pass, by order; the first round warms up."""
    from vllm import SamplingParams

    llm = engine()
    count = 0

    async def ask(role: str, tokens: int) -> None:
        nonlocal count
        count += 1
        prompt = {"prompt_token_ids": [(count * 31 + j * 7) % 1700 + 1 for j in range(PROMPT[role])]}
        params = SamplingParams(temperature=1.0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True)
        async for _ in llm.generate(prompt, params, request_id=f"r{count}"):
            pass

    orders = {"own pace": own_pace, "in step": in_step}
    seconds: dict[str, list[float]] = {name: [] for name in orders}
    await own_pace(drawn_games(options, -1), ask)
    for repeat in range(options.repeats):
        games = drawn_games(options, repeat)
        for name, order in list(orders.items()) if repeat % 2 else reversed(orders.items()):
            began = time.perf_counter()
            await order(games, ask)
            seconds[name].append(time.perf_counter() - began)
    llm.shutdown()
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--games", type=int, default=32)
    parser.add_argument("--labelled", type=int, default=8)
    parser.add_argument("--acceptance", type=float, default=0.4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--long-tail", action="store_true")
    options = parser.parse_args()
    from medserl.cpu.environment import choose_device, common_environment, cpu_environment

    os.environ.update(cpu_environment() if choose_device() == "cpu" else common_environment())
    seconds = asyncio.run(measure(options))
    ratios = [slow / fast for slow, fast in zip(seconds["in step"], seconds["own pace"], strict=True)]
    print("| order | seconds of the games, mean | shortest | longest |\n| --- | --- | --- | --- |")
    for name, values in seconds.items():
        print(f"| {name} | {mean(values):.2f} | {min(values):.2f} | {max(values):.2f} |")
    print(
        f"\nin step takes {median(ratios):.2f} times as long (median of {len(ratios)} rounds of the same work, "
        f"{min(ratios):.2f} to {max(ratios):.2f})"
    )
    counted = [steps(drawn_games(options, repeat)) for repeat in range(options.repeats)]
    in_steps = [slow / fast for fast, slow in counted]
    print(
        f"in model steps: {mean(own for own, _ in counted):.0f} and {mean(slow for _, slow in counted):.0f}, "
        f"{median(in_steps):.2f} times as many ({min(in_steps):.2f} to {max(in_steps):.2f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
