"""Shell scripts and the Dockerfile under their checkers, and no file that tells of one machine."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import NO_CHECKOUT

# Written in two halves, so that this file does not find itself.
PLACES = [
    "/" + r"root/(?!\.cache/uv\b)",
    "/" + r"home/(?!medserl\b)[a-z]",
    "/" + r"work/(main|shared|\.)",
    "/" + "tmp/w/",
    "py" + r"pi\.org",
    "python" + r"hosted\.org",
    "npm" + r"js\.(org|com)",
    "deb\\." + r"debian\.org",
]
TEXT_LIMIT = 2_000_000


def tracked(root: Path) -> list[Path]:
    """Files that are in the repository or would be with `git add`."""
    # Whoever owns the checkout: git refuses one of another user.
    git = ["git", "-c", "safe.directory=*", "-C", str(root)]
    command = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True) if (root / ".git").exists() else None
    if done is None:
        pytest.skip(NO_CHECKOUT)
    assert done.returncode == 0, done.stderr
    return [root / name for name in done.stdout.split("\0") if name and (root / name).is_file()]


def test_shell_scripts_parse(root: Path, check: ModuleType) -> None:
    for script in check.shell_scripts():
        done = subprocess.run(["bash", "-n", root / script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_all_shell_scripts_go_through_shellcheck_once(root: Path, check: ModuleType) -> None:
    """It takes four seconds, so it is a step of its own (`tools/check.py --lint`)."""
    [step] = [step for step in check.chosen_steps(check.parse(["--all"])) if step.name == "shellcheck"]
    assert set(step.command[1:]) == set(check.shell_scripts())
    assert {"slurm/train_multinode.sh", "requirements/compile.sh"} <= set(step.command[1:])


def test_shell_scripts_can_be_run_and_stop_at_the_first_error(root: Path, check: ModuleType) -> None:
    for script in check.shell_scripts():
        assert os.access(root / script, os.X_OK), script
        assert "set -euo pipefail" in (root / script).read_text(), script


def test_dockerfile_passes_hadolint(root: Path, need: Callable[[str], str]) -> None:
    done = subprocess.run([need("hadolint"), "Dockerfile"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("place", PLACES)
def test_no_file_names_a_place_of_one_machine_or_a_registry_host(root: Path, place: str) -> None:
    pattern = re.compile(place)
    found = []
    for path in tracked(root):
        if path.stat().st_size > TEXT_LIMIT or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(root)}:{number}: {line.strip()[:100]}")
    assert not found


def test_runs_and_environments_are_not_tracked(root: Path) -> None:
    names = [path.relative_to(root).as_posix() for path in tracked(root)]
    assert not [name for name in names if name.startswith((".venv", "outputs/")) or name.endswith((".pyc", ".sif"))]
