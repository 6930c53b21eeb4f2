"""The games of some runs as a page reads them: columns of small numbers for what is filtered and sorted, and texts in
chunks that are unpacked as they are looked at. Both gzip and base64, so that nothing in a note is markup.

64 000 games of the ward take some 6 MB.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from medserl.game.labels import ERROR_TYPES, Label, Mode
from medserl.game.referee.base import RulingKind
from medserl.game.vcf import Reason
from medserl.gamelog.kinds import Outcome, Row, Source, outcome, trusted
from medserl.gamelog.parts import parts
from medserl.gamelog.read import check_games, read_games, read_part
from medserl.gamelog.rows import redacted

CHUNK_BYTES = 400_000
"""So much of a run's log, in the form it is stored in, is unpacked together: some hundred games."""
_LISTED: dict[str, list[str]] = {
    "source": [source.value for source in Source],
    "mode": [mode.value for mode in Mode],
    "outcome": [kind.value for kind in Outcome],
    "ruling": [kind.value for kind in RulingKind],
    "reason": [reason.value for reason in Reason],
    "label": [label.value for label in Label],
}
NUMBERS = (
    *("run", "round", "source", "place", "mode", "type", "outcome", "ruling", "second", "truth", "answer", "p"),
    *("injector", "assessor", "reasons", "tries", "tokens", "trusted"),
)
"""Columns of a page's index: places in the lists of its vocabulary, -1 for none; ``p``: p(INCORRECT) in thousandths;
``injector``, ``assessor``: rewards in hundredths, null for none; ``reasons``: a bit for each of the filter's;
``trusted``: 1 where the label is what was asked for and nobody checked it."""


def names_of(run_dirs: Sequence[Path]) -> list[str]:
    """What the runs are called: the end of their path that tells them apart."""
    paths = [run_dir.absolute() for run_dir in run_dirs]
    depth = 1
    while depth < max(len(path.parts) for path in paths):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
        depth += 1
    return [str(path) for path in paths]


def read_runs(run_dirs: Sequence[Path], redact: bool = False) -> Iterator[Row]:
    """The games of some runs.

    Raises:
        ConfigError: one of them holds no games; before anything is read.
    """
    for run_dir in run_dirs:
        check_games(run_dir)
    return (redacted(row) if redact else row for run_dir in run_dirs for row in read_games(run_dir))


@dataclass(frozen=True)
class Chunk:
    """Neighbouring games of one run: their columns of `NUMBERS`, and their texts as the page unpacks them."""

    columns: dict[str, list[int | None]]
    texts: str

    @property
    def games(self) -> int:
        return len(self.columns["run"])


class Packer:
    """Packs the games of some runs; a second time only what is new, while the runs go on.

    Args:
        run_dirs: The runs.
        redact: Leave out the texts, and what says whose a note is.
        see: Is shown every game that is packed anew.
    """

    def __init__(
        self, run_dirs: Sequence[Path], redact: bool = False, see: Callable[[Row], None] = lambda row: None
    ) -> None:
        self.run_dirs, self.redact, self._see = list(run_dirs), redact, see
        self.runs = names_of(run_dirs)
        self._words = {name: list(words) for name, words in _LISTED.items()} | {"type": list(ERROR_TYPES)}
        self._known: dict[tuple[Any, ...], Chunk] = {}

    def pack(self) -> dict[str, Any]:
        """Everything that a page shows: ``index`` and ``chunks``, each base64 of gzip of JSON, how many ``games``."""
        chunks = {key: self._known.get(key) or self._chunk(*key) for key in self._keys()}
        self._known = chunks
        return self.index_of(list(chunks.values()))

    def index_of(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """The same of chunks that were made already."""
        columns = {name: [value for chunk in chunks for value in chunk.columns[name]] for name in NUMBERS}
        starts = list(accumulate((chunk.games for chunk in chunks), initial=0))
        index = {"runs": self.runs, "words": self._words, "columns": columns, "starts": starts, "redacted": self.redact}
        return {"index": _packed(index), "chunks": [chunk.texts for chunk in chunks], "games": starts[-1]}

    def _keys(self) -> Iterator[tuple[int, tuple[tuple[Path, int, int], ...]]]:
        """Number of a run, and place, size and time of each of some neighbouring parts of its log."""
        for run, run_dir in enumerate(self.run_dirs):
            pending: list[tuple[Path, int, int]] = []
            for part in parts(run_dir):
                try:
                    status = part.stat()
                except FileNotFoundError:  # the log is kept short
                    continue
                pending.append((part, status.st_size, status.st_mtime_ns))
                if sum(size for _, size, _ in pending) >= CHUNK_BYTES:
                    yield run, tuple(pending)
                    pending = []
            if pending:
                yield run, tuple(pending)

    def _chunk(self, run: int, there: Sequence[tuple[Path, int, int]]) -> Chunk:
        return self.chunk(run, [row for part, _, _ in there for row in read_part(part)])

    def chunk(self, run: int, rows: Sequence[Row]) -> Chunk:
        """A chunk of rows of a run, by its number."""
        if self.redact:
            rows = [redacted(row) for row in rows]
        columns: dict[str, list[int | None]] = {name: [] for name in NUMBERS}
        for row in rows:
            self._see(row)
            for name, value in _numbers(run, row, self._words).items():
                columns[name].append(value)
        return Chunk(columns, _packed(_texts(rows)))


def _packed(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode("ascii")


def _numbers(run: int, row: Row, words: Mapping[str, list[str]]) -> dict[str, int | None]:
    assessor, attempts = row["assessor"], row["attempts"] or []
    rewards = [attempt["reward"] for attempt in attempts if attempt["reward"] is not None]
    replies = [*attempts, *([assessor] if assessor else [])]
    reasons = {attempt["reason"] for attempt in attempts} - {None}
    return {
        "run": run,
        "round": row["round"],
        "source": _place(words["source"], row["source"]),
        "place": row["place"] or 0,
        "mode": _place(words["mode"], row["mode"]),
        "type": _place(words["type"], row["error_type"]),
        "outcome": words["outcome"].index(outcome(row).value),
        "ruling": _place(words["ruling"], row["ruling"]),
        "second": _place(words["ruling"], row["second_ruling"]),
        "truth": _place(words["label"], row["truth"]),
        "answer": _place(words["label"], assessor and assessor["answer"]),
        "p": -1 if assessor is None or assessor["p_incorrect"] is None else round(assessor["p_incorrect"] * 1000),
        "injector": _rounded(rewards[-1] if rewards else None, 100),
        "assessor": _rounded(assessor and assessor["reward"], 100),
        "reasons": sum(1 << _place(words["reason"], reason) for reason in reasons),
        "tries": len(attempts),
        "tokens": sum(reply["tokens"] or 0 for reply in replies),
        "trusted": int(trusted(row)),
    }


def _place(words: list[str], word: str | None) -> int:
    """Where a word stands in its list, which grows by words that this version does not know; -1 for none."""
    if not word:
        return -1
    if word not in words:
        words.append(word)
    return words.index(word)


def _rounded(value: float | None, factor: int) -> int | None:
    return None if value is None or not math.isfinite(value) else round(value * factor)


def _texts(rows: Sequence[Row]) -> dict[str, Any]:
    """A chunk: the notes of its games, each once, and of each game its id, its note's place, and the rest as changes
    of that note."""
    notes: dict[str, int] = {}
    games = []
    for row in rows:
        original = row["original"]
        place = -1 if original is None else notes.setdefault(original, len(notes))
        attempts = [_try(original, attempt) for attempt in row["attempts"] or []]
        assessor = row["assessor"]
        turn = [assessor["form"], _rounded(assessor["task_reward"], 100), *_reply(assessor)] if assessor else None
        shown = _change(original, row["shown"])
        games.append(
            [row["note_id"] or "", place, shown, attempts, row["ruling_reason"] or "", row["second_reason"] or "", turn]
        )
    return {"notes": list(notes), "games": games}


def _try(original: str | None, attempt: Mapping[str, Any]) -> list[Any]:
    similarity = _rounded(attempt["jaccard"], 1000)
    change = _change(original, attempt["modified"])
    return [change, attempt["reason"] or "", attempt["word_edits"], similarity, *_reply(attempt)]


def _reply(turn: Mapping[str, Any]) -> list[Any]:
    """What the page reads as ``reply, strict, tokens, thinking tokens, seconds, reward, trained, advantage``."""
    numbers = [_rounded(turn[name], 100) for name in ("seconds", "reward")]
    return [
        *(turn["reply"] or "", int(bool(turn["strict"])), turn["tokens"], turn["think_tokens"]),
        *(*numbers, int(bool(turn["trained"])), _rounded(turn["advantage"], 1000)),
    ]


def _change(original: str | None, text: str | None) -> Any:
    """A text as what it does not share with the note: [characters at its start, at its end, what stands between], the
    numbers in JavaScript's units; the text itself where there is no note."""
    if text is None or original is None:
        return text
    limit = min(len(original), len(text))
    start = _shared(original, text, limit)
    end = _shared(original[::-1], text[::-1], limit - start)
    return [_units(text[:start]), _units(text[len(text) - end :]), text[start : len(text) - end]]


def _shared(a: str, b: str, limit: int) -> int:
    """How many characters two texts share at their start, at most ``limit``."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low


def _units(text: str) -> int:
    """Length in UTF-16."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
