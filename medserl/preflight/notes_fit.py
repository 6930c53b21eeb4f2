"""Whether the prompts that the notes of a run make fit its model. No torch; transformers for the tokenizer only."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from omegaconf import DictConfig

from medserl.config.judge import fit_judge
from medserl.config.load import game_settings
from medserl.config.plugins import described
from medserl.config.settings import ORACLE, GameSettings, labelled_per_round, make_setup
from medserl.data.rounds import labelled_notes, training_notes
from medserl.errors import DataError
from medserl.game import Note
from medserl.preflight.prompt_lengths import (
    TOKENS_PER_EDITED_WORD,
    Prompt,
    load_tokenizer,
    note_prompts,
    token_lengths,
)

MODEL = "actor_rollout_ref.model.path"
LONGEST_PROMPT = "data.max_prompt_length"
_log = logging.getLogger("medserl.data")


def settle_prompt_length(config: DictConfig, model: dict[str, Any]) -> tuple[frozenset[Note], int]:
    """Notes of one's own that need longer prompts than the configuration has room for get that room, where the model's
    context has it, and a line says so.

    Returns:
        The notes that were measured, all training notes where ``medserl.notes.path`` names a file, else none; and the
        tokens that the longest prompt of them needs.

    Raises:
        DataError: unusable notes, or one that the model's context has no room for.
    """
    settings, rollout = game_settings(config), config.actor_rollout_ref.rollout
    if settings.notes.path is None:
        return frozenset(), 0
    notes = training_notes(settings)
    before, context = config.data.max_prompt_length, model.get("max_position_embeddings")
    room = max(before, context - config.data.max_response_length) if isinstance(context, int) else before
    needed = check_prompt_lengths(config, settings, notes, room)
    if needed > before:
        what = (settings.notes.path, LONGEST_PROMPT, needed, before)
        _log.warning("%s: %s is %d instead of %d, which the longest note needs", *what)
        config.data.max_prompt_length = needed
        rollout.max_model_len = max(rollout.max_model_len, needed + config.data.max_response_length)
        if not rollout.enable_chunked_prefill:  # vLLM then takes no prompt that is longer than a batch
            rollout.max_num_batched_tokens = max(rollout.max_num_batched_tokens, rollout.max_model_len)
        fit_judge(config, game_settings(config))
    return frozenset(notes), needed


def check_prompt_lengths(
    config: DictConfig, settings: GameSettings, notes: Sequence[Note], room: int | None = None
) -> int:
    """Every prompt of every note must fit data.max_prompt_length: verl would cut it in silence.

    Args:
        config: The configuration.
        settings: Its typed ``medserl`` section.
        notes: The notes.
        room: Tokens that a prompt may have instead of data.max_prompt_length.

    Returns:
        Tokens that the longest prompt needs; 0 without notes.

    Raises:
        DataError: names the first note that does not fit.
        ConfigError: the chat template does not render a prompt.
    """
    path = config.actor_rollout_ref.model.path
    tokenizer = load_tokenizer(path)
    every = [*notes, *labelled_extra(settings, notes)]
    check_special_tokens(settings, tokenizer, every)
    limit, longest = room or config.data.max_prompt_length, 0
    slack = TOKENS_PER_EDITED_WORD * settings.vcf.max_word_edits
    options = dict(config.data.apply_chat_template_kwargs)
    for chunk in _chunks(_prompts(settings, every), 512):
        lengths = token_lengths(tokenizer, [prompt.messages for _, prompt in chunk], options, f"{MODEL}: {path}")
        for (note, prompt), length in zip(chunk, lengths, strict=True):
            needed = length + (slack if prompt.grows else 0)
            longest = max(longest, needed)
            if needed > limit:
                edit = f" ({length} and room for an edit of {slack})" if prompt.grows else ""
                raise DataError(
                    f"{described(settings.notes)}: note {note.note_id}: its {prompt.kind} "
                    f"prompt needs {needed} tokens{edit}, {_what_is(room, limit)} or leave the note out"
                )
    return longest


def _what_is(room: int | None, limit: int) -> str:
    """What a prompt does not fit, and what helps."""
    if room is None:
        return f"{LONGEST_PROMPT} is {limit}; raise it"
    return f"the model's context leaves {limit}; take another model"


_SHOWN = 200
"""Notes that the oracle is shown before a start."""


def check_referee_knows(settings: GameSettings, notes: Sequence[Note]) -> None:
    """The oracle knows notes that were made from its table; a run on others would be void games and nothing else.

    Raises:
        DataError: it knows less than half of the first notes.
    """
    if settings.notes.path is None or ORACLE not in (settings.referee.name, settings.second_referee.name):
        return
    setup, shown = make_setup(settings), notes[:_SHOWN]
    for referee in (setup.referee, setup.second_referee):
        knows = getattr(referee, "knows", None)
        if referee is None or referee.name != ORACLE or knows is None:
            continue
        known = sum(map(knows, (note.text for note in shown)))
        if 2 * known < len(shown):
            raise DataError(
                f"{settings.notes.path}: the referee oracle knows the condition of {known} of {len(shown)} notes, and "
                "games of the others are void; it is for notes of the ward, with the table that they were made from "
                "(medserl.referee.options.table): take another referee (docs/game.md)"
            )


def labelled_extra(settings: GameSettings, notes: Sequence[Note]) -> list[Note]:
    """Gold-labelled notes that are none of the training notes."""
    if not labelled_per_round(settings):
        return []
    known = set(notes)
    return [note for note in labelled_notes(settings, list(notes)) if note not in known]


def check_special_tokens(settings: GameSettings, tokenizer: Any, notes: Iterable[Note]) -> None:
    """No note may hold a special token of the model's own tokenizer: it would end a turn, or speak for the model.

    The reader refuses the chat tokens of today's models whatever the tokenizer; this finds all others.
    """
    special = special_tokens(tokenizer)
    if not special:
        return
    pattern = re.compile("|".join(re.escape(token) for token in sorted(special, key=len, reverse=True)))
    for note in notes:
        found = next((m for text in (note.text, note.error_text) if text and (m := pattern.search(text))), None)
        if found is not None:
            raise DataError(
                f"{settings.notes.path or 'the synthetic ward'}: note {note.note_id}: holds {found.group()}, a special "
                "token of the model's tokenizer, which would end or begin a turn of the prompt; take it out"
            )


def special_tokens(tokenizer: Any) -> set[str]:
    """The tokens of a tokenizer that mean something in a prompt; added ones that are plain words are not among them."""
    added = {str(token) for token in tokenizer.get_added_vocab()}
    marked = {token for token in added if token[:1] in "<[" and token[-1:] in ">]"}
    return {str(token) for token in tokenizer.all_special_tokens if str(token).strip()} | marked


def _prompts(settings: GameSettings, notes: Iterable[Note]) -> Iterator[tuple[Note, Prompt]]:
    prompts = make_setup(settings).prompts
    for note in notes:
        types = settings.error_types or ()
        for prompt in note_prompts(prompts, note.text, note.error_text, settings.injector_format, types):
            yield note, prompt


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
