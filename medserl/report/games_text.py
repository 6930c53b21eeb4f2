"""The same games in a terminal: which are chosen, what they say together, and one as text with its change marked."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from medserl.gamelog.kinds import Outcome, Row, contradicts, disagree, outcome, surprise, trusted

_MARKS = {Outcome.RIGHT: " ✓", Outcome.WRONG: " ✗"}


@dataclass(frozen=True)
class Choice:
    """Which games are shown, in which order; what is None chooses nothing."""

    rounds: tuple[int, int] | None = None
    """First and last."""
    source: str | None = None
    mode: str | None = None
    error_type: str | None = None
    reason: str | None = None
    """Of any attempt that was rejected."""
    outcome: str | None = None
    contradiction: bool = False
    disagreement: bool = False
    search: str | None = None
    """Words in any order, and phrases in double quotes."""
    sort: str = "surprise"

    def fits(self, row: Row) -> bool:
        """Whether a game is chosen."""
        if self.rounds is not None and not self.rounds[0] <= row["round"] <= self.rounds[1]:
            return False
        wanted = {"source": self.source, "mode": self.mode, "error_type": self.error_type}
        if any(value is not None and row[name] != value for name, value in wanted.items()):
            return False
        if self.reason is not None and all(attempt["reason"] != self.reason for attempt in row["attempts"]):
            return False
        if self.outcome is not None and outcome(row).value != self.outcome:
            return False
        if (self.contradiction and not contradicts(row)) or (self.disagreement and not disagree(row)):
            return False
        return self.search is None or _holds(row, self.search)

    def key(self, row: Row) -> tuple[Any, ...]:
        """What the chosen games are sorted by."""
        bits = surprise(row)
        place = (row["round"], row["source"], row["place"])
        keys: dict[str, float] = {
            "newest": -row["round"],
            "oldest": row["round"],
            "surprise": 1.0 if bits is None else -bits,
            "sure": float("inf") if bits is None else bits,
            "tokens": -sum(turn["tokens"] or 0 for turn in _turns(row)),
        }
        return (keys[self.sort], *place)


@dataclass
class Tally:
    """Counts what games say together, one after the other."""

    count: Counter[str] = field(default_factory=Counter)

    def see(self, row: Row) -> None:
        """Count a game."""
        if row["mode"] is not None:
            self.count["played"] += 1
            self.count["accepted"] += row["ruling"] is not None
        if row["ruling"] in ("benign", "error"):
            self.count["decided"] += 1
            self.count["trusted"] += trusted(row)
            self.count["ruled"] += not trusted(row)
            self.count["against"] += contradicts(row)
            if row["mode"] == "benign" and not trusted(row):
                self.count["benign"] += 1
                self.count["spoilt"] += contradicts(row)
        if row["second_ruling"] is not None:
            self.count["both"] += 1
            self.count["apart"] += disagree(row)
        if row["assessor"] is not None:
            self.count[f"asked, {row['source']}"] += 1
            self.count[f"right, {row['source']}"] += outcome(row) is Outcome.RIGHT
            if row["truth"] is not None:
                self.count[f"asked {row['truth']}"] += 1
                self.count[f"wrong {row['truth']}"] += outcome(row) is Outcome.WRONG

    @property
    def rows(self) -> list[list[str]]:
        """Name, share, and of how many; what did not occur is left out."""
        found = [
            ("an edit was accepted", "accepted", "played"),
            ("label is what was asked for, not checked", "trusted", "decided"),
            ("edit was not what was asked for", "against", "ruled"),
            ("benign edit was an error", "spoilt", "benign"),
            ("referees disagree", "apart", "both"),
        ]
        asked = sorted(name.removeprefix("asked, ") for name in self.count if name.startswith("asked, "))
        found += [(f"assessor right, {source}", f"right, {source}", f"asked, {source}") for source in asked]
        found += [
            ("error that the assessor overlooked", "wrong INCORRECT", "asked INCORRECT"),
            ("sound note that it called INCORRECT", "wrong CORRECT", "asked CORRECT"),
        ]
        shown = [
            [name, f"{int(100 * self.count[part] / self.count[whole] + 0.5)} %", f"of {self.count[whole]:,}"]
            for name, part, whole in found
            if self.count[whole] and (part != "trusted" or self.count[part])
        ]
        if self.count["trusted"] and not self.count["ruled"]:
            shown.append(["edit was not what was asked for", "not measured", ""])
        return shown


def first_of_each(rows: Iterable[Row], key: Callable[[Row], tuple[Any, ...]]) -> list[Row]:
    """Of the games that showed the assessor one and the same text, the one that ``key`` puts first; all others too."""
    found: dict[str | int, Row] = {}
    for number, row in enumerate(rows):
        text = row["shown"] or number
        if text not in found or key(row) < key(found[text]):
            found[text] = row
    return list(found.values())


def words_changed(before: str, after: str) -> list[tuple[str, str]]:
    """What went and what came between two texts, word by word: pairs of ``same``, ``gone`` or ``came`` and a text."""
    a, b = (re.findall(r"\S+\s*|\s+", text) for text in (before, after))
    matcher = SequenceMatcher(None, [word.rstrip() for word in a], [word.rstrip() for word in b], autojunk=False)
    parts: list[tuple[str, str]] = []
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            parts.append(("same", "".join(b[k:m])))
            continue
        parts += [("gone", "".join(a[i:j]))] if j > i else []
        parts += [("came", "".join(b[k:m]))] if m > k else []
    return parts


def show_game(row: Row) -> None:
    """Print a game: in colour on a terminal, with [-what went-] and {+what came+} into a pipe."""
    if not sys.stdout.isatty():
        print("\n".join(["", *game_lines(row)]), flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    first, note, *rest = game_parts(row)
    console.print(Text(f"\n{printable(_joined(first))}", style="bold"))
    styles = {"gone": "strike rgb(213,94,0)", "came": "underline bold rgb(86,180,233)"}
    marked = Text()
    for kind, text in note:
        words = printable(text).rstrip() if kind in styles else printable(text)
        marked.append(words, style=styles.get(kind, ""))
        marked.append(text[len(words) :] or ("" if kind == "same" else " "))
    console.print(marked)
    for parts in rest:
        console.print(Text(printable(_joined(parts)), style="dim"))


def game_lines(row: Row) -> list[str]:
    """A game as plain lines, no control character of a text in them."""
    return [printable(_joined(parts)) for parts in game_parts(row)]


def game_parts(row: Row) -> list[list[tuple[str, str]]]:
    """The paragraphs of a game, each in pieces of `words_changed`: what happened, the note, every reply."""
    original, shown = row["original"], row["shown"]
    if shown is None and row["attempts"]:
        shown = row["attempts"][-1]["modified"]
    text = shown if shown is not None else original
    note = words_changed(original, shown) if original and shown else [("same", text or "(the text was left out)")]
    paragraphs = [[("same", headline(row))], note]
    for number, attempt in enumerate(row["attempts"], 1):
        why = "accepted" if attempt["reason"] is None else f"rejected: {_plain(attempt['reason'])}"
        paragraphs.append([("same", f"  injector {number}, {why}{_took(attempt)}{_said(attempt)}")])
    if row["assessor"] is not None:
        paragraphs.append([("same", f"  assessor{_took(row['assessor'])}{_said(row['assessor'])}")])
    return paragraphs


def headline(row: Row) -> str:
    """What happened in a game, in a line: asked for, ruled, answered."""
    asked = f"asked for: {row['mode']}" if row["mode"] else row["source"]
    parts = [f"round {row['round']}", f"{asked} ({row['error_type']})" if row["error_type"] else asked]
    if row["ruling"] is not None and trusted(row):
        parts.append(f"label as asked for, not checked: {row['ruling']}")
    elif row["ruling"] is not None:
        reason = f" ({row['ruling_reason']})" if row["ruling_reason"] else ""
        parts.append(f"referee: {row['ruling']}{reason}{', not as asked' if contradicts(row) else ''}")
    elif row["truth"] is not None:
        parts.append(f"truth: {row['truth']}")
    if disagree(row):
        parts.append(f"second referee: {row['second_ruling']}")
    kind, assessor = outcome(row), row["assessor"]
    if assessor is None:
        parts += [kind.value] if row["ruling"] is None else []
    else:
        p = "" if assessor["p_incorrect"] is None else f", p(INCORRECT) {assessor['p_incorrect']:.2f}"
        parts.append(f"assessor: {assessor['answer'] or 'no answer'}{_MARKS.get(kind, '')}{p}")
    return " · ".join(parts)


def _took(turn: Mapping[str, Any]) -> str:
    known = [
        None if turn["tokens"] is None else f"{turn['tokens']} tokens",
        None if turn["seconds"] is None else f"{turn['seconds']:.1f} s",
        None if turn["reward"] is None else f"reward {turn['reward']:+.2f}",
        f"advantage {turn['advantage']:+.2f}" if turn["advantage"] is not None else None,
    ]
    return "".join(f", {part}" for part in known if part)


def _said(turn: Mapping[str, Any]) -> str:
    return f": {' | '.join(turn['reply'].splitlines())}" if turn["reply"] else ""


def _joined(parts: list[tuple[str, str]]) -> str:
    marks = {"gone": "[-{}-]", "came": "{{+{}+}}", "same": "{}"}
    texts = []
    for kind, text in parts:
        words = text.rstrip() if kind != "same" else text
        texts.append(marks[kind].format(words) + text[len(words) :])
    return "".join(texts)


def printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _plain(reason: str) -> str:
    return reason.replace("_", " ")


def _turns(row: Row) -> list[Mapping[str, Any]]:
    return [*row["attempts"], *([row["assessor"]] if row["assessor"] else [])]


def _holds(row: Row, search: str) -> bool:
    own = [row[name] for name in ("note_id", "error_type", "original", "shown", "ruling_reason", "second_reason")]
    own += [turn[name] for turn in _turns(row) for name in ("reply", "modified") if turn.get(name)]
    text = "\n".join(part for part in own if part).lower()
    terms = re.findall(r'"[^"]+"|[^\s"]+', search.lower())
    return all(term.strip('"') in text for term in terms)
