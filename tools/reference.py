#!/usr/bin/env python3
"""Writes docs/configuration.md and docs/metrics.md from the code; a test compares them with it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from omegaconf import OmegaConf  # noqa: E402

from medserl.config.explain import our_comments, own_entries, shown  # noqa: E402
from medserl.config.family import SFT, TRAIN, Family, configs_dir  # noqa: E402
from medserl.config.mistakes import verl_defaults  # noqa: E402
from medserl.report.metric_names import MEANINGS  # noqa: E402
from medserl.report.tables import code, table  # noqa: E402

MADE = "<!-- Made by tools/reference.py; change the code, not this page. -->"


def pages() -> dict[str, str]:
    """File name in docs -> content."""
    return {"configuration.md": configuration(), "metrics.md": metrics()}


def configuration() -> str:
    """Our own keys of both families, and the keys of verl's that every configuration for training sets otherwise."""
    base = OmegaConf.to_container(OmegaConf.load(configs_dir() / "base.yaml"))
    defaults = OmegaConf.to_container(verl_defaults(TRAIN))
    rows = [
        [code(key), code(shown(_at(base, key))), _verls(_at(defaults, key)), _cell(reason)]
        for key, reason in our_comments("base").items()
        if not key.startswith(("medserl", "defaults")) and not isinstance(_at(base, key), dict)
    ]
    return "\n".join(
        [
            "# Configuration",
            "",
            MADE,
            "",
            "A configuration is verl's own, with MedSeRL's section `medserl`. Any key can be given on the command",
            "line, `key=value`; `medserl config --explain KEY` says what one means and what it is here, verl's too,",
            "and `medserl config --config NAME --changed` how a configuration differs from the defaults.",
            "",
            "## The section `medserl` of `medserl train`",
            "",
            *_section(TRAIN),
            "",
            "## The section `medserl` of `medserl sft`",
            "",
            *_section(SFT),
            "",
            "## verl's keys that every configuration sets, with the reason",
            "",
            *table(["key", "here", "verl's default", "why"], rows, "llll"),
            "",
        ]
    )


def _section(family: Family) -> list[str]:
    rows = [
        [code(found.key.removeprefix("medserl.")), code(found.kind), _default(found.default), _cell(found.meaning)]
        for found in own_entries(family).values()
    ]
    return table(["key", "type", "default", "meaning"], rows, "llll")


def _verls(value: object) -> str:
    """verl's default; a whole section is not repeated."""
    return "a section of its own" if isinstance(value, dict) and value else code(shown(value))


def _at(node: object, key: str) -> object:
    """The value of a dotted key as it is written, interpolations left alone."""
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _default(value: object) -> str:
    return "" if hasattr(value, "__dataclass_fields__") else code(shown(value))


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|").replace("<", "&lt;")


def metrics() -> str:
    """Every metric of a round, by group."""
    lines = [
        "# Metrics",
        "",
        MADE,
        "",
        "Every round writes a row of them to `metrics.jsonl`. TensorBoard shows those that change, verl's own under",
        "`verl/`. A value that a round cannot know is left out. `{a,b}` stands for either, `*` for anything.",
    ]
    for group, names in MEANINGS.items():
        lines += ["", f"## {group}", "", *table(["metric", "meaning"], [[code(n), _cell(t)] for n, t in names], "ll")]
    return "\n".join([*lines, ""])


def main() -> int:
    for name, content in pages().items():
        (ROOT / "docs" / name).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
