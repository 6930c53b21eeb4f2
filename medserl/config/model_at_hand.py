"""What follows from the model that a command names: its configuration and its prompts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from medserl.config.settings import BUILTIN_MODEL, PROMPTS, WARD
from medserl.errors import ConfigError

MODEL_KEYS = ("actor_rollout_ref.model.path", "model.path")
UNTRAINED_WARD = "untrained:ward"


def of_the_ward(model: Any) -> bool:
    """Whether a configuration's model is the tiny one, under one of its names or as a directory."""
    from medserl.ward.language import is_ward_model

    return model in (BUILTIN_MODEL, UNTRAINED_WARD) or (isinstance(model, str) and is_ward_model(model))


def threads_for(model: Any, workers: int) -> int:
    """Compute threads of each of so many workers on this machine's CPUs, which share its cores. The ward's tiny model
    computes too little for a second one."""
    return 1 if of_the_ward(model) else max(1, len(os.sched_getaffinity(0)) // max(1, workers))


def prompts_for(model: Any) -> str:
    """The prompt set of a model: the ward's own words for the tiny one, clinical English for all others."""
    return WARD if of_the_ward(model) else PROMPTS


def named_model(overrides: Sequence[str]) -> str | None:
    """The model that overrides name last, without their quotes."""
    found = None
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and key.lstrip("+") in MODEL_KEYS:
            found = value.strip("'\"").replace("\\'", "'").replace("\\\\", "\\")
    return found


def default_config(model: str | None, ward: str, real: str) -> str:
    """Name of the configuration where a command line has no ``--config``.

    Args:
        model: The model that it names; None: the configuration's own, which is the ward's.
        ward: The configuration for the tiny model.
        real: The one for any other, on CPUs.

    Raises:
        ConfigError: another model on a machine with a GPU, where which configuration is meant depends on the GPU.
    """
    from medserl.cpu.environment import choose_device

    if model is None or of_the_ward(model):
        return ward
    if choose_device() != "cpu":
        raise ConfigError(
            f"--config: {model} is not the ward's tiny model and this machine has a GPU; name a configuration for it "
            f"(medserl config --list), or {real} for its CPUs"
        )
    return real
