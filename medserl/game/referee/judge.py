"""The judge: a frozen model that compares the sentence before and after an edit.

Comparing two sentences is far easier than finding an error in a note. This is the pure part: the question, the
strict parser and the decision. Who asks the model is injected (`Ask`); `medserl.serving.judge` asks vLLM.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from medserl.game.labels import Mode
from medserl.game.parse import strip_think
from medserl.game.prompts import Message, PromptSet
from medserl.game.records import Note
from medserl.game.referee.base import Referee, Ruling, RulingKind
from medserl.game.sentences import sentence_texts

Ask = Callable[[list[Message], int], Awaitable[Sequence[str]]]
"""Asks the model: messages and a seed in, one reply per vote out. Raises `JudgeFailed` where no answer came."""

UNDECIDABLE = "UNDECIDABLE"
VERDICTS = {"ERROR": RulingKind.ERROR, "BENIGN": RulingKind.BENIGN, UNDECIDABLE: RulingKind.VOID}
_VERDICT = re.compile(rf'verdict:[ \t]*"({"|".join(VERDICTS)})"')


class JudgeFailed(RuntimeError):
    """The judge could not be asked: not reachable, an error status, no answer in time."""


class Judge(Referee):
    """Asks a model about every edit. A game that it cannot decide, or in which it fails, is void.

    Reasons of its rulings: ``judge`` (decided), ``judge_undecidable``, ``judge_unparseable`` (no reply follows the
    format), ``judge_split`` (no verdict has more than half of the votes), ``not_one_sentence`` (nothing to compare),
    and `FAILED` with the failure as ``detail``.
    """

    name: ClassVar[str] = "judge"

    def __init__(self, ask: Ask, prompts: PromptSet) -> None:
        self._ask, self._prompts = ask, prompts

    def rule(self, note: Note, mode: Mode, modified: str) -> Ruling:
        raise NotImplementedError("a judge has to be waited for: use arule")

    async def arule(self, note: Note, mode: Mode, modified: str) -> Ruling:
        """Rule on the one sentence that differs; the mode is never asked."""
        changed = changed_sentence(note.text, modified)
        if changed is None:
            return Ruling(RulingKind.VOID, "not_one_sentence")
        question = self._prompts.judge(note.text, *changed)
        seed = int.from_bytes(hashlib.sha256(f"{note.text}\0{modified}".encode()).digest()[:4], "big") & 0x7FFFFFFF
        try:
            replies = await self._ask(question, seed)
        except JudgeFailed as failure:
            return Ruling.of_failure(str(failure))
        return decide([parse_verdict(reply) for reply in replies])


def changed_sentence(original: str, modified: str) -> tuple[str, str] | None:
    """The one sentence that differs, before and after; None where not exactly one does."""
    before, after = sentence_texts(original), sentence_texts(modified)
    if len(before) != len(after):
        return None
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    return changed[0] if len(changed) == 1 else None


def parse_verdict(text: str) -> str | None:
    """The LAST ``verdict: "ERROR"|"BENIGN"|"UNDECIDABLE"`` outside the reasoning, or None; nothing is guessed."""
    verdicts = _VERDICT.findall(strip_think(text))
    return verdicts[-1] if verdicts else None


def decide(votes: Sequence[str | None]) -> Ruling:
    """The verdict that more than half of all votes give; a vote that could not be parsed (None) is for none."""
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return Ruling(RulingKind.VOID, "judge_unparseable")
    verdict, count = counts.most_common(1)[0]
    if 2 * count <= len(votes):
        return Ruling(RulingKind.VOID, "judge_split")
    return Ruling(VERDICTS[verdict], "judge_undecidable" if verdict == UNDECIDABLE else "judge")
