"""What a person reads when all checks are over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from medserl.bringup.checks import CPU, FAILED, LEFT_OUT, NOT_RUN, PASSED, Check


def listing(checks: Iterable[Check], device: str) -> str:
    """The checks with what each expects, and about how long it takes on this device."""
    lines = []
    for check in checks:
        seconds = check.seconds(device)
        lines.append(f"{check.key}  {'no GPU' if seconds is None else f'{seconds:.0f} s':>7}  {check.title}")
        lines.append(f"{'':13}expected: {check.expected}")
    return "\n".join(lines)


def summary(machine: dict[str, Any], lines: Sequence[dict[str, Any]]) -> str:
    """A row for each check, then how many passed, and what a machine without a GPU cannot say."""
    rows = [f"{line['check']:3} {line['status']:9} {line['seconds']:6.0f} s  {_found(line)}" for line in lines]
    counts = {status: sum(line["status"] == status for line in lines) for status in (PASSED, FAILED, NOT_RUN, LEFT_OUT)}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    end = [f"{machine['device']}: {told or 'nothing to run'}"]
    if lines and lines[0]["device"] == CPU:
        end.append("without a GPU: what passed says nothing about CUDA kernels, speed or memory")
    return "\n".join([*rows, *end])


def _found(line: dict[str, Any]) -> str:
    text = line["title"]
    if line.get("measured"):
        text += ": " + ", ".join(f"{name} {_short(value)}" for name, value in _flat(line["measured"]))
    return f"{text}; {line['why']}" if line.get("why") else text


def _flat(measured: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in measured.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} ")
        elif value is not None:
            yield f"{prefix}{name}", value


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value)
