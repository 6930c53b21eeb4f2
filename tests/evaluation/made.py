"""Hand-made examples and results, without any model."""

import random
from pathlib import Path
from typing import Any

from medserl.data.records import CORRECTED_SUFFIX, LabelledExample
from medserl.evaluation.data import fingerprint
from medserl.evaluation.results import write_results
from medserl.evaluation.summary import Scored, summarise
from medserl.evaluation.votes import majority, parse_vote
from medserl.game.labels import Label

SECRET = "Mrs. Example"
FLAG = 'final_answer: "{}"'


def story(number: int) -> str:
    """Words that no other number has: texts of two notes are no near-duplicates."""
    chance = random.Random(number)
    return " ".join("".join(chance.choices("abcdefghilmnoprstu", k=7)) for _ in range(8))


def example(number: int, label: Label) -> LabelledExample:
    """Text ``number``: wrong in its sentence 1, or right."""
    sentences = (f"{SECRET} is {number} and comes for {story(number)}.", "The right knee is swollen.")
    if label is Label.CORRECT:
        text = " ".join(sentences)
        return LabelledExample(f"n{number}{CORRECTED_SUFFIX}", text, label, None, -1, None, None, sentences)
    kind = ("dose", "laterality")[number % 2]
    fixed = "The left knee is swollen."
    return LabelledExample(
        f"n{number}", " ".join(sentences), label, kind, 1, sentences[1], fixed, sentences, f"{sentences[0]} {fixed}"
    )


def examples(count: int) -> list[LabelledExample]:
    """``count`` notes, each with and without an error."""
    return [example(number, label) for number in range(count) for label in (Label.INCORRECT, Label.CORRECT)]


def full_reply(answer: str, sentence: int, correction: str) -> str:
    return f'final_answer: "{answer}"\nerror_sentence_id: {sentence}\ncorrected_sentence: {correction}'


def scored(example: LabelledExample, *replies: str, output_format: str = "flag") -> Scored:
    votes = tuple(parse_vote(reply, output_format, len(example.sentences)) for reply in replies)
    return Scored(example, votes, majority(votes))


def results_of(items: list[Scored], output_format: str = "flag", name: str = "model") -> dict[str, Any]:
    """A results file's content for ``items``, as `medserl.evaluation.run.evaluate` makes it."""
    made = [item.example for item in items]
    wrong = sum(item.label is Label.INCORRECT for item in made)
    return {
        "format_version": 1,
        "command": ["medserl", "evaluate"],
        "started": "2026-01-01T00:00:00+0000",
        "medserl": "0",
        "git_commit": None,
        "git_dirty": False,
        "packages": {"vllm": "0"},
        "model": {"name": name, "path": name, "sha256": "0" * 64},
        "data": {
            "source": "made",
            "sha256": fingerprint(made),
            "texts": len(made),
            "incorrect": wrong,
            "notes": ["one row dropped: blank text"],
        },
        "settings": {
            "format": output_format,
            "prompt_set": "clinical",
            "samples": len(items[0].votes),
            "temperature": 0.0,
            "seed": 0,
            "device": "cpu",
        },
        **summarise(items, output_format, seed=0, resamples=200),
    }


def stored(out: Path, items: list[Scored], name: str = "model", keep_text: bool = False) -> Path:
    write_results(out, results_of(items, name=name), items, keep_text)
    return out
