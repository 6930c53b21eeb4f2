"""The game: notes, prompts, filter, referees, rewards, metrics.

It knows nothing of any training framework, and importing it takes milliseconds.
"""

from medserl.game.labels import Label, Mode
from medserl.game.load import LoadReport, load_notes, load_notes_with_report
from medserl.game.metrics import answer_metrics, round_metrics
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
from medserl.game.rewards import RewardConfig
from medserl.game.rollout import RolloutStatistics, VCFRolloutGenerator, VCFRolloutResult, VCFSample
from medserl.game.stream import Batch, LabelledStream, NoteStream
from medserl.game.vcf import Reason, VcfVerdict, apply_vcf

__all__ = [
    "Batch",
    "Game",
    "GameRules",
    "Generate",
    "Label",
    "LabelledNote",
    "LabelledStream",
    "LoadReport",
    "Mode",
    "Note",
    "NoteStream",
    "PromptSet",
    "Reason",
    "Referee",
    "Reply",
    "RewardConfig",
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
    "make_referee",
    "play_game",
    "register_referee",
    "round_metrics",
]
