"""One text's replies, and the one prediction that they add up to. Pure."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from medserl.game.labels import Label
from medserl.game.metrics import mean
from medserl.game.parse import ParseFailure, parse_full, read_answer
from medserl.game.reply import Form

FORMATS = ("flag", "full")
"""What an assessor is asked for: the verdict; or verdict, sentence number and correction."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One parsed reply."""

    answer: Label | None
    """None where the reply does not parse; ``failure`` then says why."""
    sentence_id: int | None = None
    """-1 with CORRECT; None in the format ``flag`` and where nothing parsed."""
    correction: str | None = None
    failure: str | None = None
    p_incorrect: float | None = None
    tokens: int = 0
    cut: bool = False
    """It ran into the limit of tokens."""
    reply: str = ""
    form: Form | None = None
    """How the answer was stated, or why there is none; None where no reply was made."""


def parse_vote(
    reply: str, output_format: str, sentence_count: int, opened: bool = False, verdict_alone: bool = False
) -> Vote:
    """A reply in one of `FORMATS` to a prompt with ``sentence_count`` numbered sentences.

    ``opened``: the rendered prompt ended in an open ``<think>``. ``verdict_alone``: in the format ``full``, a verdict
    counts although sentence and correction are missing or wrong.
    """
    if output_format == "flag":
        found = read_answer(reply, opened)
        return Vote(found.label, failure=found.why, reply=reply, form=found.form)
    parsed = parse_full(reply, sentence_count, opened)
    if isinstance(parsed, ParseFailure) and verdict_alone and parsed.answer is not None:
        return Vote(parsed.answer, reply=reply, form=parsed.form)
    if isinstance(parsed, ParseFailure):
        return Vote(None, failure=parsed.why, reply=reply, form=parsed.form)
    return Vote(parsed.answer, parsed.error_sentence_id, parsed.corrected_sentence, reply=reply, form=parsed.form)


def majority(votes: Sequence[Vote]) -> Vote:
    """The prediction of one or more votes, whatever their order.

    The answer is the one given most often; at a tie the one that the mean ``p_incorrect`` speaks for, and CORRECT
    where that is unknown or one half: a note is not accused by half of the voices. Replies that do not parse do not
    vote, and if none parses neither does the prediction. Sentence number: the commonest among the votes with that
    answer, then correction: the commonest among those with that number; at a tie the one whose votes are surest of an
    error, then the smallest. ``p_incorrect``: mean over the votes that have one. Raises ValueError for no votes.
    """
    if not votes:
        raise ValueError("there are no votes")
    probability = _mean_or_none([vote.p_incorrect for vote in votes])
    cut, tokens = any(vote.cut for vote in votes), sum(vote.tokens for vote in votes)
    given = Counter(vote.answer for vote in votes if vote.answer is not None)
    if not given:
        failure = min(vote.failure or "" for vote in votes)
        return Vote(None, failure=failure, p_incorrect=probability, tokens=tokens, cut=cut)
    margin = given[Label.INCORRECT] - given[Label.CORRECT] or (0.0 if probability is None else probability - 0.5)
    answer = Label.INCORRECT if margin > 0 else Label.CORRECT
    agreeing = _commonest([vote for vote in votes if vote.answer is answer], lambda vote: vote.sentence_id)
    chosen = _commonest(agreeing, lambda vote: vote.correction)[0]
    return Vote(answer, chosen.sentence_id, chosen.correction, None, probability, tokens, cut, chosen.reply)


def _commonest(votes: Sequence[Vote], what: Callable[[Vote], int | str | None]) -> list[Vote]:
    """The votes that share the commonest value (None only where all have none)."""
    groups: dict[int | str | None, list[Vote]] = {}
    for vote in votes:
        groups.setdefault(what(vote), []).append(vote)
    if len(groups) > 1:
        groups.pop(None, None)

    def rank(item: tuple[Any, list[Vote]]) -> tuple[int, float, Any]:
        sure = _mean_or_none([vote.p_incorrect for vote in item[1]])
        return -len(item[1]), 0.0 if sure is None else -sure, item[0]

    return min(groups.items(), key=rank)[1]


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def mean_over_votes(
    votes: Sequence[Sequence[Vote]], metrics: Callable[[list[Label | None]], dict[str, float]]
) -> dict[str, float]:
    """``metrics`` of the first replies, of the second ones, …, averaged: what one reply is worth on average."""
    rounds = [metrics([own[index].answer for own in votes]) for index in range(min(map(len, votes)))]
    return {name: mean(row[name] for row in rounds if row[name] == row[name]) for name in rounds[0]}


def parse_counts(votes: Sequence[Vote]) -> dict[str, Any]:
    """Replies by how they parsed: in the strict form, in another form by kind, not at all by kind."""
    other = Counter(str(vote.form) for vote in votes if vote.answer is not None and vote.form is not Form.STRICT)
    failed = Counter(str(vote.form or vote.failure) for vote in votes if vote.answer is None)
    strict = sum(vote.answer is not None and vote.form is Form.STRICT for vote in votes)
    return {"replies": len(votes), "strict": strict, "other_form": dict(other), "not_parsed": dict(failed)}
