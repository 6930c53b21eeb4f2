"""The program that runs all checks: what it chooses, and that a missing checker fails in CI."""

from pathlib import Path
from types import ModuleType

import pytest

from medserl.cli.arguments import parse_arguments
from medserl.cli.main import build_parser


def names(check: ModuleType, *words: str) -> list[str]:
    return [step.name for step in check.chosen_steps(check.parse(words))]


def test_default_is_the_quick_tests(check: ModuleType) -> None:
    assert names(check) == ["pytest -m quick"]


def test_all_is_every_check(check: ModuleType) -> None:
    chosen = names(check, "--all")
    assert chosen[-4:] == [f"pytest -m {tiers}" for tiers in ("quick", "engine", "e2e", "cluster or images")]
    assert {"ruff check", "ruff format", "mypy", "bash -n", "shellcheck", "hadolint", "mkdocs build"} == set(
        chosen[:-4]
    )


@pytest.mark.parametrize("tier", ["cluster", "images", "nightly"])
def test_each_slow_tier_can_run_alone(check: ModuleType, tier: str) -> None:
    assert names(check, f"--{tier}") == [f"pytest -m {tier}"]


def test_a_real_model_is_fetched_and_put_through_on_demand_only(check: ModuleType) -> None:
    steps = check.real_steps("medec")
    assert [step.name for step in check.chosen_steps(check.parse(["--real"]))] == [step.name for step in steps]
    options, _ = parse_arguments(build_parser(), steps[1].command[3:])
    assert str(options.real) == steps[0].command[-1] and str(options.notes) == "medec"
    assert not {step.name for step in steps} & set(names(check, "--all", "--nightly"))


def test_choices_add_up_and_pytest_gets_its_arguments(check: ModuleType) -> None:
    steps = check.chosen_steps(check.parse(["--engine", "--cluster", "--", "-x", "-k", "tp2"]))
    assert [step.name for step in steps] == ["pytest -m engine", "pytest -m cluster"]
    assert all(step.command[-3:] == ("-x", "-k", "tp2") for step in steps)


@pytest.mark.parametrize(("strict", "outcome"), [(True, "FAILED"), (False, "skipped")])
def test_missing_checker(check: ModuleType, strict: bool, outcome: str) -> None:
    step = check.Step("lint", ("no-such-checker",), "no-such-checker")
    assert check.run_step(step, strict) == f"{outcome}: no-such-checker is not installed"


def test_one_failure_fails_the_whole_and_does_not_stop_it(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = [check.Step("bad", ("sh", "-c", "exit 3")), check.Step("good", ("sh", "-c", "echo was here"))]
    monkeypatch.setattr(check, "chosen_steps", lambda _: steps)
    assert check.main([]) == 1
    shown = capfd.readouterr().out
    assert "was here" in shown
    assert "FAILED: exit code 3" in shown
    monkeypatch.setattr(check, "chosen_steps", lambda _: steps[1:])
    assert check.main([]) == 0


def test_shell_scripts_are_found_by_their_first_line(check: ModuleType, tmp_path: Path) -> None:
    for name, first in (
        ("run", "#!/usr/bin/env bash"),
        ("a.sh", "#!/bin/sh"),
        ("b.py", "#!/bin/sh"),
        ("c", "text"),
    ):
        (tmp_path / "slurm").mkdir(exist_ok=True)
        (tmp_path / "slurm" / name).write_text(first + "\n")
    assert check.shell_scripts(tmp_path) == ["slurm/a.sh", "slurm/run"]


def test_shell_scripts_of_this_project(check: ModuleType) -> None:
    assert {".ci/run", "slurm/train_multinode.sh", "requirements/compile.sh"} <= set(check.shell_scripts())
