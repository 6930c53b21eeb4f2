"""All nodes' checks as one table, and the bad nodes by name. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl.files import read_json
from medserl.preflight.node_checks import Check
from medserl.report.terminal import Table

SKEW_ALLOWED = 5.0
"""Seconds between a node's clock and the median of all."""
SAME_EVERYWHERE = ("driver", "medserl", "Python")


@dataclass(frozen=True)
class Report:
    """The table, and what is wrong by node."""

    table: Table
    problems: dict[str, list[str]]


def read_records(folder: Path, nodes: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """What each node left in ``folder``; None where it left nothing."""
    found: dict[str, dict[str, Any] | None] = {}
    for node in nodes:
        try:
            record = read_json(folder / f"{node}.json")
            found[node] = record if {"checks", "skew"} <= record.keys() else None
        except (OSError, ValueError, AttributeError):  # it died before it wrote it, or while it did
            found[node] = None
    return found


def make_report(records: dict[str, dict[str, Any] | None], folder: Path) -> Report:
    """Compare the nodes with what is wanted and with each other."""
    problems: dict[str, list[str]] = {}
    present = {node: record for node, record in records.items() if record is not None}
    for node, record in records.items():
        if record is None:
            problems[node] = [f"did not finish its checks; see {folder / node}.log"]
            continue
        found = [check["problem"] for check in record["checks"] if check["problem"]]
        if found:
            problems[node] = found
    values = {node: {c["name"]: c["value"] for c in record["checks"]} for node, record in present.items()}
    for name in SAME_EVERYWHERE:
        for node, complaint in odd_ones_out({n: v[name] for n, v in values.items() if name in v}).items():
            problems.setdefault(node, []).append(f"{name} {complaint}")
    if present:
        middle = statistics.median(record["skew"] for record in present.values())
        for node, record in present.items():
            values[node]["clock"] = f"{record['skew'] - middle:+.1f} s"
            if abs(record["skew"] - middle) > SKEW_ALLOWED:
                problems.setdefault(node, []).append(f"clock is off by {record['skew'] - middle:+.1f} s")
    return Report(_table(records, values, problems), problems)


def odd_ones_out(values: dict[str, str]) -> dict[str, str]:
    """Nodes whose value is not the commonest one."""
    if not values:
        return {}
    common = statistics.mode(sorted(values.values()))
    return {node: f"{value} where most have {common}" for node, value in values.items() if value != common}


def _table(
    records: dict[str, dict[str, Any] | None], values: dict[str, dict[str, str]], problems: dict[str, list[str]]
) -> Table:
    columns: list[str] = []
    for cells in values.values():
        columns += [name for name in cells if name not in columns]
    rows = []
    for node in records:
        cells = values.get(node, {})
        rows.append([node, *(cells.get(name, "-") for name in columns), "BAD" if node in problems else "ok"])
    return Table(["node", *columns, "verdict"], rows)


def machine_table(judged: Sequence[Check], told: Sequence[Check]) -> Table:
    """One machine's checks, a line each: those that may be bad, and those that only inform."""
    rows = [[check.name, check.value, "BAD" if check.problem else "ok"] for check in judged]
    rows += [[check.name, check.value, "-"] for check in told]
    return Table(["check", "value", "verdict"], rows)
