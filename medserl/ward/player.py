"""A model of the ward in this process, on the CPU: replies and probabilities without vLLM.

For what cannot start an engine each time: a cell of a bench, the recipe of the shipped model, tests. Figures come from
`medserl.game.metrics`; `medserl evaluate --data ward:test` is the evaluation for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medserl.game.labels import Label
from medserl.game.parse import parse_assessor
from medserl.game.prompts import Message, PromptSet
from medserl.game.records import LabelledNote

MAX_NEW_TOKENS = 48
STEM = 'final_answer: "'
"""What stands before a verdict in the strict form."""


class Player:
    """A causal language model with its tokenizer that answers batches of chats on the CPU."""

    def __init__(self, model: Any, tokenizer: Any, *, thinking: bool = False, batch_size: int = 128) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._thinking, self._batch_size = thinking, batch_size

    @classmethod
    def load(cls, directory: Path, *, thinking: bool = False) -> Player:
        """Read a model directory; the weights are computed with in float32."""
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        return cls(model, AutoTokenizer.from_pretrained(directory), thinking=thinking)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=self._thinking
        )
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def answer(self, chats: Sequence[Sequence[Message]], temperature: float = 0.0) -> list[str]:
        """One reply per chat, without the end-of-turn token; greedy where ``temperature`` is 0."""
        end = self.tokenizer.eos_token_id
        replies = (reply for _, reply in self.answer_ids(chats, temperature))
        return [self.tokenizer.decode(reply[:-1] if reply[-1:] == [end] else reply) for reply in replies]

    def answer_ids(
        self, chats: Sequence[Sequence[Message]], temperature: float = 0.0, longest: int = MAX_NEW_TOKENS
    ) -> list[tuple[list[int], list[int]]]:
        """Token ids of each chat's prompt and of its reply, with the end-of-turn token where it came to that.

        Args:
            chats: They are answered in their order, so many at a time as the player was told.
            temperature: Of the sampling; 0 is greedy.
            longest: A reply is cut off after so many tokens.
        """
        starts = range(0, len(chats), self._batch_size)
        batches = (chats[start : start + self._batch_size] for start in starts)
        return [row for batch in batches for row in self._answer_batch(batch, temperature, longest)]

    def _answer_batch(
        self, chats: Sequence[Sequence[Message]], temperature: float, longest: int
    ) -> list[tuple[list[int], list[int]]]:
        prompts = [self.prompt_ids(chat) for chat in chats]
        width = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=(torch.arange(width) >= width - torch.tensor([[len(p)] for p in prompts])).long(),
                max_new_tokens=longest,
                pad_token_id=pad,
                **(sampling if temperature > 0 else {"do_sample": False}),
            )
        replies = (_to_end(row, self.tokenizer.eos_token_id) for row in out[:, width:].tolist())
        return list(zip(prompts, replies, strict=True))


def _to_end(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


def ask_assessor(
    player: Player, prompts: PromptSet, labelled: Sequence[LabelledNote], temperature: float
) -> list[tuple[Label, Label | None]]:
    """(truth, answer) of each note; None where the reply does not parse."""
    replies = player.answer([prompts.assessor(note.text) for note in labelled], temperature)
    return [(note.label, parse_assessor(reply)) for note, reply in zip(labelled, replies, strict=True)]


def verdict_probabilities(player: Player, prompts: PromptSet, labelled: Sequence[LabelledNote]) -> list[float]:
    """p(INCORRECT), of the two verdicts, per note; a mean of min(p, 1 - p) near 0 is a policy that cannot move."""
    stem = player.tokenizer.encode(STEM, add_special_tokens=False)
    verdicts = [player.tokenizer.encode(label.value, add_special_tokens=False)[0] for label in Label]
    found = []
    with torch.inference_mode():
        for note in labelled:
            ids = torch.tensor([player.prompt_ids(prompts.assessor(note.text)) + stem])
            logits = player.model(input_ids=ids, logits_to_keep=1).logits[0, -1, verdicts]
            found.append(float(torch.softmax(logits.float(), -1)[list(Label).index(Label.INCORRECT)]))
    return found
