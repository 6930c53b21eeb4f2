"""Demonstrations as verl's supervised trainer reads them: a Parquet file, and the data set over it.

verl finds the data set by ``data.custom_cls`` (verl 0.9.1, verl/trainer/sft_trainer.py:create_sft_dataset) and sums
``loss_mask * -log p`` over the tokens, divided by the sum of the masks (verl/workers/utils/losses.py:sft_loss), so
a mask with other values than 0 and 1 weights tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

from medserl.config.chat_template import end_of_reply
from medserl.game.demonstrations import Demonstration

SCHEMA = pa.schema(
    [
        ("role", pa.string()),
        ("messages", pa.string()),  # JSON: a list of {role, content}
        ("reply", pa.string()),
        ("thinking", pa.bool_()),
        ("decisive_start", pa.int32()),
        ("decisive_end", pa.int32()),
        ("answer_weight", pa.float32()),
        ("decisive_weight", pa.float32()),
        ("place_start", pa.int32()),
        ("place_end", pa.int32()),
        ("place_weight", pa.float32()),
        ("text_weight", pa.float32()),
    ]
)
_ROWS_PER_GROUP = 4096


@dataclass(frozen=True)
class LossWeights:
    """What a token weighs: of an answer, the assessor's verdict, an edit's first new word, a correct note, and the
    words that say what is edited (None: as the rest of the answer)."""

    answer: float = 1.0
    verdict: float = 1.0
    change: float = 1.0
    text: float = 0.0
    place: float | None = None


def write_demonstrations(demonstrations: Iterable[Demonstration], path: Path, weights: LossWeights) -> int:
    """Write demonstrations with their loss weights, in their order; returns how many. Readable by the owner only."""
    decisive_weight = {"assessor": weights.verdict, "injector": weights.change}
    path.touch(mode=0o600)
    count = 0
    with pq.ParquetWriter(path, SCHEMA) as writer:
        rows: list[dict[str, Any]] = []
        for demo in demonstrations:
            start, end = demo.decisive_in_reply or (None, None)
            first, last = demo.place_in_reply or (None, None)
            rows.append(
                {
                    "role": demo.role,
                    "messages": json.dumps(list(demo.messages)),
                    "reply": demo.reply,
                    "thinking": demo.thinking,
                    "decisive_start": start,
                    "decisive_end": end,
                    "place_start": first,
                    "place_end": last,
                    "place_weight": weights.answer if weights.place is None else weights.place,
                    "answer_weight": weights.answer,
                    "decisive_weight": decisive_weight[demo.role],
                    "text_weight": weights.text if demo.learn_text else 0.0,
                }
            )
            count += 1
            if len(rows) == _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return count


class DemonstrationDataset(Dataset[dict[str, torch.Tensor]]):
    """Tokenized demonstrations; the arguments are those that verl passes.

    Item: ``input_ids`` and ``position_ids`` int64 [tokens], ``loss_mask`` float32 [tokens].

    Raises:
        ValueError: a demonstration longer than ``data.max_length``, or a tokenizer without an end token.
    """

    def __init__(
        self, parquet_files: Any, tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1
    ) -> None:
        files = [parquet_files] if isinstance(parquet_files, str) else list(parquet_files)
        self._rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        if max_samples > 0:
            self._rows = self._rows[:max_samples]
        self._tokenizer = tokenizer
        self._max_length = int(config.max_length)
        self._end = end_of_reply(tokenizer)
        if self._end is None:
            raise ValueError("the tokenizer has no end-of-sequence token")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self._rows[index]
        prompt = self._tokenizer.apply_chat_template(
            json.loads(row["messages"]),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=row["thinking"],
        )
        prompt_ids = self._tokenizer.encode(prompt, add_special_tokens=False)
        encoded = self._tokenizer(row["reply"], add_special_tokens=False, return_offsets_mapping=True)
        ids = [*prompt_ids, *encoded["input_ids"], self._end]
        if len(ids) > self._max_length:
            raise ValueError(f"demonstration {index} has {len(ids)} tokens, data.max_length is {self._max_length}")
        mask = [row["text_weight"]] * len(prompt_ids) + [row["answer_weight"]] * (len(encoded["input_ids"]) + 1)
        for what in ("place", "decisive"):
            start, end = row[f"{what}_start"], row[f"{what}_end"]
            for i, (left, right) in enumerate(encoded["offset_mapping"]):
                if start is not None and left < end and right > start:
                    mask[len(prompt_ids) + i] = row[f"{what}_weight"]
        mask[0] = 0.0  # nothing predicts the first token, and verl's shift would wrap it around to the row before
        return {
            "input_ids": torch.tensor(ids),
            "position_ids": torch.arange(len(ids)),
            "loss_mask": torch.tensor(mask, dtype=torch.float32),
        }
