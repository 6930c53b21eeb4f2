"""What a round reports, computed from its games. Pure; every value is a float.

The set of keys depends on ``max_attempts`` and on the registered metrics only. A value that a round cannot know (no
decisive game, no second referee, no token counts) is NaN; TensorBoard and JSON writers leave such points out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import nan, sqrt

from medserl.game.labels import Label, Mode
from medserl.game.parse import strip_think, thinking_part
from medserl.game.play import Attempt, Game, Reply, Role, training_trajectories
from medserl.game.referee.base import RulingKind
from medserl.game.vcf import Reason


@dataclass(frozen=True, slots=True)
class Confusion:
    """A 2×2 table of the answers that were given, and how many texts of each label got none.

    The positive class is INCORRECT (an error is there to be found). A text without an answer is not found right, so
    it counts against accuracy and recall (MEDEC's rule); it is no answer either, so not in precision and correlation.

    These few formulas are the project's only ones. They stand here in plain Python because the game imports in
    milliseconds, which scikit-learn does not; tests hold them to scikit-learn's values.
    """

    tp: int = 0
    fn: int = 0
    fp: int = 0
    tn: int = 0
    silent_incorrect: int = 0
    """Texts with an error to which no answer came (none, or none that parses)."""
    silent_correct: int = 0

    @property
    def parsed(self) -> Confusion:
        """The table of the texts that got an answer."""
        return Confusion(self.tp, self.fn, self.fp, self.tn)

    @property
    def n_incorrect(self) -> int:
        return self.tp + self.fn + self.silent_incorrect

    @property
    def n_correct(self) -> int:
        return self.tn + self.fp + self.silent_correct

    @property
    def total(self) -> int:
        return self.n_incorrect + self.n_correct

    @property
    def accuracy(self) -> float:
        return ratio(self.tp + self.tn, self.total)

    @property
    def recall_incorrect(self) -> float:
        """Sensitivity: share of the wrong notes that were found."""
        return ratio(self.tp, self.n_incorrect)

    @property
    def recall_correct(self) -> float:
        """Specificity: share of the right notes that were left alone."""
        return ratio(self.tn, self.n_correct)

    @property
    def precision_incorrect(self) -> float:
        return ratio(self.tp, self.tp + self.fp)

    @property
    def precision_correct(self) -> float:
        return ratio(self.tn, self.tn + self.fn)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that occur."""
        return mean(value for value in (self.recall_incorrect, self.recall_correct) if value == value)

    @property
    def mcc(self) -> float:
        """Matthews (1975) correlation of truth and given answers, −1 to 1; 0 where a row or column is empty."""
        if self.total == 0:
            return nan
        product = (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        return (self.tp * self.tn - self.fp * self.fn) / sqrt(product) if product else 0.0

    @property
    def parse_failure_rate(self) -> float:
        return ratio(self.silent_incorrect + self.silent_correct, self.total)

    @property
    def always_one_answer_rate(self) -> float:
        """Share of the commoner answer among those given."""
        return ratio(max(self.tp + self.fp, self.tn + self.fn), self.parsed.total)


def confusion(answers: Iterable[tuple[Label, Label | None]]) -> Confusion:
    """Table of (truth, answer) pairs; None is an answer that did not come or does not parse."""
    counts = Counter(answers)
    return Confusion(
        tp=counts[Label.INCORRECT, Label.INCORRECT],
        fn=counts[Label.INCORRECT, Label.CORRECT],
        fp=counts[Label.CORRECT, Label.INCORRECT],
        tn=counts[Label.CORRECT, Label.CORRECT],
        silent_incorrect=counts[Label.INCORRECT, None],
        silent_correct=counts[Label.CORRECT, None],
    )


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else nan


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else nan


Metrics = Callable[[Sequence["Game"]], dict[str, float]]
"""Metrics of a round's games by name; the names are the same for any games, gold-labelled games have no mode."""

_OWN: dict[str, Metrics] = {}


def register_metric[M: Metrics](function: M) -> M:
    """Decorator: compute ``function`` every round, under names of its own beside the game's.

    ValueError where another module has registered a function of this name.
    """
    known = _OWN.get(function.__name__)
    if known is not None and known.__module__ != function.__module__:
        raise ValueError(f"metrics named {function.__name__!r} are registered already, by {known.__module__}")
    _OWN[function.__name__] = function
    return function


def round_metrics(games: Sequence[Game], max_attempts: int = 3) -> dict[str, float]:
    """Metrics of one round's games. Gold-labelled games count under ``labelled/`` only, questions about earlier rounds'
    edits under ``replayed/`` only.

    ``vcf_acceptance_rate`` is accepted attempts / attempts (overall, per mode, per attempt number),
    ``vcf_game_acceptance_rate`` games with an accepted attempt / games, ``vcf_rejections/*`` counts
    attempts. Rewards are means over the trajectories that train. The assessor's figures are over decided
    games, see `answer_metrics`; ``strict_rate`` is the share of a role's replies that kept the strict form.
    ``label_inversion_rate`` compares the referee's
    label with the mode's (NaN where the referee takes the mode's word for any label, which ``referee/unchecked_rate``
    says the share of), ``label_inversion_rate/second_referee`` with another referee's.
    """
    played = [game for game in games if game.mode is not None]
    metrics = {"games": float(len(played)), "games_decisive": float(sum(game.decisive for game in played))}
    metrics.update(_vcf_metrics(played, max_attempts))
    metrics.update(_reward_metrics(played))
    metrics.update(_assessor_metrics([game for game in played if game.decisive], "assessor/"))
    metrics.update(_referee_metrics(played))
    metrics.update(_text_metrics(games))
    for kind, replayed in (("labelled", False), ("replayed", True)):
        asked = [game for game in games if game.mode is None and game.replayed is replayed]
        metrics[f"{kind}/games"] = float(len(asked))
        metrics[f"{kind}/mean_reward"] = mean(t.reward for t in training_trajectories(asked))
        metrics.update(_assessor_metrics(asked, f"{kind}/"))
    for name, function in _OWN.items():
        added = function(games)
        if clash := added.keys() & metrics.keys():
            raise ValueError(f"metrics {name!r}: {', '.join(sorted(clash))} already exists; choose another name")
        metrics.update({key: float(value) for key, value in added.items()})
    return metrics


def answer_metrics(answers: Iterable[tuple[Label, Label | None]], prefix: str = "") -> dict[str, float]:
    """An assessor's figures from (truth, answer) pairs, see `Confusion` for what an answer of None counts as.

    ``*_parsed`` are over the answers that parse alone, which ``parse_failure_rate`` says the share of.
    """
    table = confusion(answers)
    figures = {
        "accuracy": table.accuracy,
        "balanced_accuracy": table.balanced_accuracy,
        "recall_correct": table.recall_correct,
        "recall_incorrect": table.recall_incorrect,
        "mcc": table.mcc,
        "accuracy_parsed": table.parsed.accuracy,
        "balanced_accuracy_parsed": table.parsed.balanced_accuracy,
        "always_one_answer_rate": table.always_one_answer_rate,
        "parse_failure_rate": table.parse_failure_rate,
    }
    return {prefix + name: value for name, value in figures.items()}


def ranking_auc(scores: Iterable[tuple[Label, float]]) -> float:
    """The area under the ROC curve: how often a text with an error gets a greater score than one without, ties half.

    Not scikit-learn's, because the game needs no library; a test compares the two.

    Args:
        scores: Truth and p(INCORRECT) of each text.

    Returns:
        0 to 1, 0.5 where scores tell nothing; NaN unless there are texts of both labels.
    """
    ranked = sorted(scores, key=lambda pair: pair[1])
    wrong = sum(label is Label.INCORRECT for label, _ in ranked)
    ranks, first = 0.0, 0
    while first < len(ranked):
        last = first
        while last + 1 < len(ranked) and ranked[last + 1][1] == ranked[first][1]:
            last += 1
        tied = sum(label is Label.INCORRECT for label, _ in ranked[first : last + 1])
        ranks += tied * (first + last + 2) / 2
        first = last + 1
    return ratio(ranks - wrong * (wrong + 1) / 2, wrong * (len(ranked) - wrong))


def _vcf_metrics(games: Sequence[Game], max_attempts: int) -> dict[str, float]:
    def attempts_rate(chosen: Iterable[Attempt]) -> float:
        return mean(float(attempt.verdict.passed) for attempt in chosen)

    def games_rate(chosen: Iterable[Game]) -> float:
        return mean(float(game.accepted is not None) for game in chosen)

    attempts = [attempt for game in games for attempt in game.attempts]
    metrics = {
        "vcf_acceptance_rate": attempts_rate(attempts),
        "vcf_game_acceptance_rate": games_rate(games),
        "vcf_attempts": float(len(attempts)),
    }
    for mode in Mode:
        own = [game for game in games if game.mode is mode]
        metrics[f"vcf_acceptance_rate/{mode.value}"] = attempts_rate(a for game in own for a in game.attempts)
        metrics[f"vcf_game_acceptance_rate/{mode.value}"] = games_rate(own)
    for number in range(1, max_attempts + 1):
        metrics[f"vcf_acceptance_rate/attempt_{number}"] = attempts_rate(
            game.attempts[number - 1] for game in games if len(game.attempts) >= number
        )
    for reason in Reason:
        metrics[f"vcf_rejections/{reason.value}"] = float(sum(a.verdict.reason is reason for a in attempts))
    accepted = [attempt.verdict for attempt in attempts if attempt.verdict.passed]
    metrics["edit/position"] = mean(v.position for v in accepted if v.position is not None)
    metrics["edit/word_edits"] = mean(v.word_edits for v in accepted if v.word_edits is not None)
    metrics["edit/jaccard"] = mean(v.jaccard for v in accepted if v.jaccard is not None)
    return metrics


def _reward_metrics(games: Sequence[Game]) -> dict[str, float]:
    trained = training_trajectories(games)
    metrics = {"mean_reward": mean(t.reward for t in trained), "trajectories": float(len(trained))}
    for role in Role:
        metrics[f"mean_reward/{role.value}"] = mean(t.reward for t in trained if t.role is role)
    decisive = [game for game in games if game.decisive]
    metrics["injector/win_rate"] = mean(
        float(game.assessor is not None and game.assessor.answer not in (None, game.truth)) for game in decisive
    )
    metrics["injector/contradiction_rate"] = _inversion_rate(decisive)
    return metrics


def _assessor_metrics(games: Sequence[Game], prefix: str) -> dict[str, float]:
    answers = [
        (game.truth, game.assessor.answer) for game in games if game.truth is not None and game.assessor is not None
    ]
    strict = mean(float(game.assessor.strict) for game in games if game.assessor is not None)
    return answer_metrics(answers, prefix) | {f"{prefix}strict_rate": strict}


def _referee_metrics(games: Sequence[Game]) -> dict[str, float]:
    ruled = [game for game in games if game.ruling is not None]
    kinds = [game.ruling.kind for game in ruled if game.ruling is not None]
    compared = [
        game.ruling.label is not game.second_ruling.label
        for game in ruled
        if game.ruling is not None
        and game.second_ruling is not None
        and game.ruling.label is not None
        and game.second_ruling.label is not None
        and (game.ruling.checked or game.second_ruling.checked)  # two that take the mode's word always agree
    ]
    return {
        "referee/void_rate": ratio(kinds.count(RulingKind.VOID), len(kinds)),
        "referee/failed_rate": mean(float(game.ruling.failed) for game in ruled if game.ruling is not None),
        "referee/lossy_rate": ratio(kinds.count(RulingKind.LOSSY), len(kinds)),
        "referee/unchecked_rate": mean(float(not game.ruling.checked) for game in ruled if game.ruling is not None),
        "label_inversion_rate": _inversion_rate([game for game in ruled if game.truth is not None]),
        "label_inversion_rate/second_referee": mean(map(float, compared)),
    }


def _inversion_rate(games: Sequence[Game]) -> float:
    """Share of the games whose edit did the opposite of its mode; NaN unless the referee looked at each."""
    if not all(game.ruling is not None and game.ruling.checked for game in games):
        return nan
    return mean(float(game.contradiction) for game in games)


def _text_metrics(games: Sequence[Game]) -> dict[str, float]:
    attempts = [attempt for game in games for attempt in game.attempts]
    replies: dict[Role, list[Reply]] = {
        Role.INJECTOR: [attempt.reply for attempt in attempts],
        Role.ASSESSOR: [game.assessor.reply for game in games if game.assessor is not None],
    }
    measures: dict[str, Callable[[Reply], float | None]] = {
        "response_words": lambda reply: len(strip_think(reply.text, reply.thinking_open).split()),
        "thinking_words": lambda reply: len(thinking_part(reply.text, reply.thinking_open).split()),
        "response_tokens": lambda reply: reply.tokens,
        "thinking_tokens": lambda reply: reply.think_tokens,
    }
    metrics = {
        "injector/parse_failure_rate": mean(float(attempt.modified is None) for attempt in attempts),
        "injector/strict_rate": mean(float(attempt.strict) for attempt in attempts),
    }
    for role, own in replies.items():
        for name, measure in measures.items():
            values = [measure(reply) for reply in own]
            metrics[f"{role.value}/{name}"] = mean(value for value in values if value is not None)
    return metrics
