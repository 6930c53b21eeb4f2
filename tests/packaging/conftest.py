"""Loads the two programs that stand outside the package, and says when a missing tool is a failure."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def bootstrap() -> ModuleType:
    return load("bootstrap", ROOT / "bootstrap.py")


@pytest.fixture(scope="session")
def check() -> ModuleType:
    return load("medserl_check", ROOT / "tools" / "check.py")


@pytest.fixture
def need() -> Callable[[str], str]:
    """The path of a program; skips where it is missing, but fails where CI=true."""

    def path_of(tool: str) -> str:
        beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        found = shutil.which(tool, path=beside)
        if found is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{tool} is not installed; requirements/dev.txt and .ci/run provide it")
            pytest.skip(f"{tool} is not installed")
        return found

    return path_of
