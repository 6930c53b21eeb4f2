"""Tokens that an accepted edit costs, in the formats `edit`, `note` and `phrase`, on notes with gold errors.

usage: python benchmarks/formats.py NOTES [--tokenizer FILE] [--acceptance 0.4]

NOTES is a file with `correct_note` and `incorrect_note`, such as MEDEC's pairs. The reply that makes the gold error is
written in each format and filtered as in a game; what the filter rejects is paid for too. FILE is a `tokenizer.json`
(default: the one of the tiny model, which cuts real words into more pieces). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tokenizers import Tokenizer

from medserl.game.demonstrations import changed_sentence, edit_answer, note_answer
from medserl.game.load import load_notes
from medserl.game.phrase import changed_phrase, phrase_answer
from medserl.game.vcf import apply_vcf
from medserl.ward import model_dir


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notes", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=model_dir() / "tokenizer.json")
    parser.add_argument("--acceptance", type=float, default=0.4, help="share of attempts that the filter accepts")
    options = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(options.tokenizer))

    def tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    costs: dict[str, list[int]] = {"phrase": [], "edit": [], "note": []}
    accepted = several = 0
    for note in load_notes(options.notes):
        if note.error_text is None:
            continue
        change, words = changed_sentence(note.text, note.error_text), changed_phrase(note.text, note.error_text)
        if change is None or words is None:  # `edit` cannot say it
            several += 1
            continue
        costs["phrase"].append(tokens(phrase_answer(*words)))
        costs["edit"].append(tokens(edit_answer(*change)))
        costs["note"].append(tokens(note_answer(note.error_text)))
        accepted += apply_vcf(note.text, note.error_text).passed
    tried = len(costs["edit"])
    if not accepted:
        print("no gold error is accepted by the filter", file=sys.stderr)
        return 1
    print(f"{tried} gold errors in one sentence ({several} in several left out), {accepted} accepted by the filter\n")
    at = f"{options.acceptance:.0%}"
    print("| format | tokens of a reply | per accepted edit, gold errors | per accepted edit, " + at + " accepted |")
    print("| --- | --- | --- | --- |")
    for name, values in costs.items():
        at_rate = mean(values) / options.acceptance
        print(f"| `{name}` | {mean(values):.1f} | {sum(values) / accepted:.1f} | {at_rate:.1f} |")
    times = {name: mean(costs[name]) / mean(costs["edit"]) for name in ("note", "phrase")}
    print(
        "\n" + "; ".join(f"`{name}` costs {ratio:.2f} times as many tokens as `edit`" for name, ratio in times.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
