"""The game's own settings: the ``medserl`` section of a configuration, typed, with every default in this
place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medserl.errors import all_told
from medserl.game import (
    GameRules,
    Label,
    PromptSet,
    Referee,
    answer_metrics,
    load_prompt_set,
)
from medserl.report.alarms import AlarmSettings


@dataclass
class NotesSettings:
    """Where the notes come from."""

    source: str = "auto"
    """A registered note source; ``auto``: ``files`` if ``path`` names a file, otherwise ``ward``, the synthetic notes
    that ship with the package."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a note source of your own."""
    path: str | None = None
    """A .jsonl, .csv or .parquet file of notes, for the source ``files``."""
    count: int = 384
    """Number of synthetic notes, for the source ``ward``."""
    seed: int = 7
    """Seed of the synthetic notes, for the source ``ward``."""
    labelled_path: str | None = None
    """A file of gold-labelled notes for the assessor, whatever the source; null: those of the source, by default the
    gold error variants of the training notes themselves."""
    labelled_conditions: int | None = None
    """Ward only: use gold labels only for notes of this many of its conditions; null: for all notes."""


@dataclass
class VcfSettings:
    """Bounds of the verifiable change filter (medserl.game.apply_vcf)."""

    min_jaccard: float = 0.85
    """Minimum 3-gram shingle similarity of the original and the modified note."""
    max_jaccard: float = 0.99
    """Maximum similarity."""
    max_word_edits: int = 6
    """Maximum number of word edits (Levenshtein distance over words)."""


@dataclass
class RewardSettings:
    """Rewards of a game. The numbers are those of the reward ``zero_sum``, with the defaults and meanings of
    medserl.game.RewardConfig; any other reward gets those of them that it takes."""

    # Listed again, because Hydra needs a dataclass whose fields can be set, and none that derives from a frozen one
    # has such fields. A test compares the two.

    name: str = "zero_sum"
    """A registered reward scheme."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a reward scheme of your own."""
    assessor_right: float = 1.0
    assessor_wrong: float = -1.0
    format_bonus: float = 0.1
    assessor_unparseable: float = -1.0
    injector_unparseable: float = 0.0
    exhausted: float | None = -0.5
    retried: float | None = None
    contradiction: float | None = -1.0
    labelled_right: float = 1.0
    labelled_wrong: float = -1.0


@dataclass
class AdvantageSettings:
    """How returns, or what a critic's values leave of them, become advantages when two roles share a batch."""

    normalisation: str = "per_role"
    """``global`` (plain REINFORCE++), ``per_role`` (whiten within each role), ``role_baseline`` (subtract a
    moving average per role, then whiten the scale only; SPIRAL, arXiv 2506.24119; not beside a critic)."""
    injector_weight: float = 1.0
    """Factor for the injector's advantages. Its replies have far more uncertain tokens than the assessor's single
    verdict, so without a weight the injector would dominate the updates."""
    verdict_credit: str = "reward"
    """How an assessor's verdict is credited: ``reward``: by its reward, like every other token; ``likelihood``: by the
    probability that the policy gave it, so that an update raises the likelihood of the right verdict, whichever one was
    sampled."""
    baseline_decay: float = 0.95
    """Decay of the moving average for ``role_baseline``."""


@dataclass
class RefereeSettings:
    """What decides the label of a modified note."""

    name: str | None = "auto"
    """A registered referee; ``auto``: the ward's oracle for synthetic notes, ``instruction`` for others; null: none."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the referee."""


@dataclass
class ValidationSettings:
    """Held-out labelled notes, judged every ``trainer.test_freq`` rounds."""

    path: str | None = None
    """Notes with gold errors; null: those that the note source holds out, such as patients of the ward."""
    count: int = 100
    """Number of held-out patients of the ward, if ``path`` is null and the training notes are the ward's; each is
    judged with and without its error."""
    seed: int = 11
    """Seed of the held-out patients."""
    sampled: bool = True
    """Judge the notes with sampled replies as well as greedy ones."""
    best_metric: str = "val/greedy/balanced_accuracy"
    """The metric (higher is better) that selects the best checkpoint, which is never removed."""
    patience: int | None = None
    """Stop after this many validations without an improvement; null: never."""


@dataclass
class GameLogSettings:
    """The games of a run in ``RUN_DIR/games`` (readable by their owner only), for ``medserl games``."""

    enabled: bool | None = None
    """Whether to keep the games, with notes and replies; null: only if all notes of the run are the ward's."""
    redact: bool = False
    """Keep only labels, reasons and numbers: no text and no note ids."""
    keep_rounds: int | None = None
    """Keep the games of this many of the newest rounds; null: of all rounds."""
    max_megabytes: int | None = 4096
    """Remove the games of the oldest rounds when all games together take more than this many megabytes; null: never."""


@dataclass
class GameSettings:
    """The ``medserl`` section."""

    device: str = "auto"
    """``cuda``, ``cpu``, or ``auto``: cuda if there is an NVIDIA device."""
    seed: int = 1
    """Seed of the note order, the modes and every sampled token."""
    run_dir: str = "outputs/run"
    """The directory of everything that a run writes."""
    plugins: list[str] = field(default_factory=list)
    """Modules to import first in every process, e.g. one that registers a referee of your own (docs/extending.md)."""
    notes: NotesSettings = field(default_factory=NotesSettings)
    rollout_batch_size: int = 64
    """Notes per round, half of them in benign and half in error mode."""
    labelled_share: float = 0.25
    """Gold-labelled notes mixed into the assessor's batch, as a share of ``rollout_batch_size``."""
    labelled_batch_size: int | None = None
    """Gold-labelled notes per round, in place of ``labelled_share``; if ``rollout_batch_size`` is 0, only these are
    trained on."""
    replay_batch_size: int = 0
    """Questions per round about edits of earlier rounds, with the referee's labels: pairs of an edit that made its note
    wrong and that note as it is right, both in one mini-batch. They train the assessor on answers of the present
    policy."""
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    prompt_set: str = "clinical"
    """A shipped prompt set or a directory with prompt files; ``auto``: ``ward`` for the ward's tiny model, ``clinical``
    for every other."""
    error_types: list[str] | None = None
    """Types of errors that the injector is asked for, one drawn at random (by seed) per game: any of diagnosis,
    management, treatment, pharmacotherapy and causalorganism for which the prompt set has a prompt; null: the general
    prompt."""
    injector_format: str = "edit"
    """``edit`` (sentence number and new sentence), ``note`` (the whole note) or ``phrase`` (words of the note, and what
    stands in their place)."""
    thinking: bool = False
    """Qwen3's thinking mode."""
    max_attempts: int = 3
    """Attempts that the injector has per note, the first one included."""
    vcf: VcfSettings = field(default_factory=VcfSettings)
    referee: RefereeSettings = field(default_factory=RefereeSettings)
    second_referee: RefereeSettings = field(default_factory=lambda: RefereeSettings(name=None))
    """A second opinion that only measures the label-inversion rate and has no effect on training."""
    rewards: RewardSettings = field(default_factory=RewardSettings)
    advantage: AdvantageSettings = field(default_factory=AdvantageSettings)
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    train_roles: str = "both"
    """``both``, ``assessor``, or ``alternate`` (assessor in odd rounds, injector in even ones)."""
    frozen_injector: bool = False
    """Let the model that training starts from play the injector, on a vLLM server of its own that verl starts, and
    train only the assessor (``train_roles`` must be ``assessor``). Comparing shows what a learning opponent adds."""
    injector_url: str | None = None
    """The address of an OpenAI-compatible server (``vllm serve``) that plays the injector instead; its model needs the
    policy's tokenizer. As with ``frozen_injector``, only the assessor is trained. Its key is read from
    ``MEDSERL_INJECTOR_API_KEY``."""
    allow_plain_http: bool = False
    """Allow notes to be sent unencrypted, over http, to a server that is not on this machine."""
    balance_modes: bool = True
    """Drop games of the mode that passes the filter more often, until both modes have the same number of games to train
    on."""
    balance_labels: bool = True
    """Leave out assessor turns of the more frequent label, until both labels have the same number of turns to train
    on."""
    max_failed_share: float = 0.05
    """Share of a round's games that may fail for technical reasons before the run stops."""
    rollout_workers: int = 0
    """Number of agent-loop processes; with 0, the games are played in the driver process."""
    poll_seconds: float = 0.5
    """Seconds between two checks of whether the round's games are over."""
    deadline_margin: float = 60.0
    """Seconds before ``MEDSERL_DEADLINE`` (Unix seconds, in the environment) at which the run must have ended; it stops
    before a round that may take longer than that."""
    max_rounds: int | None = None
    """Stop after this many rounds in total; null: ``trainer.total_epochs`` decides."""
    game_log: GameLogSettings = field(default_factory=GameLogSettings)
    trackers: list[str] = field(default_factory=list)
    """Experiment trackers that get the run's numbers, and nothing but numbers: any of ``wandb``, ``mlflow`` and
    ``swanlab`` (docs/trackers.md)."""


GREEDY, SAMPLED = "greedy", "sampled"
FILES = "files"
WARD = "ward"
ORACLE = "oracle"
JUDGE = "judge"
BUILTIN_MODEL = "builtin:ward"
TRAIN_ROLES = ("both", "assessor", "alternate")
LIKELIHOOD = "likelihood"
VERDICT_CREDITS = ("reward", LIKELIHOOD)
ROLE_BASELINE = "role_baseline"
NORMALISATIONS = ("global", "per_role", ROLE_BASELINE)
PROMPTS = "clinical"
"""The prompt set of models that are not the ward's."""
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class GameSetup:
    """What the agent loop needs to play: made once per worker from the settings."""

    rules: GameRules
    prompts: PromptSet
    referee: Referee
    second_referee: Referee | None


def passes(validation: ValidationSettings) -> tuple[str, ...]:
    """The ways in which held-out notes are judged, as their metrics name them."""
    return (GREEDY, SAMPLED) if validation.sampled else (GREEDY,)


def validation_metrics(kind: str) -> list[str]:
    """What a validation measures in one of its passes and is better when it is greater."""
    measured = answer_metrics([(Label.CORRECT, Label.CORRECT)], f"val/{kind}/")
    return [*(name for name in measured if not name.endswith("_rate")), f"val/{kind}/auc"]


def labelled_per_round(settings: GameSettings) -> int:
    """Number of gold-labelled notes per round, even, so that both classes have the same count."""
    if settings.labelled_batch_size is not None:
        return settings.labelled_batch_size
    return 2 * round(settings.rollout_batch_size * settings.labelled_share / 2)


def make_setup(settings: GameSettings) -> GameSetup:
    """Load the plug-ins, then build rules, prompts and referees.

    Raises:
        UserError: all of: a plug-in that fails, an unknown referee, reward, prompt set or option.
    """
    from medserl.config.plugins import choose_referee, load_plugins

    rules = prompts = referee = second = None
    with all_told() as found:
        with found.noted():
            prompts = load_prompt_set(settings.prompt_set)
            prompts.check_format(settings.injector_format)
        for name in settings.error_types or () if prompts is not None else ():
            with found.noted():
                prompts.check_error_types([name])
        load_plugins(settings.plugins)  # what is chosen by name may come from one
        with found.noted():
            rules = game_rules(settings)
        known = prompts or load_prompt_set(PROMPTS)
        with found.noted():
            referee = choose_referee(settings.referee, known, "medserl.referee")
        with found.noted():
            if settings.second_referee.name:
                second = choose_referee(settings.second_referee, known, "medserl.second_referee")
    assert rules is not None and prompts is not None and referee is not None
    return GameSetup(rules=rules, prompts=prompts, referee=referee, second_referee=second)


def game_rules(settings: GameSettings) -> GameRules:
    """The rules alone, after loading the plug-ins, one of which may be the rewards.

    Raises:
        ConfigError: a plug-in that fails, an unknown reward, numbers with which no game could be played.
    """
    from medserl.config.plugins import choose_reward, load_plugins

    load_plugins(settings.plugins)
    return GameRules(
        min_jaccard=settings.vcf.min_jaccard,
        max_jaccard=settings.vcf.max_jaccard,
        max_word_edits=settings.vcf.max_word_edits,
        max_attempts=settings.max_attempts,
        injector_format=settings.injector_format,
        rewards=choose_reward(settings.rewards),
    )
