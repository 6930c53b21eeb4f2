"""docs/known-faults.md: every fault has a test that is there."""

import ast
import re
from collections import Counter
from pathlib import Path

PAGE = "docs/known-faults.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows(root: Path) -> dict[str, list[tuple[str, str]]]:
    """The tests of each fault."""
    lines = [line for line in (root / PAGE).read_text().splitlines() if line.startswith("| ")]
    cells = [line.strip("| ").split(" | ", 1) for line in lines if not line.startswith(("| what ", "| ---"))]
    assert not [fault for fault, times in Counter(fault for fault, _ in cells).items() if times > 1]
    return {fault: TEST.findall(tests) for fault, tests in cells}


def test_every_fault_has_a_test_that_exists(root: Path) -> None:
    found = rows(root)
    assert len(found) >= 80, "a fault that was mended stays on the page"
    files = {file for tests in found.values() for file, _ in tests}
    names = {
        file: {node.name for node in ast.parse((root / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        for file in files
        if (root / file).is_file()
    }
    lost = {
        fault: tests
        for fault, tests in found.items()
        if not tests or any(name not in names.get(file, set()) for file, name in tests)
    }
    assert not lost


def test_nothing_on_the_page_looks_like_a_test_and_is_none(root: Path) -> None:
    code = re.findall(r"`(tests/[^`]*::[^`]*)`", (root / PAGE).read_text())
    assert code and all(TEST.fullmatch(f"`{word}`") for word in code)
