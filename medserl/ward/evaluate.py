"""Measure a model of the ward on held-out patients: do its edits pass the filter, does it find errors?

``python -m medserl.ward.evaluate --model DIR`` prints one JSON object; the greedy figures need no randomness,
the sampled ones use temperature 1.0 and a seed.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medserl.game.labels import Label, Mode
from medserl.game.parse import ParseFailure, parse_assessor, parse_edit
from medserl.game.prompts import Message, PromptSet, load_prompt_set
from medserl.game.records import LabelledNote, Note, labelled_from_notes
from medserl.game.vcf import apply_vcf
from medserl.ward import MODEL_DIR
from medserl.ward.demonstrations import PROMPT_SET
from medserl.ward.generator import SPLITS, ward_notes

MAX_NEW_TOKENS = 48


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
        return [reply for start in range(0, len(chats), self._batch_size)
                for reply in self._answer_batch(chats[start : start + self._batch_size], temperature)]  # fmt: skip

    def _answer_batch(self, chats: Sequence[Sequence[Message]], temperature: float) -> list[str]:
        prompts = [self.prompt_ids(chat) for chat in chats]
        width = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=(torch.arange(width) >= width - torch.tensor([[len(p)] for p in prompts])).long(),
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=pad,
                **(sampling if temperature > 0 else {"do_sample": False}),
            )
        return [self.tokenizer.decode(_until_end(row, self.tokenizer.eos_token_id)) for row in out[:, width:].tolist()]


def _until_end(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def injector_figures(player: Player, prompts: PromptSet, notes: Sequence[Note], temperature: float) -> dict[str, Any]:
    """Per mode: share of first attempts that the filter accepts, and the reasons for rejecting the others."""
    figures: dict[str, Any] = {}
    accepted = 0
    for mode in Mode:
        replies = player.answer([prompts.injector(note.text, mode) for note in notes], temperature)
        reasons: Counter[str] = Counter()
        for note, reply in zip(notes, replies, strict=True):
            edit = parse_edit(reply, note.text)
            if isinstance(edit, ParseFailure):
                reasons["unparseable"] += 1
            else:
                reasons[str(apply_vcf(note.text, edit.modified).reason or "accepted")] += 1
        accepted += reasons["accepted"]
        figures[mode.value] = {name: count / len(notes) for name, count in reasons.most_common()}
    figures["vcf_acceptance_rate"] = accepted / (len(Mode) * len(notes))
    return figures


def assessor_figures(
    player: Player, prompts: PromptSet, labelled: Sequence[LabelledNote], temperature: float
) -> dict[str, Any]:
    """Share of answers that parse, recall of each class (unparsed answers are wrong) and balanced accuracy."""
    replies = player.answer([prompts.assessor(note.text) for note in labelled], temperature)
    answers = [parse_assessor(reply) for reply in replies]
    recall = {}
    for label in Label:
        mine = [answer is label for note, answer in zip(labelled, answers, strict=True) if note.label is label]
        recall[label.value] = sum(mine) / len(mine)
    by_type: dict[str, list[bool]] = {}
    for note, answer in zip(labelled, answers, strict=True):
        if note.error_type:
            by_type.setdefault(note.error_type, []).append(answer is Label.INCORRECT)
    return {
        "parse_rate": sum(answer is not None for answer in answers) / len(answers),
        "recall": recall,
        "balanced_accuracy": sum(recall.values()) / len(recall),
        "recall_by_error_type": {name: sum(hits) / len(hits) for name, hits in sorted(by_type.items())},
    }


def verdict_probabilities(player: Player, prompts: PromptSet, labelled: Sequence[LabelledNote]) -> list[float]:
    """p(INCORRECT), of the two verdicts, per note; a mean of min(p, 1 - p) near 0 is a policy that cannot move."""
    stem = player.tokenizer.encode('final_answer: "', add_special_tokens=False)
    verdicts = [player.tokenizer.encode(label.value, add_special_tokens=False)[0] for label in Label]
    found = []
    with torch.inference_mode():
        for note in labelled:
            ids = torch.tensor([player.prompt_ids(prompts.assessor(note.text)) + stem])
            logits = player.model(input_ids=ids, logits_to_keep=1).logits[0, -1, verdicts]
            found.append(float(torch.softmax(logits.float(), -1)[list(Label).index(Label.INCORRECT)]))
    return found


def evaluate(player: Player, notes: Sequence[Note], seed: int) -> dict[str, Any]:
    """All figures of the two roles on ``notes``: greedy, and sampled at temperature 1.0."""
    prompts = load_prompt_set(PROMPT_SET)
    labelled = labelled_from_notes(notes)
    figures: dict[str, Any] = {}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        torch.manual_seed(seed)
        figures[name] = {
            "injector": injector_figures(player, prompts, notes, temperature),
            "assessor": assessor_figures(player, prompts, labelled, temperature),
        }
    probabilities = verdict_probabilities(player, prompts, labelled)
    figures["mean_min_p"] = sum(min(p, 1 - p) for p in probabilities) / len(probabilities)
    return figures


def token_lengths(player: Player, notes: Sequence[Note]) -> dict[str, dict[str, int]]:
    """Median, 95th percentile and maximum of the prompt tokens of each role."""
    prompts = load_prompt_set(PROMPT_SET)
    chats = {
        "injector_prompt": [prompts.injector(note.text, Mode.BENIGN) for note in notes],
        "assessor_prompt": [prompts.assessor(note.error_text or note.text) for note in notes],
    }
    found = {}
    for name, messages in chats.items():
        sizes = sorted(len(player.prompt_ids(chat)) for chat in messages)
        found[name] = {"median": sizes[len(sizes) // 2], "p95": sizes[len(sizes) * 95 // 100], "max": sizes[-1]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--thinking", action="store_true", help="let the model write the thinking block itself")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    notes = ward_notes(arguments.split, arguments.count, arguments.seed)
    player = Player.load(arguments.model, thinking=arguments.thinking)
    print(json.dumps({**evaluate(player, notes, arguments.seed), "tokens": token_lengths(player, notes)}, indent=2))


if __name__ == "__main__":
    main()
