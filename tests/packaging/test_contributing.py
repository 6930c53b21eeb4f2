"""The way of one note, as CONTRIBUTING.md tells it, leads through functions that exist."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

MENTION = re.compile(r"`([\w/]+\.py)(?::(\w+))?`")


def mentions(root: Path) -> list[tuple[str, str]]:
    """Files and names in code format, in the order of the text; the name is empty where only a file is meant."""
    return MENTION.findall((root / "CONTRIBUTING.md").read_text())


def place(root: Path, path: str) -> Path:
    """The file: below `medserl/`, or from the top."""
    below = root / "medserl" / path
    return below if below.exists() else root / path


def names_of(source: str) -> set[str]:
    """Functions, classes, methods and what a module assigns."""
    tree = ast.parse(source)
    assigned = {
        target.id
        for node in tree.body
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
        if isinstance(target, ast.Name)
    }
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return assigned | {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_file_and_name_exists(root: Path) -> None:
    lost = []
    for path, name in mentions(root):
        if path in ("trainer_sync.py", "verl/trainer/ppo/v1/trainer_base.py"):  # verl's
            continue
        file = place(root, path)
        if not file.is_file() or (name and name not in names_of(file.read_text())):
            lost.append(f"{path}:{name}")
    assert not lost


@pytest.mark.parametrize(
    "room", ["data", "game", "training", "report", "run"], ids=lambda room: f"leads through {room}"
)
def test_the_way_of_a_note_leads_through_the_rooms(root: Path, room: str) -> None:
    assert [name for path, name in mentions(root) if name and path.startswith(f"{room}/")]


def test_verl_still_has_what_it_is_said_to_have(root: Path) -> None:
    spec = importlib.util.find_spec("verl")  # not imported: it would bring torch
    if spec is None or spec.origin is None:
        pytest.skip("verl is not installed")
    folder = Path(spec.origin).parent / "trainer/ppo/v1"
    names = names_of((folder / "trainer_base.py").read_text()) | names_of((folder / "trainer_sync.py").read_text())
    assert {"_compute_old_log_prob", "_compute_ref_log_prob", "on_step_end"} <= names
