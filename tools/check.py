"""Every check of this project, in the environment that runs it: `python tools/check.py [what] [-- pytest …]`.

Without a choice: the quick tests. `--all` is what continuous integration runs. A missing checker is a failure
where CI=true and a named skip elsewhere. Every chosen step runs, whatever the ones before it said; the exit code
is 1 if any failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_SOURCES = ("medserl", "tests", "tools", "benchmarks", "bootstrap.py")
MOST_WORKERS = 8
TIERS = ("quick", "engine", "e2e", "cluster", "images")
TOGETHER = ("cluster", "images")  # in one process: images are built beside the cluster's tests, and used by them
MEDEC_BESIDE = ROOT.parent / "shared" / "data" / "medec"


@dataclass(frozen=True)
class Step:
    """One program run; `tool` is what must be on PATH for it."""

    name: str
    command: tuple[str, ...]
    tool: str = ""


def shell_scripts(root: Path = ROOT) -> list[str]:
    """Every shell script of the project, by ending or by first line, relative to `root`."""
    found = []
    for folder in (".ci", "slurm", "requirements", "packaging", "tools", "tests", "docs", "benchmarks"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix in ("", ".sh", ".sbatch") and is_shell(path):
                found.append(str(path.relative_to(root)))
    return found


def is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(100)
    return first.startswith(b"#!") and first.split()[-1].rsplit(b"/", 1)[-1] in (b"bash", b"sh")


def lint_steps() -> list[Step]:
    sources = tuple(name for name in PYTHON_SOURCES if (ROOT / name).exists())
    scripts = tuple(shell_scripts())
    return [
        Step("ruff check", ("ruff", "check", *sources), "ruff"),
        Step("ruff format", ("ruff", "format", "--check", *sources), "ruff"),
        Step("mypy", ("mypy",), "mypy"),
        Step(
            "bash -n",
            ("bash", "-c", 'for script; do bash -n "$script" || exit 1; done', "bash", *scripts),
            "bash",
        ),
        Step("shellcheck", ("shellcheck", *scripts), "shellcheck"),
        Step("hadolint", ("hadolint", "Dockerfile"), "hadolint"),
        Step("mkdocs build", ("mkdocs", "build", "--strict", "--quiet"), "mkdocs"),
    ]


def test_step(tiers: str, pytest_arguments: Sequence[str]) -> Step:
    # Quick tests share nothing and mind no neighbour; the others start processes that fill the machine.
    spread = ("-n", str(min(os.cpu_count() or 1, MOST_WORKERS)), "--dist", "worksteal") if tiers == "quick" else ()
    return Step(f"pytest -m {tiers}", (sys.executable, "-m", "pytest", "-m", tiers, *spread, *pytest_arguments))


def real_steps(notes: str) -> list[Step]:
    """A model out of the registry, and the course of `medserl selftest --real` with it."""
    model, run = "outputs/models/SmolLM2-135M-Instruct", "outputs/selftest-real"
    course = ("-m", "medserl", "selftest", "--real", model, "--notes", notes, "--run-dir", run)
    return [
        Step("small model", (sys.executable, "tools/small_models.py", Path(model).name, model)),
        Step("selftest --real", (sys.executable, *course)),
    ]


def run_step(step: Step, strict: bool) -> str:
    """Runs a step with its output shown; 'ok', 'FAILED', or 'skipped: …' where its tool is not here."""
    if step.tool and shutil.which(step.tool) is None:
        return f"FAILED: {step.tool} is not installed" if strict else f"skipped: {step.tool} is not installed"
    print(f"\n==> {step.name}", flush=True)
    code = subprocess.call(step.command, cwd=ROOT)
    return "ok" if code == 0 else f"FAILED: exit code {code}"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bootstrap.py test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="all of these, as in CI")
    parser.add_argument(
        "--lint", action="store_true", help="ruff, mypy, bash -n, shellcheck, hadolint, the site of docs/"
    )
    parser.add_argument("--quick", action="store_true", help="tests that need no other process (the default)")
    parser.add_argument("--engine", action="store_true", help="tests that spawn torch, Megatron or vLLM processes")
    parser.add_argument("--e2e", action="store_true", help="tests that run the whole trainer")
    parser.add_argument("--cluster", action="store_true", help="tests on an emulated Slurm cluster; needs root")
    parser.add_argument("--images", action="store_true", help="container images and GPU pins, for real; needs root")
    parser.add_argument("--nightly", action="store_true", help="what is too heavy for every change; not part of --all")
    parser.add_argument(
        "--real",
        action="store_true",
        help="fetch a small real model and put it through every command, with MEDEC's notes in MEDSERL_MEDEC_DIR: an "
        "hour; not part of --all",
    )
    parser.add_argument("pytest", nargs="*", metavar="-- …", help="passed to pytest")
    return parser.parse_args(argv)


def chosen_steps(options: argparse.Namespace) -> list[Step]:
    tiers = [tier for tier in TIERS if getattr(options, tier) or options.all]
    steps = lint_steps() if options.lint or options.all else []
    if set(TOGETHER) <= set(tiers):
        tiers = [*(tier for tier in tiers if tier not in TOGETHER), " or ".join(TOGETHER)]
    if options.nightly:
        tiers.append("nightly")
    if options.real:
        steps += real_steps(os.environ.get("MEDSERL_MEDEC_DIR", "MEDSERL_MEDEC_DIR-is-not-set"))
    if not steps and not tiers:
        tiers = ["quick"]
    return steps + [test_step(tier, options.pytest) for tier in tiers]


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if argv is None else argv)
    if "MEDSERL_MEDEC_DIR" not in os.environ and MEDEC_BESIDE.is_dir():
        os.environ["MEDSERL_MEDEC_DIR"] = str(MEDEC_BESIDE)
    # The checkers lie beside this Python, also where it was started without its environment activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # an advertisement of the theme's makers
    rows = []
    for step in chosen_steps(options):
        start = time.monotonic()
        outcome = run_step(step, strict=os.environ.get("CI") == "true")
        rows.append((step.name, outcome, time.monotonic() - start))
    print()
    for name, outcome, seconds in rows:
        print(f"{name:27} {seconds:7.1f} s  {outcome}")
    return 1 if any(outcome.startswith("FAILED") for _, outcome, _ in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
