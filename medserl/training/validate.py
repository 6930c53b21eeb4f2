"""Held-out labelled notes, judged by the policy through the rollout engine while it trains."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Sequence
from threading import Thread
from typing import Any

from omegaconf import DictConfig
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
from verl.workers.rollout.llm_server import LLMServerClient

from medserl.config.settings import GREEDY, SAMPLED, passes
from medserl.game import Label, LabelledNote, Note, PromptSet, answer_metrics, labelled_from_notes
from medserl.game.metrics import mean, ranking_auc
from medserl.game.parse import AssessorAnswer, read_answer
from medserl.game.reply import PROMPT_TAIL, opens_thinking
from medserl.gamelog.kinds import Row, Source
from medserl.gamelog.rows import Turn, held_out
from medserl.training.game_rows import said_incorrect

IN_FLIGHT = 512
_SOURCES = {GREEDY: Source.GREEDY, SAMPLED: Source.SAMPLED}


class Validator:
    """Asks the policy about every held-out note, greedily and by sampling.

    Args:
        config: The run's configuration.
        client: verl's client of the rollout servers, which hold the newest weights.
        tokenizer: The model's tokenizer.
        prompts: The prompt set of the run.
        notes: Held-out notes; both versions of each are asked about.
    """

    def __init__(
        self, config: DictConfig, client: LLMServerClient, tokenizer: Any, prompts: PromptSet, notes: Sequence[Note]
    ) -> None:
        self._client = client
        self._tokenizer = tokenizer
        self._settings = config.medserl.validation
        self._seed = int(config.medserl.seed)
        self._max_tokens = int(config.data.max_response_length)
        self._temperature = float(config.actor_rollout_ref.rollout.temperature)
        builder = create_continuous_token_builder(
            tokenizer, chat_template_kwargs=dict(config.data.apply_chat_template_kwargs)
        )
        self._originals = {note.note_id: note.text for note in notes}
        self._rows: list[Row] = []
        self.labelled: tuple[LabelledNote, ...] = tuple(labelled_from_notes(notes))
        self._prompt_ids = [builder.build_initial_tokens(prompts.assessor(note.text)) for note in self.labelled]
        self._opened = [opens_thinking(tokenizer.decode(ids[-PROMPT_TAIL:])) for ids in self._prompt_ids]

    def __call__(self, covers: Callable[[str, str], bool] | None = None) -> dict[str, float]:
        """Metrics ``val/greedy/*`` and, where configured, ``val/sampled/*``; answers that do not parse are wrong.

        Args:
            covers: Whether play has made the change from a note to its erroneous version; then the recall of errors
                is told apart by it, too (NaN where there are none of a kind), and ``val/covered_rate`` is their share.
        """
        metrics: dict[str, float] = {
            f"val/texts_{label.value.lower()}": float(sum(note.label is label for note in self.labelled))
            for label in Label
        }
        self._rows = []
        for name in passes(self._settings):
            temperature = 0.0 if name == GREEDY else self._temperature
            asked = _in_own_loop(self._ask_all(temperature))
            answers = [answer for answer, _ in asked]
            self._rows += [row | {"source": _SOURCES[name].value, "place": i} for i, (_, row) in enumerate(asked)]
            pairs = [(note.label, answer.label) for note, answer in zip(self.labelled, answers, strict=True)]
            metrics |= answer_metrics(pairs, f"val/{name}/")
            sure = [row["assessor"]["p_incorrect"] for _, row in asked]
            known = [(note.label, p) for note, p in zip(self.labelled, sure, strict=True) if p is not None]
            metrics[f"val/{name}/auc"] = ranking_auc(known)
            metrics[f"val/{name}/strict_rate"] = mean(float(answer.strict) for answer in answers)
            if covers is not None:
                metrics |= self._by_coverage(covers, [answer.label for answer in answers], f"val/{name}/")
        return metrics

    def take_rows(self, number: int) -> list[Row]:
        """What the game log keeps of the last validation, which came after round ``number``; none a second time."""
        rows, self._rows = self._rows, []
        return [row | {"round": number} for row in rows]

    def _by_coverage(
        self, covers: Callable[[str, str], bool], answers: Sequence[Label | None], prefix: str
    ) -> dict[str, float]:
        """Recall of the errors that play has covered and of the others."""
        found: dict[bool, list[float]] = {True: [], False: []}
        for note, answer in zip(self.labelled, answers, strict=True):
            if note.label is Label.INCORRECT:
                found[covers(self._originals[note.note_id], note.text)].append(float(answer is Label.INCORRECT))
        return {
            f"{prefix}recall_incorrect_covered": mean(found[True]),
            f"{prefix}recall_incorrect_uncovered": mean(found[False]),
            "val/covered_rate": mean([1.0] * len(found[True]) + [0.0] * len(found[False])),
        }

    async def _ask_all(self, temperature: float) -> list[tuple[AssessorAnswer, Row]]:
        gate = asyncio.Semaphore(IN_FLIGHT)
        return await asyncio.gather(*(self._ask(i, temperature, gate) for i in range(len(self.labelled))))

    async def _ask(self, index: int, temperature: float, gate: asyncio.Semaphore) -> tuple[AssessorAnswer, Row]:
        note = self.labelled[index]
        name = f"val/{note.note_id}/{note.label.value}"
        # The same seed at every validation: a difference between two is the policy's, not the dice's.
        seed = int.from_bytes(hashlib.sha256(f"{self._seed}/{name}".encode()).digest()[:4], "big") & 0x7FFFFFFF
        params = {"temperature": temperature, "top_p": 1.0, "top_k": -1, "max_tokens": self._max_tokens, "seed": seed}
        params["logprobs"] = True  # of the tokens that are said; they choose nothing
        async with gate:
            began = time.perf_counter()
            output = await self._client.generate(
                request_id=f"{name}/{temperature}", prompt_ids=list(self._prompt_ids[index]), sampling_params=params
            )
        ids = list(output.token_ids)
        seconds = time.perf_counter() - began
        reply = self._tokenizer.decode(ids, skip_special_tokens=True)
        answer = read_answer(reply, self._opened[index])
        sure, _ = said_incorrect(ids, output.log_probs, self._tokenizer)
        return answer, held_out(note, self._originals[note.note_id], answer, reply, len(ids), Turn(seconds, sure))


def _in_own_loop[T](coroutine: Coroutine[Any, Any, list[T]]) -> list[T]:
    """Run to the end in a thread of its own: the caller's may have an event loop already."""
    result: list[list[T] | BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(coroutine))
        except BaseException as error:
            result.append(error)

    thread = Thread(target=run, name="validation")
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]
