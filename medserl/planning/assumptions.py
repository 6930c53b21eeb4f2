"""Every number of the planner's seconds that is neither in a data sheet nor in a configuration. None was measured on a
GPU; ``--assume NAME=VALUE`` puts a measured one in its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from medserl.errors import ConfigError


def _of(value: float, why: str) -> float:
    made: float = field(default=value, metadata={"why": why})
    return made


@dataclass(frozen=True)
class Assumptions:
    """Shares are of the data sheet's peak."""

    mfu: float = _of(0.4, "share of peak FLOP/s that the trainer's matrices reach; Megatron-LM reports .47")
    bandwidth: float = _of(0.7, "share of the GPU memory's bandwidth that decoding reaches")
    link: float = _of(0.7, "share of a link's bandwidth that an all-reduce or a copy reaches")
    network: float = _of(50e9, "bytes/s to other nodes for each GPU: one 400 Gbit/s adapter each")
    disk: float = _of(2e9, "bytes/s of the run's disk, all writers together")
    host_adam: float = _of(100e9, "bytes/s of a host's memory, shared by its GPUs' optimizers where Adam is there")
    gloo: float = _of(1e9, "bytes/s at which one rank gathers a checkpoint's optimizer over gloo")
    launch: float = _of(1.5e-4, "seconds of one layer's pass besides its matrices, for each micro-batch: launches")
    step: float = _of(3e-3, "seconds of a decoding step besides its reading: launches, scheduler, sampling")
    eager_step: float = _of(15e-3, "the same without CUDA graphs")
    turn: float = _of(0.05, "seconds of a game between two replies: text work, one request")
    switch: float = _of(1.0, "seconds of a transfer besides its bytes: sleep, wake, barriers")
    tail: float = _of(0.1, "share of replies still being written when a turn's mean reply has ended")
    prompt: float = _of(0.5, "mean prompt, as a share of data.max_prompt_length")
    response: float = _of(0.4, "mean response, as a share of data.max_response_length")
    acceptance: float = _of(0.4, "share of edits that the filter accepts")
    rounds: float = _of(100, "rounds of a run whose notes are not there to be counted")
    start: float = _of(240, "seconds from the command to the first round: imports, compilation, graphs")

    def named(self) -> list[tuple[str, float, str]]:
        """Name, value and meaning of each."""
        return [(item.name, getattr(self, item.name), item.metadata["why"]) for item in dataclasses.fields(self)]


def assume(given: Sequence[str]) -> Assumptions:
    """The assumptions with some replaced.

    Args:
        given: ``NAME=VALUE`` each.

    Raises:
        ConfigError: no such assumption, or no number above 0.
    """
    known = [item.name for item in dataclasses.fields(Assumptions)]
    changes: dict[str, float] = {}
    for word in given:
        name, _, text = word.partition("=")
        if name not in known:
            raise ConfigError(f"--assume {word}: there is no such assumption; known: {', '.join(known)}")
        if name in changes:
            raise ConfigError(f"--assume {word}: {name} is given twice; give it once")
        changes[name] = _number(name, text, f"--assume {word}:")
    return dataclasses.replace(Assumptions(), **changes)


def _number(name: str, text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{where} {text!r} is not a number above 0")
    if name in _SHARES and value > 1:
        raise ConfigError(f"{where} must be a share, a number above 0 and up to 1")
    if name == "rounds" and value != int(value):
        raise ConfigError(f"{where} {text!r} is not a whole number above 0")
    _, usual, why = next(own for own in Assumptions().named() if own[0] == name)
    least, most = usual / _FAR, 1.0 if name in _SHARES else usual * _FAR
    if not least <= value <= most:
        raise ConfigError(f"{where} {text} is out of reach; give a number between {least:g} and {most:g}: {why}")
    return value


_FAR = 1e5
"""How many times more or less than what is assumed a number may be."""
_SHARES = ("mfu", "bandwidth", "link", "tail", "prompt", "response", "acceptance")
