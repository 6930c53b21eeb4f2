"""The rooms of ``medserl`` stand on floors, and import from the floors below them only.

``FLOORS`` is the one list; CONTRIBUTING.md shows it, and a test here compares the two. A module that is named in a
string is an import too: such names stand in ``BY_NAME``, each with its reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "medserl"
# From the top. Rooms on one floor do not know each other.
FLOORS: tuple[dict[str, str], ...] = (
    {"cli": "the command line"},
    {
        "ablation": "grids of runs on the ward",
        "pipeline": "raw files to a judged checkpoint",
        "proof": "a real model through every command",
    },
    {
        "bringup": "whether a machine can train",
        "slurm": "jobs on a cluster",
        "sft": "warm start on demonstrations",
    },
    {"training": "the hooks into verl: trainer, agent loop, advantages, validation, export, Python API"},
    {"preflight": "what can be known before a start, on one machine or many"},
    {"evaluation": "judging a model", "serving": "models beside the policy: judge, frozen injector"},
    {
        "data": "files to splits, splits to the notes of a round",
        "planning": "what a training needs of GPUs and hosts, from shapes alone",
    },
    {"config": "settings, and composing a configuration"},
    {"report": "metrics of a round, curves, the report page", "ward": "the synthetic world and its oracle"},
    {"gamelog": "the games of a run, in Parquet"},
    {"run": "a run's life on a machine: directory, log, checkpoints, signals, processes"},
    {"cpu": "what a machine without a GPU needs", "game": "the pure rules: notes, filter, referees, rewards"},
    {
        "provenance": "versions and commit",
        "bridges": "mbridge's bridges between Hugging Face and Megatron, mended",
    },
    {"files": "private files, whole or absent", "families": "the model families that can be trained"},
    {
        "errors": "what a user can cause, and exit codes",
        "imports": "hooks on another package's import",
        "loopback": "where torch's stores listen",
        "words": "how sentences for people count",
    },
)
LONGEST_FILE = 350
HEIGHT = {room: height for height, floor in enumerate(reversed(FLOORS)) for room in floor}
BY_NAME = {
    ("config", "serving"): "the referee `judge` is imported when a run asks for it, as a plugin of the user's is",
    ("run", "training"): "verl imports the plug-in by its name, in every process of a run",
    ("config", "sft"): "verl imports the data set of demonstrations by its name, in its own process",
}


def rooms() -> set[str]:
    """Folders and single files of the package, its front door left out."""
    return {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"} - {
        "__init__",
        "__main__",
        "__pycache__",
    }


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if room_of(path) in HEIGHT]


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they point"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(node: ast.AST) -> Iterator[str]:
    """Modules of the package that a string names, on its own or as ``pkg://…``."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from re.findall(r"^(?:pkg://)?(medserl\.[a-z_]+\.[a-z_.]+)$", node.value)


def arrows(path: Path) -> Iterator[tuple[str, str, int]]:
    """Another room that a file imports, how, and where."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for how, names in (("imports", imported(node)), ("names", named(node))):
            for name in names:
                room = name.split(".")[1] if name.startswith("medserl.") else ""
                if room in HEIGHT and room != room_of(path):
                    yield room, how, getattr(node, "lineno", 0)


def test_every_room_stands_on_one_floor() -> None:
    assert rooms() == set(HEIGHT)
    assert sum(map(len, FLOORS)) == len(HEIGHT)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_from_below_only(path: Path) -> None:
    room = room_of(path)
    upward = [
        f"line {line}: {room} {how} {other}"
        for other, how, line in arrows(path)
        if HEIGHT[other] >= HEIGHT[room] and not (how == "names" and (room, other) in BY_NAME)
    ]
    assert not upward


def test_every_exception_is_still_needed() -> None:
    used = {(room_of(path), other) for path in sources() for other, how, _ in arrows(path) if how == "names"}
    assert set(BY_NAME) <= used


def test_an_upward_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_floors.PACKAGE", tmp_path)
    file = tmp_path / "game" / "vcf.py"
    file.parent.mkdir()
    file.write_text(
        "def f():\n    from medserl.training import api\n    import medserl.cli.main\n    g('medserl.sft.x')\n"
    )
    assert list(arrows(file)) == [("training", "imports", 2), ("cli", "imports", 3), ("sft", "names", 4)]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_or_say_why_they_are_not(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_FILE or f"Over {LONGEST_FILE} lines, because" in "\n".join(lines[:8])


def test_contributing_shows_these_floors() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.search(r"```tower\n(.*?)```", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == tower()


def tower() -> str:
    """The floors as CONTRIBUTING.md shows them: ``python tests/test_floors.py`` prints it."""
    lines = []
    for floor in FLOORS:
        for number, (room, what) in enumerate(floor.items()):
            lines.append(f"{'│' if number else '├'} {room:11} {what}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(tower(), end="")
