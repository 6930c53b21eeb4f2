"""Whether the notes of every run of a grid can be had, before the first one begins: the last may begin after days."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medserl.ablation.fingerprint import composed
from medserl.ablation.grid import Cell
from medserl.config.load import game_settings, is_sft_config
from medserl.data.rounds import training_notes
from medserl.errors import ConfigError, UserError
from medserl.game import load_notes
from medserl.preflight.checks import check_notes, check_validation, settle_labelled_share

_SHARES = ("labelled_share", "labelled_batch_size", "rollout_batch_size", "plugins")


def check_all_notes(cells: Iterable[Cell]) -> None:
    """Read the notes of every arm, those that arms share once.

    Raises:
        ConfigError: names the arm, the file, and what a run would refuse of it.
    """
    looked_at: list[Any] = []
    for arm in dict.fromkeys(cell.arm for cell in cells):
        config, of_sft = composed(arm), is_sft_config(arm.config)
        own = config.medserl
        about = (of_sft, own.notes, own.get("validation"), [own.get(key) for key in _SHARES])
        if about in looked_at:
            continue
        looked_at.append(about)
        try:
            if not of_sft:
                _check(deepcopy(config))
            elif own.notes.path is not None:
                load_notes(Path(own.notes.path))
        except UserError as error:
            raise ConfigError(f"arm {arm.name}: {error}") from None


def _check(config: DictConfig) -> None:
    settle_labelled_share(config)
    settings = game_settings(config)
    notes = training_notes(settings)
    check_notes(settings, notes)
    check_validation(config, settings, notes)
