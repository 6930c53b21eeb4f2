"""The game: notes, note sources, prompts, filter, referees, rewards, metrics.

It knows nothing of any training framework, and importing it takes milliseconds.
"""

from medserl.game.labels import Label, Mode
from medserl.game.load import LoadReport, load_notes, load_notes_with_report
from medserl.game.metrics import answer_metrics, register_metric, round_metrics
from medserl.game.play import (
    Game,
    GameRules,
    Generate,
    Reply,
    Role,
    Trajectory,
    assess_labelled,
    balance_labels,
    balance_modes,
    draw_error_type,
    play_game,
)
from medserl.game.prompts import PromptSet, load_prompt_set
from medserl.game.records import LabelledNote, Note, check_disjoint, labelled_from_notes
from medserl.game.referee import Referee, Ruling, RulingKind, make_referee, register_referee
from medserl.game.rewards import GameScore, RewardConfig, RewardScheme, make_reward, register_reward
from medserl.game.rollout import RolloutStatistics, VCFRolloutGenerator, VCFRolloutResult, VCFSample
from medserl.game.sources import NoteSource, make_note_source, register_note_source
from medserl.game.stream import Batch, LabelledStream, NoteStream
from medserl.game.vcf import Reason, VcfVerdict, apply_vcf

__all__ = [
    "Batch",
    "Game",
    "GameRules",
    "GameScore",
    "Generate",
    "Label",
    "LabelledNote",
    "LabelledStream",
    "LoadReport",
    "Mode",
    "Note",
    "NoteSource",
    "NoteStream",
    "PromptSet",
    "Reason",
    "Referee",
    "Reply",
    "RewardConfig",
    "RewardScheme",
    "Role",
    "RolloutStatistics",
    "Ruling",
    "RulingKind",
    "Trajectory",
    "VCFRolloutGenerator",
    "VCFRolloutResult",
    "VCFSample",
    "VcfVerdict",
    "answer_metrics",
    "apply_vcf",
    "assess_labelled",
    "balance_labels",
    "balance_modes",
    "check_disjoint",
    "draw_error_type",
    "labelled_from_notes",
    "load_notes",
    "load_notes_with_report",
    "load_prompt_set",
    "make_note_source",
    "make_referee",
    "make_reward",
    "play_game",
    "register_metric",
    "register_note_source",
    "register_referee",
    "register_reward",
    "round_metrics",
]
