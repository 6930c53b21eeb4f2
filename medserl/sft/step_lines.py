"""The lines that verl's supervised trainer prints of its steps. No torch."""

from __future__ import annotations

import re
from contextlib import suppress

# verl's console logger prints it between the progress bar's carriage returns.
STEP = re.compile(r"step:(?P<step>\d+) - (?P<figures>[^\r\n]*)")


def step_line(match: re.Match[str]) -> str:
    """verl's figures of a step, those that matter."""
    fields, shown = figures(match), [f"step {match['step']}"]
    for name in ("train/loss", "train/grad_norm", "train/lr"):
        if name in fields:
            shown.append(f"{name.removeprefix('train/')}={fields[name]:.4g}")
    return " ".join(shown)


def figures(match: re.Match[str]) -> dict[str, float]:
    """verl's figures of a step by their names; what is not a number is left out."""
    found = {}
    for part in match["figures"].split(" - "):
        name, _, value = part.partition(":")
        with suppress(ValueError):
            found[name] = float(value)
    return found
