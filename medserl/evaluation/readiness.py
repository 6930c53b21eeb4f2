"""Whether a model is ready for self-play: what of its edits the filter accepts, and what of its answers can be read.

usage: python -m medserl.evaluation.readiness MODEL NOTES [--count N] [--attempts N] [--out FILE] [KEY=VALUE …]

Replies are drawn as a game draws them (temperature and limits of the configuration). ``medserl selftest --real`` asks
this before and after a warm start.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medserl.config.load import game_settings
from medserl.config.settings import game_rules
from medserl.evaluation import engine
from medserl.evaluation.model import check_files, model_directory
from medserl.evaluation.run import Request, engine_config
from medserl.files import write_atomically
from medserl.game import Mode, Note, VCFRolloutGenerator, load_notes, load_prompt_set
from medserl.game.parse import read_answer
from medserl.game.reply import Form


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a model's replies were, in counts."""

    notes: int
    first_accepted: int
    """Notes whose first edit passed the filter."""
    accepted: int
    """Notes of which one of the allowed attempts passed."""
    rejections: dict[str, int]
    """Rejected attempts by reason."""
    texts: int
    """That the assessor was asked about."""
    parsed: int
    """Replies that say CORRECT or INCORRECT."""
    strict: int
    """Those of them that keep the strict form."""
    verdicts: dict[str, int]

    @property
    def first_share(self) -> float:
        """Share of first edits that passed."""
        return self.first_accepted / self.notes

    @property
    def parsed_share(self) -> float:
        """Share of the assessor's replies that can be read."""
        return self.parsed / self.texts


def chosen_notes(path: Path, count: int, seed: int) -> list[Note]:
    """Notes of a file that have a gold error where there are enough of them, ``count`` at most, in a drawn order."""
    notes = load_notes(path)
    random.Random(f"medserl readiness {seed}").shuffle(notes)
    return sorted(notes, key=lambda note: note.error_text is None)[:count]


def readiness(request: Request, notes: Sequence[Note], attempts: int) -> Readiness:
    """Ask a model for an edit of every note, every other one harmless, and for a verdict on each and on its gold error.

    Args:
        request: Model, seed, prompt set and overrides; ``data`` is not looked at.
        notes: At least one.
        attempts: Most edits of a note.

    Raises:
        UserError: a model or a setting that cannot work; nothing was started then.
    """
    directory = model_directory(request.model)
    check_files(directory, f"--model {request.model}")
    config = engine_config(request)
    settings = game_settings(config)
    rules = replace(game_rules(settings), max_attempts=attempts)
    prompts = load_prompt_set(request.prompt_set or settings.prompt_set)
    prompts.check_format(rules.injector_format)
    rollout = config.actor_rollout_ref.rollout
    decoding = engine.Decoding(
        output_format="flag",
        temperature=float(rollout.temperature),
        max_tokens=int(config.data.max_response_length),
        seed=request.seed,
    )
    texts = [text for note in notes for text in (note.text, note.error_text) if text is not None]
    modes = [Mode.ERROR if i % 2 else Mode.BENIGN for i in range(len(notes))]
    asked = [prompts.injector(note.text, mode, rules.injector_format) for note, mode in zip(notes, modes, strict=True)]
    engine.prepare_device(config)
    answer = engine.Chat(directory, engine.engine_options(config), decoding, [*asked, *map(prompts.assessor, texts)])
    played = VCFRolloutGenerator(answer, prompts, rules).generate_with_vcf(None, notes, modes)
    found = [read_answer(reply) for reply in answer([prompts.assessor(text) for text in texts])]
    read = [item for item in found if item.label is not None]
    return Readiness(
        notes=len(notes),
        first_accepted=played.statistics.accepted_by_number[0],
        accepted=played.statistics.accepted,
        rejections={why.value: count for why, count in played.statistics.rejections.items() if count},
        texts=len(texts),
        parsed=len(read),
        strict=sum(item.form is Form.STRICT for item in read),
        verdicts=dict(Counter(str(item.label.value) for item in read if item.label is not None)),
    )


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write a file of JSON where one is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("notes", type=Path)
    parser.add_argument("--count", type=int, default=40, help="notes (default: 40)")
    parser.add_argument("--attempts", type=int, default=1, help="edits of a note at most (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options, overrides = parser.parse_known_args(arguments)
    request = Request(model=options.model, seed=options.seed, overrides=tuple(overrides))
    found = readiness(request, chosen_notes(options.notes, options.count, options.seed), options.attempts)
    told: dict[str, Any] = asdict(found)
    print(json.dumps(told))
    if options.out is not None:
        write_atomically(options.out, json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
