"""One game: injector, filter, referee, assessor, rewards; over any asynchronous text generator."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import isfinite
from random import Random
from typing import Any

from medserl.errors import ConfigError
from medserl.game.labels import Label, Mode
from medserl.game.parse import InjectorEdit, ParseFailure, parse_edit, parse_note, read_answer
from medserl.game.phrase import parse_phrase
from medserl.game.prompts import FORMATS, Message, PromptSet
from medserl.game.records import LabelledNote, Note
from medserl.game.referee.base import Referee, Ruling
from medserl.game.reply import Form
from medserl.game.rewards import GameScore, RewardConfig, RewardScheme
from medserl.game.vcf import (
    MAX_JACCARD,
    MAX_WORD_EDITS,
    MIN_JACCARD,
    UNPARSEABLE,
    VcfVerdict,
    apply_vcf,
    check_bounds,
)


class Role(StrEnum):
    INJECTOR = "injector"
    ASSESSOR = "assessor"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote. The game reads ``text`` only; the rest belongs to whoever generates."""

    text: str
    payload: Any = None
    """The generator's own (token ids, log-probs, …); the game never looks at it."""
    tokens: int | None = None
    """Length of the whole reply in tokens, where known."""
    think_tokens: int | None = None
    """Length of its reasoning in tokens, where known."""
    thinking_open: bool = False
    """Whether the prompt ended in an open ``<think>``, so that the reply begins in its reasoning."""


Generate = Callable[[Role, list[Message]], Awaitable[Reply]]
"""Answers a fresh conversation: messages in, one reply out."""


@dataclass(frozen=True, slots=True)
class GameRules:
    """The numbers and formats of a game. Raises ConfigError where no game could be played with them."""

    min_jaccard: float = MIN_JACCARD
    max_jaccard: float = MAX_JACCARD
    max_word_edits: int = MAX_WORD_EDITS
    max_attempts: int = 3
    """Injector attempts per note in total, the first one included."""
    injector_format: str = "edit"
    """"edit" (one numbered sentence), "note" (the whole note) or "phrase" (old words and new ones)."""
    rewards: RewardScheme = field(default_factory=RewardConfig)

    def __post_init__(self) -> None:
        check_bounds(self.min_jaccard, self.max_jaccard, self.max_word_edits)
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts={self.max_attempts} must be at least 1")
        if self.injector_format not in FORMATS:
            raise ConfigError(f"injector_format={self.injector_format!r} must be one of: {', '.join(FORMATS)}")

    def parse(self, reply: str, original: str, opened: bool = False) -> InjectorEdit | ParseFailure:
        """Parse an injector's reply in this game's format; ``opened``: the prompt ended in an open ``<think>``."""
        if self.injector_format == "note":
            return parse_note(reply, opened)
        parse = parse_edit if self.injector_format == "edit" else parse_phrase
        return parse(reply, original, opened)

    def vcf(self, original: str, modified: str) -> VcfVerdict:
        """`apply_vcf` with this game's bounds."""
        return apply_vcf(original, modified, self.min_jaccard, self.max_jaccard, self.max_word_edits)

    def judge(self, reply: str, original: str, opened: bool = False) -> tuple[str | None, VcfVerdict]:
        """Parse and filter: the edited note (None where the reply cannot be parsed) and the verdict."""
        attempt = self.attempt(Reply(reply, thinking_open=opened), original)
        return attempt.modified, attempt.verdict

    def attempt(self, reply: Reply, original: str) -> "Attempt":
        """Parse and filter an injector's reply."""
        edit = self.parse(reply.text, original, reply.thinking_open)
        if isinstance(edit, ParseFailure):
            return Attempt(reply, None, UNPARSEABLE, strict=False)
        return Attempt(reply, edit.modified, self.vcf(original, edit.modified), edit.strict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One injector reply and what the filter said of it."""

    reply: Reply
    modified: str | None
    """The edited note; None where the reply could not be parsed."""
    verdict: VcfVerdict
    strict: bool = True
    """Whether it kept the strict form."""


@dataclass(frozen=True, slots=True)
class AssessorTurn:
    reply: Reply
    answer: Label | None
    """None where the answer could not be parsed."""
    form: Form = Form.STRICT
    """How the answer was stated, or why there is none."""

    @property
    def strict(self) -> bool:
        """Whether there is an answer, in the strict form."""
        return self.answer is not None and self.form is Form.STRICT


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One conversation of one role, ready to train on."""

    role: Role
    messages: list[Message]
    reply: Reply
    reward: float
    """0 where ``trains`` is False."""
    trains: bool
    attempt: int
    """Injector: 1, 2, …; assessor: 0."""
    parsed: bool
    info: dict[str, float | str]
    """Flat facts for logs, always with the same keys (see `_info`)."""


@dataclass(frozen=True, slots=True)
class Game:
    """All that happened with one note. ``mode`` is None for a gold-labelled note (no injector)."""

    note_id: str
    mode: Mode | None
    attempts: tuple[Attempt, ...] = ()
    accepted: str | None = None
    """The edited note that went on; for a labelled note its text."""
    ruling: Ruling | None = None
    second_ruling: Ruling | None = None
    """Another referee's word on the same edit, for comparison only."""
    truth: Label | None = None
    """The label that the assessor is judged by: the ruling's, or the gold label."""
    assessor: AssessorTurn | None = None
    score: GameScore | None = None
    """None where the game was not decided (exhausted, void, lossy)."""
    trajectories: tuple[Trajectory, ...] = ()
    error_type: str | None = None
    """MEDEC's type of error that the injector was asked for; None where it was free to choose."""
    replayed: bool = False
    """Whether it asks about an edit of an earlier round, or its original; ``mode`` is None then too."""

    @property
    def decisive(self) -> bool:
        """Whether an injector's edit was accepted, ruled on and assessed."""
        return self.mode is not None and self.truth is not None

    @property
    def exhausted(self) -> bool:
        return self.mode is not None and self.accepted is None

    @property
    def contradiction(self) -> bool:
        """Whether the edit did the opposite of its mode."""
        return self.mode is not None and self.ruling is not None and self.ruling.contradicts(self.mode)


async def play_game(
    note: Note,
    mode: Mode,
    *,
    generate: Generate,
    prompts: PromptSet,
    rules: GameRules,
    referee: Referee,
    second_referee: Referee | None = None,
    error_type: str | None = None,
) -> Game:
    """Play one note to its end; whatever ``generate`` or the referee raises goes through.

    Up to ``max_attempts`` injector replies, each filtered at once; the first accepted edit is ruled on, and,
    where the ruling decides a label, shown to the assessor in a conversation that holds nothing else.
    ``error_type`` chooses the injector's prompt in error mode and goes into the record; no rule depends on it.
    """
    asked = error_type if mode is Mode.ERROR else None
    request = prompts.injector(note.text, mode, rules.injector_format, asked)
    attempts: list[Attempt] = []
    accepted: str | None = None
    while accepted is None and len(attempts) < rules.max_attempts:
        reply = await generate(Role.INJECTOR, [dict(message) for message in request])
        attempts.append(rules.attempt(reply, note.text))
        accepted = attempts[-1].modified if attempts[-1].verdict.passed else None
    if accepted is None:
        exhausted = Game(note.note_id, mode, tuple(attempts), error_type=asked)
        return _with_trajectories(exhausted, request, [], rules.rewards)
    ruling = await referee.arule(note, mode, accepted)
    second = None if second_referee is None else await second_referee.arule(note, mode, accepted)
    truth = ruling.label
    turn, question = None, list[Message]()
    if truth is not None:
        question = prompts.assessor(accepted)
        turn = await _ask_assessor(question, generate)
    game = Game(note.note_id, mode, tuple(attempts), accepted, ruling, None, truth, turn, error_type=asked)
    if truth is not None:
        game = replace(game, score=rules.rewards.decided(game))
    # The second opinion comes last: rewards cannot see it.
    return replace(_with_trajectories(game, request, question, rules.rewards), second_ruling=second)


def draw_error_type(types: Sequence[str] | None, seed: int | str, note_id: str) -> str | None:
    """The type of error to ask for on a note: each of ``types`` equally likely, None where none are given."""
    return Random(f"error type:{seed}:{note_id}").choice(sorted(types)) if types else None


async def assess_labelled(
    labelled: LabelledNote, *, generate: Generate, prompts: PromptSet, rules: GameRules, replayed: bool = False
) -> Game:
    """Let the assessor answer on a gold-labelled note, or on one that an earlier round's referee labelled; the game
    has one assessor trajectory."""
    question = prompts.assessor(labelled.text)
    turn = await _ask_assessor(question, generate)
    game = Game(labelled.note_id, None, accepted=labelled.text, truth=labelled.label, assessor=turn, replayed=replayed)
    return _with_trajectories(replace(game, score=rules.rewards.labelled(game)), [], question, rules.rewards)


async def _ask_assessor(question: list[Message], generate: Generate) -> AssessorTurn:
    reply = await generate(Role.ASSESSOR, [dict(message) for message in question])
    found = read_answer(reply.text, reply.thinking_open)
    return AssessorTurn(reply, found.label, found.form)


def _with_trajectories(game: Game, request: list[Message], question: list[Message], rewards: RewardScheme) -> Game:
    trajectories = [_injector_trajectory(game, index, request, rewards) for index in range(len(game.attempts))]
    if game.assessor is not None and game.score is not None:
        trajectories.append(
            Trajectory(
                Role.ASSESSOR,
                question,
                game.assessor.reply,
                game.score.assessor,
                True,
                0,
                game.assessor.answer is not None,
                _info(game, "assessed", True, game.score.assessor_task, game.score.assessor_local),
            )
        )
    return replace(game, trajectories=tuple(trajectories))


def _injector_trajectory(game: Game, index: int, request: list[Message], rewards: RewardScheme) -> Trajectory:
    attempt = game.attempts[index]
    task, local = 0.0, None
    if attempt.verdict.passed and game.score is not None:
        task, local = game.score.injector_task, game.score.injector_local
    elif not attempt.verdict.passed and (game.exhausted or game.decisive):
        local = rewards.rejected(game, index + 1)
        if local is not None and not isfinite(local):
            raise ValueError(f"the reward of a rejected attempt is {local}, not a finite number")
    trains = local is not None
    local = local if local is not None else 0.0
    outcome = attempt.verdict.reason.value if attempt.verdict.reason is not None else "accepted"
    return Trajectory(
        Role.INJECTOR,
        [dict(message) for message in request],
        attempt.reply,
        task + local,
        trains,
        index + 1,
        attempt.modified is not None,
        _info(game, outcome, attempt.verdict.passed, task, local),
    )


def _info(game: Game, outcome: str, accepted: bool, task: float, local: float) -> dict[str, float | str]:
    return {
        "note_id": game.note_id,
        "mode": "labelled" if game.mode is None else game.mode.value,
        "label": "" if game.truth is None else game.truth.value,
        "ruling": "" if game.ruling is None else game.ruling.kind.value,
        "outcome": outcome,
        "accepted": float(accepted),
        "task_reward": task,
        "local_reward": local,
    }


def balance_modes(games: Sequence[Game], seed: int | str) -> set[int]:
    """Indices of decisive games to leave out of training so that both modes have equally many.

    Acceptance differs between the modes, so a batch that was half and half before the filter is not after it.
    Which games of the larger mode are left out is drawn by ``seed``; where one mode has none, all decisive
    games of the other are.
    """
    by_mode: dict[Mode, list[int]] = {mode: [] for mode in Mode}
    for index, game in enumerate(games):
        if game.decisive and game.mode is not None:
            by_mode[game.mode].append(index)
    return _surplus(by_mode, f"balance:{seed}")


def balance_labels(games: Sequence[Game], dropped: Collection[int], seed: int | str) -> set[int]:
    """Indices of decisive games, none of them in ``dropped``, whose assessor's turn must not train so that both labels
    have equally many.

    An injector that makes errors where it was asked for benign edits makes most notes wrong, whatever the modes: an
    assessor that trains on them learns to say INCORRECT. Where a label has no game, nothing is left out: gold-labelled
    notes may hold the balance, and without them there is nothing else to learn from.
    """
    by_label: dict[Label, list[int]] = {label: [] for label in Label}
    for index, game in enumerate(games):
        if game.decisive and game.truth is not None and index not in dropped:
            by_label[game.truth].append(index)
    return _surplus(by_label, f"balance labels:{seed}") if all(by_label.values()) else set()


def _surplus(groups: Mapping[Any, Sequence[int]], seed: str) -> set[int]:
    """Indices to leave out, drawn by ``seed``, so that every group has as many as the smallest."""
    keep = min(len(indices) for indices in groups.values())
    rng = Random(seed)
    return {index for indices in groups.values() for index in rng.sample(indices, len(indices) - keep)}


def training_trajectories(games: Iterable[Game]) -> list[Trajectory]:
    """Every trajectory that trains, in game order."""
    return [trajectory for game in games for trajectory in game.trajectories if trajectory.trains]
