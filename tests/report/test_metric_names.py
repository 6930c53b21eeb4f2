"""Every metric is explained, and the reference pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from medserl.game.metrics import answer_metrics, round_metrics
from medserl.report.metric_names import MEANINGS, meaning, unknown

ROOT = Path(__file__).parents[2]


def test_every_metric_of_the_game_is_explained() -> None:
    names = [*round_metrics([]), *(f"val/greedy/{name}" for name in answer_metrics([], ""))]
    assert unknown(names) == []


def test_a_users_own_metric_has_no_meaning_and_a_pattern_is_no_prefix() -> None:
    assert meaning("long_edits") is None
    assert meaning("vcf_acceptance_rate/benign/x") is None
    assert meaning("vcf_acceptance_rate/error") == "the same, by what was asked for"
    assert meaning("vcf_rejections/leak") is not None


def test_no_name_is_explained_twice() -> None:
    names = [name for group in MEANINGS.values() for name, _ in group]
    assert len(names) == len(set(names))


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["configuration.md", "metrics.md"])
def test_the_reference_pages_are_those_of_the_code(reference: ModuleType, name: str) -> None:
    kept = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert kept == reference.pages()[name], "run python tools/reference.py"
