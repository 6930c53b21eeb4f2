"""What can be known of a warm start before it: layout, lengths of demonstrations. No torch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import batched
from typing import Any

from omegaconf import DictConfig

from medserl.config.chat_template import rendered
from medserl.errors import ConfigError, DataError, Problems, all_told
from medserl.game import Mode, Note
from medserl.game.demonstrations import Demonstration, NoteDemonstrations

_ROWS = 256  # tokenized at a time


_LAYOUT = ("trainer.nnodes", "trainer.n_gpus_per_node", "engine.tensor_model_parallel_size",
           "engine.pipeline_model_parallel_size", "medserl.mixture")  # fmt: skip


def check_layout(config: DictConfig, problems: Problems | None = None) -> None:
    """Workers, parallel sizes and batch sizes must divide each other.

    Args:
        config: The configuration of a warm start.
        problems: Takes what does not; None: it is raised.

    Raises:
        ConfigError: names the two that do not.
    """
    with all_told(problems) as found:
        if not found.doubts(*_LAYOUT):
            _check_sizes(config)


def _check_sizes(config: DictConfig) -> None:
    """Raise ConfigError for the first two that do not divide; each stands on the one before."""
    engine, trainer, data = config.engine, config.trainer, config.data
    tp, pp = engine.tensor_model_parallel_size, engine.pipeline_model_parallel_size
    workers = trainer.nnodes * trainer.n_gpus_per_node
    if workers % (tp * pp):
        raise ConfigError(
            f"trainer.nnodes * trainer.n_gpus_per_node = {workers} workers cannot be divided by "
            f"TP {tp} x PP {pp} = {tp * pp} (engine); change one of them"
        )
    replicas = workers // (tp * pp)
    if data.train_batch_size % replicas:
        raise ConfigError(
            f"a batch of {data.train_batch_size} demonstrations (medserl.mixture) cannot be divided by {replicas} "
            "data-parallel replicas; change one of them"
        )
    own = data.train_batch_size // replicas
    if not data.use_dynamic_bsz and own % data.micro_batch_size_per_gpu:
        raise ConfigError(
            f"the {own} demonstrations of a replica cannot be divided by data.micro_batch_size_per_gpu "
            f"{data.micro_batch_size_per_gpu}; change one of them"
        )


def of_each_note(
    notes: Sequence[Note], maker: NoteDemonstrations, pairs: bool, turns: bool
) -> Iterator[tuple[str, Demonstration]]:
    """Id, and what a note offers: its pair, the turn of its gold error, whose words may be many, and one other, from
    which the rest differ by a word."""
    rng = random.Random(0)
    for note in notes:
        made = maker.assessor_pair(note, rng) if pairs else []
        if turns:
            made += maker.gold_turn(note, rng) if note.error_text is not None else []
            made += maker.injector_turn(note, Mode.ERROR, rng) or maker.injector_turn(note, Mode.BENIGN, rng)
        yield from ((f"note {note.note_id}", demo) for demo in made)


def check_lengths(
    found: Iterable[tuple[str, Demonstration]],
    tokenizer: Any,
    limit: int,
    source: str,
    context: int | None = None,
    model: str = "model.path",
) -> None:
    """No demonstration may have more tokens than ``data.max_length``, or than the model has positions.

    Args:
        found: Demonstrations, and what each is of.
        tokenizer: The model's.
        limit: ``data.max_length``.
        source: Where they come from, for the sentence.
        context: The model's ``max_position_embeddings``; None where it is not known.
        model: The key that names the model, and its directory, for the sentence.

    Raises:
        DataError: names the first that is longer.
        ConfigError: the chat template does not render one.
    """
    for rows in batched(found, _ROWS):
        for (what, demo), tokens in zip(rows, _tokens([demo for _, demo in rows], tokenizer, model), strict=True):
            if context is not None and tokens > context:
                raise DataError(
                    f"{source}: {what}: a demonstration of the {demo.role} has {tokens} tokens, the model's "
                    f"max_position_embeddings is {context}; use a model with a longer context, or leave long notes out"
                )
            if tokens > limit:
                raise DataError(
                    f"{source}: {what}: a demonstration of the {demo.role} has {tokens} tokens, data.max_length is "
                    f"{limit}; raise it as far as the model and the memory go, or leave long notes out"
                )


def _tokens(demos: Sequence[Demonstration], tokenizer: Any, model: str) -> list[int]:
    """As many as `medserl.sft.data.DemonstrationDataset` makes of each: prompt, reply and end."""
    prompts = [rendered(tokenizer, demo.messages, model, {"enable_thinking": demo.thinking}) for demo in demos]
    counts = [
        [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
        for texts in (prompts, [demo.reply for demo in demos])
    ]
    return [prompt + reply + 1 for prompt, reply in zip(*counts, strict=True)]
